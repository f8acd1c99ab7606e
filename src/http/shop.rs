//! The shop at `/`: a storefront for buyers on the public API alone. Its files are in `web/shop`, its client in `sdk/shop-ts`.

use axum::extract::Path;
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde::Serialize;

use super::error::Code;
use super::problem::Problem;
use super::static_files::StaticFile;
use crate::config::{self, Switch};

/// Files below `web/shop`.
macro_rules! files {
    ($($path:literal),* $(,)?) => {
        [$(StaticFile::new($path, include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/web/shop/", $path)))),*]
    };
}

static FILES: [StaticFile; 25] = files![
    "index.html",
    "shop.css",
    "icon.svg",
    "app.js",
    "dialog.js",
    "dom.js",
    "session.js",
    "components/box-countdown.js",
    "components/box-queue.js",
    "components/box-seats.js",
    "components/style.js",
    "pages/concerts.js",
    "pages/concert.js",
    "pages/crowd.js",
    "pages/dates.js",
    "pages/line.js",
    "pages/points.js",
    "pages/reservation.js",
    "pages/reservations.js",
    "pages/seats.js",
    "text/en.js",
    "text/index.js",
    "text/ko.js",
    "vendor/uqr.js",
    "vendor/uqr.LICENSE.txt",
];

/// The client, beside the pages that import it.
static CLIENT: StaticFile = StaticFile::new(
    "client.js",
    include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/sdk/shop-ts/src/client.js")),
);

/// What the pages have to know of this service.
#[derive(Clone, Debug, Serialize)]
pub struct ShopFacts {
    /// The shop makes users, who add points themselves.
    local: bool,
}

impl ShopFacts {
    /// None where the shop is off.
    pub fn of(settings: &config::Http) -> Option<Self> {
        (settings.shop == Some(Switch::On)).then_some(Self { local: settings.local })
    }
}

/// The shop's files, and the facts for its pages.
pub fn routes(facts: &ShopFacts) -> Router {
    let facts = facts.clone();
    Router::new()
        .route("/", get(async |asked: HeaderMap| answer("index.html", &asked)))
        .route("/shop/config.json", get(async move || Json(facts.clone())))
        .route("/shop/{*file}", get(async |Path(file): Path<String>, asked: HeaderMap| answer(&file, &asked)))
}

fn answer(path: &str, asked: &HeaderMap) -> Response {
    match FILES.iter().chain([&CLIENT]).find(|file| file.path == path) {
        Some(file) => file.answer(asked),
        None => Problem::new(Code::NotFound, "The shop has no such file.").into_response(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::*;

    fn files_below(folder: &Path, found: &mut BTreeSet<String>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                files_below(&path, found);
            } else {
                found.insert(path.to_str().unwrap().to_owned());
            }
        }
    }

    #[test]
    fn every_file_of_the_shop_is_embedded() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("web/shop");
        let mut found = BTreeSet::new();
        files_below(&folder, &mut found);
        let served = FILES.iter().map(|file| folder.join(file.path).to_str().unwrap().to_owned());
        let served: BTreeSet<String> = served.collect();
        found.retain(|path| !path.ends_with(".d.ts"));
        assert_eq!(served, found);
    }
}
