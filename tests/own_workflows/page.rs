//! The page `docs/your-own-workflow.md`: its commands are run as they are written, and its files are those of the example.

use std::process::Stdio;
use std::time::Duration;

use boxoffice::saga::Definition;
use dev_servers::addresses;
use tokio::process::Command;

use crate::common::app::until;
use crate::common::fresh_dir;
use crate::tidy::root;
use crate::worker_conformance::toolchains;

/// Before the commands of the page: what a terminal of its reader has. A command that fails says so.
const TERMINAL: &str = r#"
boxoffice() { "$BOXOFFICE" "$@" || echo "exit code $?: boxoffice $*" >&2; }
trap 'kill $(jobs -p)' EXIT
"#;

/// How long the page may take on a busy machine.
const PAGE_TIMEOUT: Duration = Duration::from_secs(240);

fn page() -> String {
    std::fs::read_to_string(root().join("docs/your-own-workflow.md")).unwrap()
}

/// The blocks of a language.
fn blocks(page: &str, language: &str) -> Vec<String> {
    let opening = format!("```{language}\n");
    page.split(&opening).skip(1).map(|rest| rest.split("```").next().unwrap().to_owned()).collect()
}

#[test]
fn page_shows_the_files_of_the_example() {
    let of_file = |file: &str| std::fs::read_to_string(root().join(file)).unwrap();
    assert_eq!(blocks(&page(), "python"), [of_file("examples/trip/hotel/hotel.py")]);
    let definitions = blocks(&page(), "toml");
    let [trip, group] = &definitions[..] else { panic!("two definitions: {definitions:?}") };
    assert_eq!(trip, &of_file("examples/trip/trip.toml"));
    Definition::parse("tour.toml", group).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_of_the_page_work_as_written() {
    if !toolchains::trip_is_built().await {
        return;
    }
    let dir = fresh_dir("page");
    let mut up = Command::new(env!("CARGO_BIN_EXE_boxoffice"))
        .args(["up", "--until-stdin-ends", "--listen", "127.0.0.1:0", "--data-dir"])
        .arg(&dir)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    until(60, "`up` to serve", || async { addresses::find(&dir).is_some() }).await;
    let address = addresses::find(&dir).unwrap().http;

    let page = page();
    let mut commands = blocks(&page, "sh");
    assert_eq!(commands.remove(0), "make up\n", "the service is started by this test");
    let leak = dir.join("leak.toml").display().to_string();
    // No reply to `worker test` is kept for an operator.
    let script = format!("{TERMINAL}{}\nboxoffice saga parked list --json", commands.concat())
        .replace("http://127.0.0.1:8080", &format!("http://{}", address))
        .replace("leak.toml", &leak);
    let ran = Command::new("bash")
        .args(["-c", &script])
        .current_dir(root())
        .env("BOXOFFICE", env!("CARGO_BIN_EXE_boxoffice"))
        .env("BOXOFFICE_DATA_DIR", &dir)
        .env("HOTEL_DB", dir.join("hotel.db"))
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let ran = tokio::time::timeout(PAGE_TIMEOUT, ran).await.expect("the page ends").unwrap();
    let (out, err) = (String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
    // What is meant to end with 1: the leak, and the wait for a trip that is compensated.
    let failed = err.lines().filter(|line| line.starts_with("exit code "));
    let failed: Vec<&str> = failed.map(|line| line.split(' ').take(6).last().unwrap()).collect();
    assert_eq!(failed, ["deploy", "wait"], "{out}\n{err}");
    let counterexample = blocks(&page, "text");
    let signs = [", 0 wrong, ", "no_roads", "\"status\":\"completed\"", "\"items\":[]"];
    for sign in signs.into_iter().chain(counterexample[0].lines()) {
        assert!(out.contains(sign), "{sign} is not in\n{out}\n{err}");
    }
    drop(up.stdin.take());
    let _ended = up.wait().await;
}
