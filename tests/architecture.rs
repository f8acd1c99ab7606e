//! ARCHITECTURE.md says what is there: every file of the code map exists and none is missing, and every test that
//! is named as a proof is a test of the named file.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

fn read(path: impl AsRef<Path>) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The rows of the table below this heading, cell by cell, without the code quotes.
fn table(heading: &str) -> Vec<Vec<String>> {
    let page = read("ARCHITECTURE.md");
    let (_, section) = page.split_once(&format!("\n## {heading}\n")).expect("the heading is there");
    let section = section.split("\n## ").next().unwrap_or(section);
    let rows = section.lines().filter(|line| line.starts_with('|') && !line.starts_with("|---"));
    let cells =
        |row: &str| row.trim_matches('|').split('|').map(|cell| cell.trim().replace('`', "")).collect();
    rows.skip(1).map(cells).collect()
}

fn assert_is_test(named: &str) {
    let (file, test) = named.split_once("::").unwrap_or_else(|| panic!("{named} names no test"));
    let text = read(file);
    let at = text.find(&format!("fn {test}(")).unwrap_or_else(|| panic!("{file} has no {test}"));
    let before: String = text[..at].lines().rev().take(4).collect();
    // Properties stand in a macro that makes the test of them.
    assert!(before.contains("test"), "{named} is no test");
}

fn sources(dir: &Path, found: &mut BTreeSet<String>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path: PathBuf = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let relative = path.strip_prefix(env!("CARGO_MANIFEST_DIR")).unwrap();
            found.insert(relative.display().to_string());
        }
    }
}

#[test]
fn the_code_map_lists_every_file_and_no_other() {
    let mut there = BTreeSet::new();
    sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut there);
    let listed: BTreeSet<String> = table("Code map").into_iter().map(|row| row[0].clone()).collect();
    assert_eq!(listed, there);
}

#[test]
fn every_requirement_names_its_code_and_its_tests() {
    let rows = table("Requirements, code and tests");
    for wanted in "Q1 Q2 Q3 Q4 Q5 Q6 C1 C2 C3 R1 R2 R3 P1 P2 P3 P4 P5 E1 S1 S2 S3 D1 D2 T1".split(' ') {
        assert!(rows.iter().any(|row| row[0] == wanted), "{wanted} is missing");
    }
    for row in rows {
        read(&row[2]);
        assert_is_test(&row[3]);
        assert_is_test(&row[4]);
    }
}

#[test]
fn every_invariant_has_its_proof() {
    let proofs = table("Invariants").into_iter().map(|row| row[1].clone());
    let tests: Vec<String> =
        proofs.filter(|proof| proof.starts_with("tests/") || proof.starts_with("src/")).collect();
    assert!(tests.len() >= 12, "{tests:?}");
    tests.iter().for_each(|proof| assert_is_test(proof));
}
