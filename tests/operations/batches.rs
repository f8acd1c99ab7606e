//! One act on many sagas.

use std::process::Stdio;
use std::time::Duration;

use boxoffice::store::api_keys::Role;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::stuck;
use crate::common::app::TestApp;
use crate::common::http::Entrance;
use crate::common::program::Program;

async fn acts(test: &TestApp) -> i64 {
    sqlx::query_scalar("select count(*) from operator_acts").fetch_one(&test.app.pool).await.unwrap()
}

#[tokio::test]
async fn dry_run_counts_what_the_batch_then_does() {
    let entrance = Entrance::start().await;
    let (test, operator) = (&entrance.test, entrance.key(Role::Operator).await);
    for seat in 1..=5 {
        stuck(test, seat).await;
    }
    test.reserve(test.user(0).await, &[6]).await;
    let order = |dry_run: bool| {
        json!({ "act": "retry", "filter": { "status": "stuck", "workflow": "booking" }, "reason": "mended",
                "dry_run": dry_run, "rate_per_second": 100 })
    };
    let looked = entrance.post("/v1/ops/sagas/batch", &operator, order(true)).await.good(200).clone();
    assert_eq!((&looked["matched"], &looked["done"], &looked["refused"]), (&5.into(), &5.into(), &0.into()));
    assert_eq!(acts(test).await, 0);
    let program = Program::of(&test.env);
    let words = "saga batch retry --status stuck --workflow booking --dry-run --rate 100 --reason mended";
    assert_eq!(program.json(0, words).await, looked);

    let done = entrance.post("/v1/ops/sagas/batch", &operator, order(false)).await.good(200).clone();
    assert_eq!((&done["done"], &done["stopped"], &done["more"]), (&5.into(), &Value::Null, &false.into()));
    assert_eq!(acts(test).await, 5, "each is written down");
    test.check_books().await;
    let none = program.json(0, "saga batch retry --status stuck --reason mended").await;
    assert_eq!((&none["matched"], &none["done"]), (&0.into(), &0.into()));
}

#[tokio::test]
async fn refusals_are_counted_and_others_done() {
    let entrance = Entrance::start().await;
    let test = &entrance.test;
    for seat in 1..=3 {
        stuck(test, seat).await;
    }
    for seat in 4..=5 {
        test.reserve(test.user(0).await, &[seat]).await;
    }
    let program = Program::of(&test.env);
    let done = program.json(1, "saga batch skip-undo --open --workflow booking --reason x").await;
    assert_eq!((&done["done"], &done["refused"]), (&3.into(), &2.into()));
    assert_eq!(done["refusals"], json!({ "the saga is waiting; this act is not allowed now": 2 }));
    let told = program.run("saga batch skip-undo --open --reason x").await.out;
    assert!(told.contains("0 done, 2 refused") && told.contains("the saga is waiting"), "{told}");
}

#[tokio::test]
async fn a_batch_is_bounded_in_number_and_pace() {
    let entrance = Entrance::start().await;
    let test = &entrance.test;
    for seat in 1..=6 {
        stuck(test, seat).await;
    }
    let program = Program::of(&test.env);
    let begun = Instant::now();
    let some = program.json(0, "saga batch abandon --status stuck --limit 4 --rate 2 --reason x").await;
    assert!(
        begun.elapsed() >= Duration::from_millis(1_500),
        "four acts at two per second: {:?}",
        begun.elapsed()
    );
    assert_eq!((&some["matched"], &some["done"], &some["more"]), (&6.into(), &4.into(), &true.into()));
    let rest = program.json(0, "saga counts --status stuck").await;
    assert_eq!(rest["total"], 2);
}

#[tokio::test]
async fn ctrl_c_ends_a_batch_with_its_result() {
    let test = TestApp::start().await;
    for seat in 1..=6 {
        stuck(&test, seat).await;
    }
    let mut child = tokio::process::Command::new(env!("CARGO_BIN_EXE_boxoffice"))
        .args(["saga", "batch", "abandon", "--status", "stuck", "--rate", "1", "--reason", "x", "--json"])
        .env_clear()
        .env("DATABASE_URL", &test.env.database_url)
        .env("NATS_URL", &test.env.nats_url)
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    test.until(20, "the first act", || async { acts(&test).await > 0 }).await;
    let pid = Pid::from_raw(child.id().unwrap().try_into().unwrap());
    kill(pid, Signal::SIGINT).unwrap();
    let mut out = String::new();
    tokio::io::AsyncReadExt::read_to_string(&mut child.stdout.take().unwrap(), &mut out).await.unwrap();
    assert_eq!(child.wait().await.unwrap().code(), Some(1));
    let told: Value = serde_json::from_str(out.trim()).unwrap();
    assert_eq!(told["stopped"], "it was stopped");
    assert_eq!(told["done"].as_i64().unwrap(), acts(&test).await, "{told}");
    assert!(told["done"].as_i64().unwrap() < 6, "{told}");
}

#[tokio::test]
async fn invalid_batch_is_refused_by_field() {
    let entrance = Entrance::start().await;
    let operator = entrance.key(Role::Operator).await;
    let good = json!({ "act": "retry", "filter": { "status": "stuck" }, "reason": "x" });
    for (field, value, pointer) in [
        ("act", json!("complete"), "/act"),
        ("act", json!("delete"), "/act"),
        ("filter", json!({}), "/filter"),
        ("filter", json!({ "open": false }), "/filter"),
        ("filter", json!({ "status": "odd" }), "/filter/status"),
        ("filter", json!({ "colour": "red" }), "/filter/colour"),
        ("filter", json!({ "step": "a\u{0}" }), "/filter/step"),
        ("reason", json!(""), "/reason"),
        ("rate_per_second", json!(0), "/rate_per_second"),
        ("limit", json!(10_001), "/limit"),
        ("limit", json!(10_000), "/limit"),
    ] {
        let mut order = good.clone();
        order[field] = value.clone();
        let reply = entrance.post("/v1/ops/sagas/batch", &operator, order).await;
        let expected = if value == json!({ "colour": "red" }) {
            vec!["/filter/colour", "/filter"]
        } else {
            vec![pointer]
        };
        assert_eq!(reply.pointers(), expected, "{field}: {value}");
    }
    let viewer = entrance.key(Role::Viewer).await;
    entrance.post("/v1/ops/sagas/batch", &viewer, good).await.is(403, "forbidden");
    let program = Program::of(&entrance.test.env);
    for words in [
        "retry --reason x",
        "complete --status stuck --reason x",
        "retry --status stuck",
        "retry --status odd --reason x",
        "retry --status stuck --rate 0 --reason x",
    ] {
        assert_eq!(program.run(&format!("saga batch {words}")).await.code, 2, "{words}");
    }
}
