//! The demo as a user starts it: on servers of its own, over HTTP, to a good end, and nothing is left behind.

// A test reports an error by a panic.
#![allow(clippy::unwrap_used)]

#[path = "../../../tests/common/place.rs"]
mod place;

use std::path::PathBuf;

use serde_json::Value;
use tokio::process::Command;

use place::fresh_dir;

/// What a run left behind.
struct Ran {
    code: Option<i32>,
    out: String,
    err: String,
}

/// Runs the demo with a folder of its own for temporary files; nothing of this machine's settings reaches it.
async fn run(words: &str, scratch: &str) -> Ran {
    let output = Command::new(env!("CARGO_BIN_EXE_boxoffice-demo"))
        .args(words.split(' '))
        // Where no service runs.
        .current_dir(scratch)
        .env_clear()
        .env("TMPDIR", scratch)
        .env("PATH", std::env::var("PATH").unwrap())
        .env("HOME", std::env::var("HOME").unwrap_or_default())
        .kill_on_drop(true)
        .output()
        .await
        .unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    let ran = Ran { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) };
    assert!(!ran.err.contains("panicked"), "{words}: {}", ran.err);
    ran
}

#[tokio::test]
async fn small_on_sale_leaves_nothing_behind() {
    let scratch = fresh_dir("demo");
    std::fs::create_dir_all(&scratch).unwrap();
    let words = "--buyers 60 --patience-seconds 8 --arrivals-seconds 1 --json";
    let ran = run(words, scratch.to_str().unwrap()).await;
    assert_eq!(ran.code, Some(0), "{}{}", ran.out, ran.err);
    assert_eq!(ran.out.trim_end().lines().count(), 1, "{}", ran.out);
    let played: Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!(played["verdict"], "good", "{played:#}");
    assert_eq!(played["surprises"], 0);
    assert_eq!(played["counts"]["joined"], 60);
    for happening in ["admitted", "held", "paid", "cancelled_hold", "topped_up"] {
        assert!(played["counts"][happening].as_u64() > Some(0), "no buyer was {happening}: {played:#}");
    }
    assert!(played["audits"].as_u64() > Some(1), "it is audited during the sale and after it");
    assert_eq!(played["audit"]["verdict"], "good");
    assert!(played["calls"]["pay"]["p99_ms"].as_f64() > Some(0.0));
    let left: Vec<PathBuf> =
        std::fs::read_dir(&scratch).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(left.is_empty(), "{left:?}");
}

#[tokio::test]
async fn without_a_service_there_is_no_on_sale() {
    let scratch = fresh_dir("nothing");
    std::fs::create_dir_all(&scratch).unwrap();
    let ran = run("--url http://127.0.0.1:1 --buyers 1", scratch.to_str().unwrap()).await;
    assert_eq!(ran.code, Some(1));
    assert!(ran.err.contains("the on-sale could not begin"), "{}", ran.err);
}
