//! The diagrams in `docs/`: what can be generated is, and compared here; what is drawn by hand is held against the
//! API description.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use serde_json::Value;

use crate::common::program::{Program, with_database};

/// Set it to write the generated parts instead of comparing them.
const UPDATE: &str = "UPDATE_DOCS";

fn page(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("docs").join(name)
}

/// The generated part of a page is this text; with `UPDATE_DOCS` set, it becomes it.
fn check_part(page_name: &str, part: &str, expected: &str) {
    let path = page(page_name);
    let text = fs::read_to_string(&path).unwrap();
    let opening = format!("<!-- generated: {part} -->\n");
    let from =
        text.find(&opening).unwrap_or_else(|| panic!("{page_name} has no part {part}")) + opening.len();
    let to = from + text[from..].find("<!-- end -->").unwrap_or_else(|| panic!("{part} has no end"));
    if text[from..to] == *expected {
        return;
    }
    assert!(
        std::env::var_os(UPDATE).is_some(),
        "docs/{page_name}, {part}, is out of date; run: {UPDATE}=1 cargo test --test it docs::"
    );
    fs::write(&path, format!("{}{expected}{}", &text[..from], &text[to..])).unwrap();
}

fn fenced(mermaid: &str) -> String {
    format!("```mermaid\n{}\n```\n", mermaid.trim_end())
}

#[tokio::test]
async fn the_schema_is_drawn_as_it_is() {
    let (program, _pool) = with_database().await;
    let drawn = program.json(0, "erd").await;
    check_part("erd.md", "erd", &fenced(drawn["mermaid"].as_str().unwrap()));
    let row = |table: &Value| {
        let comment = table["comment"].as_str();
        let comment = comment.unwrap_or_else(|| panic!("{} has no comment", table["name"]));
        format!("| `{}` | {comment} |\n", table["name"].as_str().unwrap())
    };
    let rows: String = drawn["tables"].as_array().unwrap().iter().map(row).collect();
    check_part("erd.md", "tables", &format!("| table | what it is for |\n|---|---|\n{rows}"));
}

#[tokio::test]
async fn the_sagas_are_drawn_as_they_are() {
    let program = Program::alone();
    for workflow in ["booking", "cancellation"] {
        let drawn = program.json(0, &format!("workflow graph {workflow}")).await;
        check_part("sagas.md", workflow, &fenced(drawn["mermaid"].as_str().unwrap()));
    }
}

/// The routes of the API description, as `METHOD /path`.
fn described_routes() -> BTreeSet<String> {
    let description = serde_json::to_value(boxoffice::http::description()).unwrap();
    let paths = description["paths"].as_object().unwrap();
    let of_path = |(path, methods): (&String, &Value)| -> Vec<String> {
        methods
            .as_object()
            .unwrap()
            .keys()
            .map(|method| format!("{} {path}", method.to_uppercase()))
            .collect()
    };
    paths.iter().flat_map(of_path).collect()
}

/// The routes that a page names in backticks.
fn named_routes(text: &str) -> BTreeSet<String> {
    let quoted = text.split('`').skip(1).step_by(2);
    let is_route = |text: &&str| {
        text.split_once(" /")
            .is_some_and(|(method, _)| method.chars().all(|letter| letter.is_ascii_uppercase()))
    };
    // A fence is three backticks, so that whole diagrams count as quoted; they have more than one line.
    quoted.filter(|text| !text.contains('\n')).filter(is_route).map(str::to_owned).collect()
}

#[test]
fn every_route_has_its_sequence_diagram() {
    let (described, named) =
        (described_routes(), named_routes(&fs::read_to_string(page("sequences.md")).unwrap()));
    assert!(described.len() > 25, "{described:?}");
    let missing: Vec<_> = described.difference(&named).collect();
    assert!(missing.is_empty(), "docs/sequences.md lacks {missing:?}");
    let gone: Vec<_> = named.difference(&described).collect();
    assert!(gone.is_empty(), "docs/sequences.md names routes that do not exist: {gone:?}");
}

#[test]
fn every_command_that_is_drawn_is_one_that_a_workflow_sends() {
    let catalogue = boxoffice::saga::Catalogue::built_in().unwrap();
    let sent: BTreeSet<&str> = catalogue.iter().flat_map(|definition| definition.commands()).collect();
    let text = fs::read_to_string(page("sequences.md")).unwrap();
    let drawn: BTreeSet<&str> =
        text.lines().filter_map(|line| line.trim().strip_prefix("JetStream->>Workers: ")).collect();
    assert_eq!(drawn, sent);
}

#[test]
fn every_diagram_is_whole() {
    for name in ["sequences.md", "sagas.md", "erd.md"] {
        let text = fs::read_to_string(page(name)).unwrap();
        let diagrams: Vec<&str> = text.split("```mermaid\n").skip(1).collect();
        assert!(!diagrams.is_empty(), "{name} has none");
        for diagram in diagrams {
            let diagram = diagram.split("```").next().unwrap();
            let first = |word: &str| {
                diagram.lines().filter(|line| line.split_whitespace().next() == Some(word)).count()
            };
            assert_eq!(first("alt") + first("loop"), first("end"), "{name}: {diagram}");
            assert!(!diagram.contains(';'), "a semicolon ends a line of Mermaid; {name}: {diagram}");
        }
    }
}
