//! The demo as a user starts it: on servers of its own, over HTTP, to a good end, and nothing is left behind.

use std::path::PathBuf;

use crate::common::fresh_dir;
use crate::common::program::Program;

#[tokio::test]
async fn a_small_on_sale_ends_well_and_leaves_nothing_behind() {
    let scratch = fresh_dir("demo");
    std::fs::create_dir_all(&scratch).unwrap();
    let program = Program::alone()
        .with("TMPDIR", scratch.to_str().unwrap())
        .with("PATH", &std::env::var("PATH").unwrap())
        .with("HOME", &std::env::var("HOME").unwrap_or_default());
    let played = program.json(0, "demo --buyers 60 --patience-seconds 8 --arrivals-seconds 1").await;
    assert_eq!(played["verdict"], "good", "{played:#}");
    assert_eq!(played["surprises"], 0);
    assert_eq!(played["counts"]["joined"], 60);
    for happening in ["admitted", "held", "paid", "cancelled_hold", "topped_up"] {
        assert!(played["counts"][happening].as_u64() > Some(0), "nobody was {happening}: {played:#}");
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
    let ran = Program::alone().run("demo --url http://127.0.0.1:1 --buyers 1").await;
    assert_eq!(ran.code, 1);
    assert!(ran.err.contains("the on-sale could not begin"), "{}", ran.err);
}
