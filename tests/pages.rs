//! The pages as a whole: their sizes, that each link on them leads somewhere, and what ARCHITECTURE.md says of files and tests.

use std::collections::BTreeSet;
use std::path::Path;

use crate::docs::has_test;
use crate::tidy::{files_below, root};

const MAX_ARCHITECTURE_BYTES: usize = 18_000;
/// Files from a request to its committed hold.
const MAX_FILES_TO_READ: usize = 25;
const MAX_PERFORMANCE_WORDS: usize = 2_000;
const MAX_BOOKING_COST_WORDS: usize = 1_200;

pub fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The section of a page under a heading, up to the next heading of the same level or a higher one.
pub fn section<'a>(page: &'a str, heading: &str) -> &'a str {
    let (_, rest) = page.split_once(&format!("\n{heading}\n")).unwrap_or_else(|| panic!("no {heading}"));
    let level = heading.split(' ').next().unwrap().len();
    let ends = (1..=level).filter_map(|level| rest.find(&format!("\n{} ", "#".repeat(level))));
    &rest[..ends.min().unwrap_or(rest.len())]
}

/// Words and figures, those of tables included.
fn words(text: &str) -> usize {
    text.split_whitespace().filter(|word| word.contains(char::is_alphanumeric)).count()
}

#[test]
fn performance_page_is_short() {
    let page = read("docs/performance.md");
    assert!(words(&page) <= MAX_PERFORMANCE_WORDS, "{} words", words(&page));
    let cost = words(section(&page, "## What a booking costs and why"));
    assert!(cost <= MAX_BOOKING_COST_WORDS, "{cost} words about the cost of a booking");
}

fn pages() -> Vec<String> {
    let folders = ["docs", "bench", "nats", "deploy", "examples", "sdk", "crates", "tools", "web", "tests"];
    let at_root = ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md"];
    let installed = ["/node_modules/", "/.venv/", "/target/"];
    let files = folders.into_iter().chain(at_root).flat_map(files_below);
    let is_page = |path: &String| path.ends_with(".md") && !installed.iter().any(|part| path.contains(part));
    files.filter(is_page).collect()
}

/// A page without its blocks of code.
fn prose(page: &str) -> String {
    let blocks = page.split("\n```").enumerate();
    blocks.filter(|(at, _)| at % 2 == 0).map(|(_, text)| text).collect::<Vec<_>>().join("\n")
}

/// The targets of a page's links, without those to other sites.
fn links(page: &str) -> Vec<String> {
    let prose = prose(page);
    // What stands between single backticks is code.
    let text: String = prose.split('`').step_by(2).collect();
    let targets = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    let is_ours = |target: &&str| !target.contains("://") && !target.starts_with("mailto:");
    targets.filter(is_ours).map(str::to_owned).collect()
}

/// The anchors of a page's headings, by GitHub's rule.
fn anchors(page: &str) -> BTreeSet<String> {
    let headings = prose(page);
    let headings = headings
        .lines()
        .filter_map(|line| line.trim_start_matches('#').strip_prefix(' ').filter(|_| line.starts_with('#')));
    let anchor = |heading: &str| {
        let kept = heading.to_lowercase();
        let kept = kept.chars().filter(|letter| letter.is_alphanumeric() || " -_".contains(*letter));
        kept.collect::<String>().trim().replace(' ', "-")
    };
    headings.map(anchor).collect()
}

#[test]
fn every_link_leads_somewhere() {
    let (mut count, mut broken) = (0, Vec::new());
    for path in pages() {
        let page = read(&path);
        for link in links(&page) {
            count += 1;
            let (file, anchor) = link.split_once('#').unwrap_or((&link, ""));
            let target = if file.is_empty() {
                path.clone()
            } else {
                Path::new(&path).parent().unwrap().join(file).to_str().unwrap().to_owned()
            };
            let exists = root().join(&target).exists();
            if !exists || (!anchor.is_empty() && !anchors(&read(&target)).contains(anchor)) {
                broken.push(format!("{path}: {link}"));
            }
        }
    }
    assert!(count > 100, "only {count} links are found");
    assert!(broken.is_empty(), "these links lead nowhere:\n{}", broken.join("\n"));
}

