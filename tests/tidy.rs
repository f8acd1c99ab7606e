//! The project's rules, checked over the sources: front pages, lengths, which module may use which, and what may
//! stand in one place only.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Longest source file, in lines.
const LONGEST: usize = 400;

/// A source file: its path from the repository's root, and its text.
struct Source {
    path: String,
    text: String,
}

pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every file below a folder (or the file itself), by path.
pub fn files_below(folder: &str) -> Vec<String> {
    fn walk(path: PathBuf, into: &mut Vec<String>) {
        if path.is_dir() {
            for entry in fs::read_dir(path).unwrap() {
                walk(entry.unwrap().path(), into);
            }
        } else if path.exists() {
            let inside = path.strip_prefix(root()).unwrap();
            into.push(inside.to_str().unwrap().to_owned());
        }
    }
    let mut files = Vec::new();
    walk(root().join(folder), &mut files);
    files.sort();
    files
}

fn read(path: &str) -> Source {
    let text = fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"));
    Source { path: path.to_owned(), text }
}

/// The source folders of the service, of its crates and of the tools.
fn roots() -> Vec<String> {
    let members = ["crates", "tools"].into_iter().flat_map(|folder| {
        let entries = fs::read_dir(root().join(folder)).unwrap();
        entries.map(move |entry| format!("{folder}/{}/src", entry.unwrap().file_name().to_str().unwrap()))
    });
    let mut roots: Vec<String> = members.chain(["src".to_owned()]).collect();
    roots.sort();
    roots
}

fn sources() -> Vec<Source> {
    roots().iter().flat_map(|root| sources_below(root)).collect()
}

fn sources_below(folder: &str) -> Vec<Source> {
    let files = files_below(folder);
    let rust = files.iter().filter(|path| path.ends_with(".rs"));
    rust.map(|path| read(path)).collect()
}

impl Source {
    /// The lines that are compiled into the program, with their numbers: no comments, no tests.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let tests = self.text.find("#[cfg(test)]\nmod tests {").unwrap_or(self.text.len());
        // These tests have a file of their own.
        let only_tests = ["/laws.rs", "/tests.rs"].iter().any(|name| self.path.ends_with(name));
        self.text[..if only_tests { 0 } else { tests }]
            .lines()
            .enumerate()
            .filter(|(_, line)| !line.trim_start().starts_with("//"))
            .map(|(at, line)| (at + 1, line))
    }

    /// The module's path: `src/bus/retry.rs` is `["bus", "retry"]`, the root is empty.
    fn module(&self) -> Vec<&str> {
        let (_, inside) = self.path.split_once("src/").expect("sources lie below src");
        let inside = inside.trim_end_matches(".rs");
        let mut parts: Vec<&str> = inside.split('/').collect();
        parts.pop_if(|last| ["mod", "lib", "main"].contains(last));
        parts
    }
}

/// Fails with all complaints at once.
fn assert_none(what: &str, found: &[String]) {
    assert!(found.is_empty(), "{what}:\n  {}", found.join("\n  "));
}

/// Places in the program's code, outside the allowed files, where one of the words stands.
fn uses(words: &[&str], allowed: impl Fn(&str) -> bool) -> Vec<String> {
    let mut found = Vec::new();
    // The chaos tool breaks the service from outside: it has a clock, ids and statements of its own.
    let allowed = |path: &str| path.starts_with("tools/chaos/") || allowed(path);
    for source in sources().iter().filter(|source| !allowed(&source.path)) {
        for (number, line) in source.code() {
            if words.iter().any(|word| line.contains(word)) {
                found.push(format!("{}:{number}: {}", source.path, line.trim()));
            }
        }
    }
    found
}

#[test]
fn every_file_begins_with_its_front_page() {
    let bare = |source: &Source| !source.text.starts_with("//! ");
    let found: Vec<String> = sources().into_iter().filter(bare).map(|source| source.path).collect();
    assert_none("these files say nothing about themselves", &found);
}

#[test]
fn no_file_is_too_long() {
    let long = |source: &Source| {
        let lines = source.text.lines().count();
        (lines > LONGEST).then(|| format!("{}: {lines} lines", source.path))
    };
    let found: Vec<String> = sources().iter().filter_map(long).collect();
    assert_none("these files are too long", &found);
}

#[test]
fn no_module_is_a_drawer() {
    let drawer = |path: &String| {
        let names = Path::new(path).components().map(|part| part.as_os_str().to_str().unwrap());
        names
            .map(|name| name.trim_end_matches(".rs"))
            .any(|name| ["util", "utils", "helper", "helpers", "common", "misc", "manager"].contains(&name))
    };
    let found: Vec<String> = roots().iter().flat_map(|root| files_below(root)).filter(drawer).collect();
    assert_none("these names say nothing", &found);
}

