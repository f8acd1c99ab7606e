//! The commands of CONTRIBUTING.md. Commands of the service run against a service with a saga; what builds, or takes long, is
//! checked without doing it: `make` by a dry run, `cargo` by its arguments, tests by listing them.

use std::process::Command;

use crate::common::app::TestApp;
use crate::common::program::Program;
use crate::pages::read;
use crate::tidy::root;

/// The commands in a page's blocks of shell, without comments and variables before the program.
fn commands(page: &str) -> Vec<Vec<String>> {
    let blocks = page.split("```sh\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    let lines = blocks.flat_map(str::lines).map(|line| line.split(" #").next().unwrap().trim());
    let is_variable = |word: &&str| word.split_once('=').is_some_and(|(name, _)| name == name.to_uppercase());
    lines
        .filter(|line| !line.is_empty() && !line.starts_with("alias "))
        .map(|line| line.split(' ').skip_while(is_variable).map(str::to_owned).collect())
        .collect()
}

fn run(program: &str, arguments: &[&str]) -> String {
    let ran = Command::new(program).args(arguments).current_dir(root()).output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
    assert!(ran.status.success(), "{program} {arguments:?}: {out}{err}");
    out.into_owned()
}

/// Tests of this binary that each filter finds.
fn list_tests(filters: &[&str]) {
    for filter in filters.iter().filter(|word| !word.starts_with('-')) {
        let listed = run(std::env::current_exe().unwrap().to_str().unwrap(), &["--list", filter]);
        assert!(listed.contains(": test\n"), "no integration test is found by {filter}");
    }
}

/// A module of the service that has unit tests.
fn find_unit_tests(module: &str) {
    let path = format!("src/{}", module.replace("::", "/"));
    let files = [format!("{path}.rs"), format!("{path}/mod.rs")];
    let file = files.iter().find(|file| root().join(file).is_file());
    let file = file.unwrap_or_else(|| panic!("there is no module {module}"));
    assert!(read(file).contains("mod tests"), "{file} has no unit tests");
}

fn check_cargo(arguments: &[&str]) {
    let (options, filters) =
        arguments.split_at(arguments.iter().position(|word| *word == "--").unwrap_or(arguments.len()));
    match options {
        ["test", "--test", "it"] => list_tests(&filters[1..]),
        ["test", "--lib"] => filters[1..].iter().for_each(|module| find_unit_tests(module)),
        ["test", "--package", package] => drop(run(env!("CARGO"), &["pkgid", "--offline", package])),
        options => drop(run(env!("CARGO"), &[options, &["--help"]].concat())),
    }
}

/// Runs a command of the service; what checks a workflow gets bounds within which it is quick.
async fn run_boxoffice(program: &Program, saga: &str, arguments: &[&str]) {
    let mut words: Vec<&str> = arguments.iter().map(|word| if *word == "ID" { saga } else { word }).collect();
    match arguments {
        ["workflow", "check", ..] => {
            words.extend("--crashes 0 --losses 1 --duplicates 0 --acts 0".split(' '));
        }
        ["workflow", "deploy", ..] => words.extend("--check-seconds 1 --accept-risk tried".split(' ')),
        _ => {}
    }
    let ran = program.run_words(&words).await;
    assert_eq!(ran.code, 0, "boxoffice {words:?}: {}{}", ran.out, ran.err);
    assert!(!ran.out.is_empty() || words.contains(&"acts"), "boxoffice {words:?} says nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_for_contributors_work() {
    let test = TestApp::start().await;
    let buyer = test.user(1_000).await;
    let saga = test.reserve(buyer, &[1]).await.id.to_string();
    let program = Program::of(&test.env);
    let commands = commands(&read("CONTRIBUTING.md"));
    assert!(commands.len() > 25, "{commands:?}");
    for command in &commands {
        let words: Vec<&str> = command.iter().map(String::as_str).filter(|word| !word.is_empty()).collect();
        match words.as_slice() {
            ["make", targets @ ..] => drop(run("make", &[&["--dry-run"], targets].concat())),
            ["cargo", arguments @ ..] => check_cargo(arguments),
            ["boxoffice", arguments @ ..] => run_boxoffice(&program, &saga, arguments).await,
            ["grep", ..] => drop(run(words[0], &words[1..])),
            [script] if script.ends_with(".sh") => drop(run("bash", &["-n", script])),
            other => panic!("this command is not tried: {other:?}"),
        }
    }
}

#[test]
fn wrong_commands_are_found() {
    let page = "```sh\nA=1 make up   # starts\nalias x='y'\n\ncargo test --test it -- x::\n```\n";
    assert_eq!(commands(page), [vec!["make", "up"], vec!["cargo", "test", "--test", "it", "--", "x::"]]);
    let fails = |check: fn()| std::panic::catch_unwind(check).is_err();
    assert!(fails(|| list_tests(&["no_such_test::"])));
    assert!(fails(|| find_unit_tests("steps::no_such_step")));
    assert!(fails(|| check_cargo(&["check", "--no-such-option"])));
    assert!(fails(|| drop(run("make", &["--dry-run", "no-such-target"]))));
}
