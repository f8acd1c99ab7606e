//! Plain words: a test counts the words in comments and pages that hide who does what.

use crate::tidy::{files_below, root};

/// These words hide the subject of a sentence. Name the user, the instance or the program instead.
const VAGUE_WORDS: [&str; 8] =
    ["whoever", "nobody", "somebody", "everybody", "anybody", "told", "tell", "tells"];

/// The limit, in vague words per 1,000 words.
const LIMIT: f64 = 0.3;

/// The words of a Rust file's comments, or all words of a page. An identifier is one word.
fn words(path: &str, text: &str) -> Vec<String> {
    let is_page = path.ends_with(".md");
    let comment = |line: &'_ str| -> Option<String> {
        let from = if is_page { 0 } else { line.find("//").filter(|at| !line[..*at].ends_with(':'))? };
        Some(line[from..].to_lowercase())
    };
    let comments = text.lines().filter_map(comment);
    comments
        .flat_map(|line| {
            let words = line.split(|letter: char| !letter.is_alphanumeric() && !"'_".contains(letter));
            words.filter(|word| !word.is_empty()).map(str::to_owned).collect::<Vec<_>>()
        })
        .collect()
}

/// How many words there are, and how many of them are vague. A comment "The same." counts as vague too.
fn count(path: &str) -> (usize, usize) {
    let text = std::fs::read_to_string(root().join(path)).unwrap();
    let words = words(path, &text);
    let same = text.lines().filter(|line| line.trim().trim_start_matches('/').trim() == "The same.").count();
    (words.len(), same + words.iter().filter(|word| VAGUE_WORDS.contains(&word.as_str())).count())
}

fn checked_files() -> Vec<String> {
    let pages = ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "nats/README.md"];
    let folders = ["src", "crates", "tests", "tools", "docs"];
    let files = folders.into_iter().chain(pages).flat_map(files_below);
    let is_text = |path: &String| path.ends_with(".rs") || path.ends_with(".md");
    // Installed packages are not ours, and this file names the words.
    let is_ours = |path: &String| !path.contains("/node_modules/") && path != "tests/words.rs";
    files.filter(is_text).filter(is_ours).collect()
}

#[test]
fn comments_and_pages_name_their_subjects() {
    let (mut all, mut vague, mut found) = (0, 0, Vec::new());
    for path in checked_files() {
        let (words, bad) = count(&path);
        (all, vague) = (all + words, vague + bad);
        if bad > 0 {
            found.push(format!("{path}: {bad}"));
        }
    }
    let rate = 1_000.0 * vague as f64 / all as f64;
    assert!(rate <= LIMIT, "{rate:.2} vague words per 1,000, at most {LIMIT}:\n  {}", found.join("\n  "));
}

#[test]
fn vague_words_are_found_outside_code() {
    let code = "let told = 1; // Nobody knows.\n/// Tells it.\nlet url = \"http://nobody\";\n";
    let found = |path: &str, text: &str| {
        let words = words(path, text);
        words.into_iter().filter(|word| VAGUE_WORDS.contains(&word.as_str())).collect::<Vec<_>>()
    };
    assert_eq!(found("a.rs", code), ["nobody", "tells"]);
    assert_eq!(found("a.md", "Whoever asks\nis told; `fn_told` is a name."), ["whoever", "told"]);
}