/// Each module's children in the order of their declaration; the root's name is empty.
fn declarations(sources: &[Source]) -> BTreeMap<String, Vec<String>> {
    let mut all = BTreeMap::new();
    for source in sources.iter().filter(|source| !source.path.ends_with("src/main.rs")) {
        let modules = source.text.lines().filter_map(|line| {
            let public = line.strip_prefix("pub ").unwrap_or(line);
            public.strip_prefix("mod ")?.strip_suffix(';').map(str::to_owned)
        });
        all.insert(source.module().join("::"), modules.collect());
    }
    all
}

/// The paths that a use tree names, from after its first `::`.
fn tree(text: &str) -> Vec<Vec<String>> {
    let text = text.trim_start();
    if let Some(group) = text.strip_prefix('{') {
        let (mut depth, mut start, mut paths) = (0, 0, Vec::new());
        for (at, letter) in group.char_indices() {
            match letter {
                '{' => depth += 1,
                ',' | '}' if depth == 0 => {
                    paths.extend(tree(&group[start..at]));
                    start = at + 1;
                    if letter == '}' {
                        break;
                    }
                }
                '}' => depth -= 1,
                _ => {}
            }
        }
        return paths;
    }
    let end = text.find(|letter: char| !letter.is_alphanumeric() && letter != '_').unwrap_or(text.len());
    let (name, rest) = text.split_at(end);
    match rest.strip_prefix("::") {
        _ if name.is_empty() => Vec::new(),
        None => vec![vec![name.to_owned()]],
        Some(rest) => {
            let below = tree(rest).into_iter();
            let mut paths: Vec<Vec<String>> =
                below.map(|path| [vec![name.to_owned()], path].concat()).collect();
            if paths.is_empty() {
                paths.push(vec![name.to_owned()]);
            }
            paths
        }
    }
}

/// Every path into this crate that a file names, from the root.
fn names(source: &Source) -> Vec<Vec<String>> {
    let code: String = source.code().map(|(_, line)| format!("{line}\n")).collect();
    let own: Vec<String> = source.module().into_iter().map(str::to_owned).collect();
    let mut found = Vec::new();
    for (at, _) in code.match_indices("crate::") {
        found.extend(tree(&code[at + "crate::".len()..]));
    }
    for (at, _) in code.match_indices("super::") {
        if code[..at].ends_with("super::") {
            continue;
        }
        let mut rest = &code[at..];
        let mut base = own.clone();
        while let Some(below) = rest.strip_prefix("super::") {
            (rest, _) = (below, base.pop());
        }
        found.extend(tree(rest).into_iter().map(|path| [base.clone(), path].concat()));
    }
    found
}

/// Why a file that stands at `own` must not use `target`, if it must not.
fn upward(declarations: &BTreeMap<String, Vec<String>>, own: &[&str], target: &[String]) -> Option<String> {
    let shared = own.iter().zip(target).take_while(|(one, other)| *one == other).count();
    let siblings = declarations.get(&own[..shared].join("::"))?;
    let place = |name: &str| siblings.iter().position(|sibling| sibling == name);
    let (here, there) = (place(own.get(shared)?)?, place(target.get(shared)?)?);
    (there < here).then(|| format!("{} uses {}, which stands above it", own.join("::"), target.join("::")))
}

#[test]
fn a_module_uses_only_those_below_it() {
    let mut found = Vec::new();
    for sources in roots().iter().map(|root| sources_below(root)) {
        let declarations = declarations(&sources);
        for source in &sources {
            let own = source.module();
            found.extend(names(source).iter().filter_map(|target| upward(&declarations, &own, target)));
        }
    }
    found.dedup();
    assert_none("these look upwards; see src/lib.rs", &found);
}

#[test]
fn paths_are_found_in_groups_and_behind_super() {
    let source = Source {
        path: "src/http/auth/keys.rs".into(),
        text: "use crate::{bus, saga::{self, apply::{start, apply}}, store};\nuse super::super::{page, validation::*};\n"
            .into(),
    };
    let found: Vec<String> = names(&source).iter().map(|path| path.join("::")).collect();
    let expected = [
        "bus",
        "saga::self",
        "saga::apply::start",
        "saga::apply::apply",
        "store",
        "http::page",
        "http::validation",
    ];
    assert_eq!(found, expected);
}

#[test]
fn crates_depend_on_nothing_above_them() {
    let all: [(&str, &[&str]); 7] = [
        ("saga-core", &["tokio", "sqlx", "axum", "async-nats", "utoipa"]),
        ("saga-protocol", &["sqlx", "axum", "utoipa", "boxoffice"]),
        ("dev-servers", &["boxoffice"]),
        ("saga-checker", &["tokio", "sqlx", "axum", "async-nats", "boxoffice"]),
        ("saga-worker", &["axum", "utoipa", "boxoffice"]),
        ("worker-conformance", &["sqlx", "axum", "utoipa", "boxoffice"]),
        ("saga-engine", &["axum", "utoipa", "clap", "boxoffice"]),
    ];
    for (package, unwanted) in all {
        let cargo = std::process::Command::new(env!("CARGO"))
            .args(["tree", "--package", package, "--edges", "normal", "--prefix", "none", "--offline"])
            .current_dir(root())
            .output()
            .unwrap();
        let tree = String::from_utf8(cargo.stdout).unwrap();
        assert!(tree.starts_with(&format!("{package} ")), "{tree}");
        for unwanted in unwanted {
            let found = tree.lines().any(|line| line.split(' ').next() == Some(*unwanted));
            assert!(!found, "{package} depends on {unwanted}:\n{tree}");
        }
    }
}