#[test]
fn links_and_anchors_are_read() {
    let page = "# A page\n[`one`](docs/a.md#b-c) `[no](x)` [site](https://example.org)\n```sh\n# [no](y)\n```\n![p](i.png)\n";
    assert_eq!(links(page), ["docs/a.md#b-c", "i.png"]);
    assert_eq!(
        anchors("# A page\n## Time, errors: `up`'s end\n"),
        ["a-page", "time-errors-ups-end"].map(str::to_owned).into()
    );
}

#[test]
fn architecture_page_is_short() {
    let bytes = read("ARCHITECTURE.md").len();
    assert!(bytes <= MAX_ARCHITECTURE_BYTES, "{bytes} bytes");
}

/// The name by which other modules use a file: its own, or that of its folder.
fn module_name(path: &str) -> &str {
    let path = path.trim_end_matches(".rs").trim_end_matches("/mod").trim_end_matches("/src/lib");
    path.rsplit('/').next().unwrap()
}

fn has_word(text: &str, word: &str) -> bool {
    text.split(|letter: char| !letter.is_alphanumeric() && letter != '_').any(|found| found == word)
}

#[test]
fn reading_order_links_request_to_hold() {
    let page = read("ARCHITECTURE.md");
    let list = section(&page, "### The files from the request to the hold");
    let items = list.lines().filter(|line| line.starts_with(|letter: char| letter.is_ascii_digit()));
    let files: Vec<&str> =
        items.map(|line| line.split("](").nth(1).unwrap().split(')').next().unwrap()).collect();
    assert!((10..=MAX_FILES_TO_READ).contains(&files.len()), "{} files", files.len());
    assert!(read(files[0]).contains("reservations::reserve"), "the list begins with the route");
    assert!(files.iter().any(|file| read(file).contains("fn hold(")), "the list leads to the hold");
    let mut unnamed = Vec::new();
    for (at, file) in files.iter().enumerate().skip(1) {
        let name = module_name(file);
        if !files[..at].iter().any(|before| has_word(&read(before), name)) {
            unnamed.push(*file);
        }
    }
    assert!(unnamed.is_empty(), "no file before these names them: {unnamed:?}");
}

#[test]
fn every_invariant_names_tests_that_exist() {
    let page = read("ARCHITECTURE.md");
    let table = section(&page, "## Invariants");
    let rows: Vec<&str> = table.lines().filter(|line| line.starts_with("| ")).collect();
    // One is the head of the table.
    assert!(rows.len() > 15, "{} rows", rows.len());
    let mut missing = Vec::new();
    for row in &rows[1..] {
        let tests: Vec<(&str, &str)> = row
            .split("[`")
            .skip(1)
            .map(|rest| {
                let (name, rest) = rest.split_once("`](").unwrap();
                (name, rest.split(')').next().unwrap())
            })
            .collect();
        assert!(!tests.is_empty(), "no test: {row}");
        missing.extend(tests.into_iter().filter(|(name, file)| !has_test(file, name)));
    }
    assert!(missing.is_empty(), "these tests are not there: {missing:?}");
}

/// The files of this repository that a page names in backticks.
fn named_files(page: &str) -> Vec<String> {
    let folders = [
        "src/",
        "crates/",
        "tests/",
        "tools/",
        "migrations/",
        "workflows/",
        "scripts/",
        "web/",
        "sdk/",
        "examples/",
        "deploy/",
        "nats/",
        "docs/",
        "bench/",
        "postgres/",
    ];
    let prose = prose(page);
    let spans = prose.split('`').skip(1).step_by(2);
    let is_file = |span: &&str| {
        folders.iter().any(|folder| span.starts_with(folder)) && !span.contains([' ', '<', '{', '*', '\n'])
    };
    spans.filter(is_file).map(str::to_owned).collect()
}

#[test]
fn every_file_that_a_page_names_is_there() {
    // Notes and the history of changes name files as they were.
    let is_current = |path: &String| !["CHANGELOG.md", "bench/NOTES.md"].contains(&path.as_str());
    let is_ours =
        |path: &String| !path.contains('/') || path.starts_with("docs/") || path.starts_with("nats/");
    let (mut count, mut missing) = (0, Vec::new());
    for path in pages().into_iter().filter(is_current).filter(is_ours) {
        for file in named_files(&read(&path)) {
            count += 1;
            if !root().join(&file).exists() {
                missing.push(format!("{path}: {file}"));
            }
        }
    }
    assert!(count > 200, "only {count} files are found");
    assert!(missing.is_empty(), "these files are not there:\n{}", missing.join("\n"));
}
