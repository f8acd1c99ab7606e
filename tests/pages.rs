//! The pages as a whole: their sizes, and that each link on them leads somewhere.

use std::collections::BTreeSet;
use std::path::Path;

use crate::tidy::{files_below, root};

const MAX_PERFORMANCE_WORDS: usize = 2_000;
const MAX_BOOKING_COST_WORDS: usize = 1_200;

pub fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The section of a page under a heading, up to the next heading of the same level.
pub fn section<'a>(page: &'a str, heading: &str) -> &'a str {
    let (_, rest) = page.split_once(&format!("\n{heading}\n")).unwrap_or_else(|| panic!("no {heading}"));
    let level = heading.split(' ').next().unwrap();
    rest.split(&format!("\n{level} ")).next().unwrap()
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