#[test]
fn crates_name_nothing_of_the_box_office() {
    // Points are not among them: the engine has fail points.
    let words = ["seat", "concert", "reservation", "performance", "ticket", "booking", "buyer"];
    let mut found = Vec::new();
    let crates = ["saga-engine", "saga-protocol", "saga-worker", "worker-conformance"];
    let folders = crates.map(|name| format!("crates/{name}/src"));
    for source in folders.iter().flat_map(|folder| sources_below(folder)) {
        let lines = source.text.lines().enumerate();
        let is_domain = |word: &str| words.contains(&word.to_lowercase().trim_end_matches('s'));
        let domain =
            lines.filter(|(_, line)| line.split(|letter: char| !letter.is_alphabetic()).any(is_domain));
        found.extend(domain.map(|(at, line)| format!("{}:{}: {}", source.path, at + 1, line.trim())));
    }
    assert_none("these crates know no domain", &found);
}

#[test]
fn sql_is_in_store_and_fences_only() {
    let fences = ["crates/saga-worker/src/postgres.rs", "crates/saga-worker/src/sqlite.rs"];
    let found = uses(&["sqlx::query", "query!(", "query_as!(", "query_scalar!(", "raw_sql("], |path| {
        // The role and the database of a private Postgres.
        path.starts_with("src/store/")
            || path.starts_with("crates/saga-engine/src/store/")
            || path.starts_with("tools/bench/src/store/")
            || path == "crates/dev-servers/src/cluster.rs"
            || fences.contains(&path)
    });
    assert_none("SQL outside the two stores and the fences of workers", &found);
}

#[test]
fn subjects_stand_in_two_files() {
    let words = ["\"steps.", "\"sagas.", "\"timers.", "\"events.", "\"$KV.", "\"KV_"];
    let files = ["src/bus/subjects.rs", "crates/saga-protocol/src/subjects.rs"];
    assert_none("subjects outside these files", &uses(&words, |path| files.contains(&path)));
}

#[test]
fn backoff_clocks_and_new_ids_have_their_files() {
    assert_none("backoff", &uses(&["backoff::"], |path| path == "crates/saga-engine/src/bus/retry.rs"));
    let clocks = ["Utc::now", "SystemTime::now", "Local::now"];
    // A worker has no engine's clock: it looks how long a function may take. Spans have times of their own.
    let readers = [
        "crates/saga-engine/src/clock.rs",
        "crates/saga-worker/src/answer.rs",
        "crates/saga-protocol/src/spans.rs",
    ];
    assert_none("clocks", &uses(&clocks, |path| readers.contains(&path)));
    let makers = ["Uuid::now_v7(", "Uuid::new_v4("];
    assert_none("ids", &uses(&makers, |path| path == "crates/saga-engine/src/ids.rs"));
}

#[test]
fn nothing_unfinished_or_overpromised() {
    assert_none("unfinished", &uses(&["todo!", "unimplemented!", "dbg!"], |_| false));
    // In two parts, so that this file does not contain it.
    let promise = ["exactly", "once"].join(" ");
    let folders = ["src", "crates", "tools", "docs", "migrations", "workflows", "nats", "examples"];
    let pages = ["README.md", "ARCHITECTURE.md", "CHANGELOG.md"];
    let files = folders.into_iter().chain(pages).flat_map(files_below);
    // What is built or installed is not ours.
    let is_ours = |path: &String| !["/.build/", "/node_modules/"].iter().any(|folder| path.contains(folder));
    let texts = files.filter(|path| !path.ends_with(".png")).filter(is_ours);
    let promised = texts.filter(|path| read(path).text.to_lowercase().contains(&promise));
    assert_none("we deliver at least once, with a fence", &promised.collect::<Vec<_>>());
}

#[test]
fn every_table_says_what_it_is_for() {
    let mut found = Vec::new();
    for path in ["migrations", "crates/saga-engine/migrations"].into_iter().flat_map(files_below) {
        let text = read(&path).text;
        for line in text.lines().filter_map(|line| line.strip_prefix("create table ")) {
            let name = line.split([' ', '(']).next().unwrap();
            if !text.contains(&format!("comment on table {name} is '")) {
                found.push(format!("{path}: {name}"));
            }
        }
    }
    assert_none("tables without a comment", &found);
}
