//! The pages about the program: what can be generated is, and compared here; what is written by hand is held against
//! the API description, the workflows, the files and the tests that it names, and against a running service.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use boxoffice::bus::topology;
use boxoffice::saga::{ABANDONED, STUCK};
use boxoffice::sample_concerts;
use serde_json::Value;

use crate::common::app::TestApp;
use crate::common::program::{Program, with_database};
use crate::pages::section;

/// Set it to write the generated parts instead of comparing them.
const UPDATE: &str = "UPDATE_DOCS";

fn page(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("docs").join(name)
}

/// The generated part of a page is this text; with `UPDATE_DOCS` set, it becomes it.
pub fn check_part(page_name: &str, part: &str, expected: &str) {
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

/// A generated file is this text; with `UPDATE_DOCS` set, it becomes it.
fn check_file(name: &str, expected: &str) {
    if fs::read_to_string(page(name)).is_ok_and(|text| text == expected) {
        return;
    }
    assert!(
        std::env::var_os(UPDATE).is_some(),
        "docs/{name} is out of date; run: {UPDATE}=1 cargo test --test it docs::"
    );
    fs::write(page(name), expected).unwrap();
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

/// The names in the first column of the table under a heading of the page about privacy.
fn privacy_rows(heading: &str) -> BTreeSet<String> {
    let text = at_root("docs/privacy.md");
    let rows = section(&text, heading).lines().filter(|line| line.starts_with("| `"));
    rows.map(|line| line.split('`').nth(1).unwrap().to_owned()).collect()
}

/// A new table or stream needs a row that says what it keeps about users, and for how long.
#[tokio::test]
async fn privacy_page_lists_every_table_and_stream() {
    let (program, _pool) = with_database().await;
    let drawn = program.json(0, "erd").await;
    let tables = drawn["tables"].as_array().unwrap().iter();
    let tables: BTreeSet<String> = tables.map(|table| table["name"].as_str().unwrap().to_owned()).collect();
    assert_eq!(privacy_rows("## Tables"), tables);
    let own = [topology::health(1), topology::bucket(1, None)];
    let streams: BTreeSet<String> =
        topology::streams(1).into_iter().chain(own).map(|stream| stream.name).collect();
    assert_eq!(privacy_rows("## Streams and buckets"), streams);
}

#[tokio::test]
async fn the_sagas_are_drawn_as_they_are() {
    let program = Program::alone();
    for workflow in ["booking", "cancellation"] {
        let drawn = program.json(0, &format!("workflow graph {workflow}")).await;
        check_part("requests-and-sagas.md", workflow, &fenced(drawn["mermaid"].as_str().unwrap()));
        let drawn = program.json(0, &format!("workflow graph {workflow} --format svg")).await;
        check_file(&format!("{workflow}.svg"), drawn["svg"].as_str().unwrap());
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
        (described_routes(), named_routes(&fs::read_to_string(page("requests-and-sagas.md")).unwrap()));
    assert!(described.len() > 25, "{described:?}");
    let missing: Vec<_> = described.difference(&named).collect();
    assert!(missing.is_empty(), "docs/requests-and-sagas.md lacks {missing:?}");
    let gone: Vec<_> = named.difference(&described).collect();
    assert!(gone.is_empty(), "docs/requests-and-sagas.md names routes that do not exist: {gone:?}");
}

#[test]
fn drawn_commands_are_sent_by_a_workflow() {
    let registry = boxoffice::workflows::built_in().unwrap();
    let sent = registry.commands();
    let sent: BTreeSet<&str> = sent.iter().map(String::as_str).collect();
    let text = fs::read_to_string(page("requests-and-sagas.md")).unwrap();
    let drawn: BTreeSet<&str> =
        text.lines().filter_map(|line| line.trim().strip_prefix("JetStream->>Workers: ")).collect();
    assert_eq!(drawn, sent);
}

#[test]
fn every_diagram_is_whole() {
    for name in ["../ARCHITECTURE.md", "requests-and-sagas.md", "erd.md"] {
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

fn at_root(path: &str) -> String {
    let whole = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(&whole).unwrap_or_else(|error| panic!("{path}: {error}"))
}

#[test]
fn every_event_has_a_row_and_examples() {
    let text = at_root("docs/events.md");
    let rows = text.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next());
    let listed: BTreeSet<String> = rows.filter(|name| name.contains('.')).map(str::to_owned).collect();
    let registry = boxoffice::workflows::built_in().unwrap();
    let all = registry.all();
    let steps = all.iter().flat_map(|definition| &definition.steps);
    let told = steps.flat_map(|step| {
        step.emits.iter().chain(step.announces.values()).chain(step.undo_announces.values())
    });
    let ends = all.iter().flat_map(|definition| definition.ends.values());
    let direct =
        boxoffice::store::direct_events::NAMES.into_iter().chain([STUCK, ABANDONED]).map(str::to_owned);
    assert_eq!(listed, told.chain(ends).cloned().chain(direct).collect());
    for block in text.split("```json\n").skip(1) {
        let block = block.split("```").next().unwrap();
        let events = boxoffice::bus::events::read_events(block.as_bytes()).unwrap();
        let shown: Value = serde_json::from_str(block).unwrap();
        assert_eq!(serde_json::to_value(&events).unwrap(), shown["events"]);
        for event in events {
            let end = format!(":{}:{}", event.sequence, event.name);
            assert!(listed.contains(&event.name) && event.id.ends_with(&end), "{}", event.id);
        }
    }
}

/// What a text names in the form `` `file`: `function`, `function` ``; a file alone has no function.
fn named(text: &str) -> Vec<(&str, Option<&str>)> {
    let parts: Vec<&str> = text.split('`').collect();
    let (mut file, mut found) = (None, Vec::new());
    for pair in parts.chunks_exact(2) {
        let (before, span) = (pair[0].trim(), pair[1]);
        match file {
            Some(file) if [":", ","].contains(&before) && !span.contains('/') => {
                found.push((file, Some(span)))
            }
            _ => {
                file =
                    Some(span).filter(|span| span.contains('/') && span.contains('.') && !span.contains(' '));
                found.extend(file.map(|file| (file, None)));
            }
        }
    }
    found
}

/// Whether a file has a test function of this name.
pub fn has_test(file: &str, name: &str) -> bool {
    let text = at_root(file);
    text.match_indices(&format!("fn {name}(")).any(|(at, _)| {
        let mut above =
            text[..at].trim_end_matches(' ').lines().rev().take_while(|line| !line.trim().is_empty());
        above.any(|line| line.contains("#[test]") || line.contains("#[tokio::test"))
    })
}

/// Rows of a page's tables, as cells.
fn rows(page: &str) -> impl Iterator<Item = Vec<&str>> {
    let rows = page.lines().filter(|line| line.starts_with('|') && !line.starts_with("|--"));
    rows.map(|line| line.trim_matches('|').split('|').map(str::trim).collect())
}

#[test]
fn every_test_that_a_page_names_is_there() {
    let mut wrong = Vec::new();
    for path in ["docs/decisions.md", "docs/concurrency.md", "docs/requirements.md"] {
        let page = at_root(path);
        let cells: Vec<&str> = rows(&page).flatten().collect();
        let named: Vec<_> = cells.iter().flat_map(|cell| named(cell)).collect();
        assert!(named.iter().filter(|(_, function)| function.is_some()).count() > 5, "{path}");
        for (file, function) in named {
            let there = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(file).is_file();
            if !there || function.is_some_and(|name| !has_test(file, name)) {
                wrong.push(format!("{path}: {file} {}", function.unwrap_or_default()));
            }
        }
    }
    assert!(wrong.is_empty(), "these are not there:\n{}", wrong.join("\n"));
}

#[test]
fn every_requirement_has_its_tests() {
    let page = at_root("docs/requirements.md");
    let mut points = BTreeSet::new();
    for row in rows(&page).filter(|row| row.len() == 5 && !row[0].is_empty()) {
        points.insert(row[0]);
        if row[2] == "not there yet" {
            continue;
        }
        for (cell, folder) in [(row[3], "src/"), (row[4], "tests/")] {
            let is_in = |file: &str| {
                // Of a crate or a tool, the folder after its name.
                let member = ["crates/", "tools/"].iter().find_map(|members| file.strip_prefix(members));
                member
                    .map_or(file, |path| path.split_once('/').map_or("", |(_, inside)| inside))
                    .starts_with(folder)
            };
            let tests = named(cell).into_iter().filter(|(file, name)| is_in(file) && name.is_some());
            assert!(tests.count() > 0, "{}, {}: no test in {folder}", row[0], row[1]);
        }
    }
    let expected = "C1 C2 C3 D1 D2 E1 P1 P2 P3 P4 P5 Q1 Q2 Q3 Q4 Q5 Q6 R1 R2 R3 S1 S2 S3 S4 S5 T1";
    assert_eq!(points.into_iter().collect::<Vec<_>>().join(" "), expected);
}

/// The shell lines of the README that buy and give back two seats, against a service of their own.
#[tokio::test(flavor = "multi_thread")]
async fn the_walk_in_the_readme_works_as_written() {
    if std::process::Command::new("curl").arg("--version").output().is_err() {
        return eprintln!("there is no curl here to walk with");
    }
    let test = TestApp::start().await;
    sample_concerts::load(&test.app.pool, test.app.clock.now(), 1_000, 6_000).await.unwrap();
    let page = at_root("README.md");
    let walk = page.split("```sh\n").find(|block| block.starts_with("box=http")).expect("there is a walk");
    let walk = walk.split("```").next().unwrap();
    let here = format!("http://{}", test.app.address.unwrap());
    let script = format!("set -euo pipefail\n{}", walk.replace("http://127.0.0.1:8080", &here));
    let walked = tokio::process::Command::new("bash").args(["-c", &script]).output().await.unwrap();
    let (said, complaints) =
        (String::from_utf8_lossy(&walked.stdout), String::from_utf8_lossy(&walked.stderr));
    assert!(walked.status.success(), "{said}\n{complaints}");
    for sign in ["\"status\":\"succeeded\"", "\"status\":\"cancelled\"", "\"kind\":\"refund\""] {
        assert!(said.contains(sign), "{sign} is not in {said}");
    }
}
