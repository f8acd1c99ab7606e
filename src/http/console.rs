//! The console of operators: static files at `/console/`. They hold no data and no secret; the page calls the ops API with the
//! key that its user types in.

use axum::Router;
use axum::extract::Path;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use super::error::Code;
use super::problem::Problem;
use super::static_files::StaticFile;

/// Files below `web/console`.
macro_rules! files {
    ($($path:literal),* $(,)?) => {
        [$(StaticFile::new($path, include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/web/console/", $path)))),*]
    };
}

static FILES: [StaticFile; 26] = files![
    "index.html",
    "console.css",
    "icon.svg",
    "main.js",
    "api.js",
    "dom.js",
    "format.js",
    "live.js",
    "list.js",
    "dialog.js",
    "filters.js",
    "acts.js",
    "graph.js",
    "waterfall.js",
    "chart.js",
    "sales-chart.js",
    "pages/overview.js",
    "pages/sagas.js",
    "pages/saga.js",
    "pages/workflows.js",
    "pages/batches.js",
    "pages/parked.js",
    "pages/lines.js",
    "pages/workers.js",
    "pages/acts.js",
    "pages/reports.js",
];

/// The console, and a redirect to it from the address without the slash.
pub fn routes<S: Clone + Send + Sync + 'static>() -> Router<S> {
    // Relative, so that it holds behind a proxy that adds a prefix.
    let redirect = async || (StatusCode::PERMANENT_REDIRECT, [(header::LOCATION, "console/")]);
    Router::new()
        .route("/console", get(redirect))
        .route("/console/", get(async |asked: HeaderMap| answer("index.html", &asked)))
        .route(
            "/console/{*file}",
            get(async |Path(file): Path<String>, asked: HeaderMap| answer(&file, &asked)),
        )
}

fn answer(path: &str, asked: &HeaderMap) -> Response {
    match FILES.iter().find(|file| file.path == path) {
        Some(file) => file.answer(asked),
        None => Problem::new(Code::NotFound, "The console has no such file.").into_response(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::*;

    fn walk(folder: &Path, into: &mut BTreeSet<String>, root: &Path) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, into, root);
            } else {
                into.insert(path.strip_prefix(root).unwrap().to_str().unwrap().to_owned());
            }
        }
    }

    #[test]
    fn every_console_file_is_embedded() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("web/console");
        let mut there = BTreeSet::new();
        walk(&root, &mut there, &root);
        let embedded: BTreeSet<String> = FILES.iter().map(|file| file.path.to_owned()).collect();
        assert_eq!(embedded, there);
    }

    #[test]
    fn page_has_no_inline_script_or_style() {
        let page = FILES.iter().find(|file| file.path == "index.html").unwrap();
        let page = std::str::from_utf8(page.body).unwrap();
        assert!(page.contains("<script type=\"module\" src=\"main.js\"></script>"), "{page}");
        assert_eq!(page.matches("<script").count(), 1);
        for forbidden in ["<style", "style=", "onclick", "onload", "http:", "https:"] {
            assert!(!page.contains(forbidden), "{forbidden}");
        }
    }
}
