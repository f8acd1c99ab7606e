//! What operators do from the command line: look at sagas, act on them, and ask what is wrong with the servers.

use boxoffice::app::Role;
use boxoffice::bus::topology;
use serde_json::Value;

use crate::common::Env;
use crate::common::app::{start, until};
use crate::common::program::{Program, with_database};

/// The same consistent rows that the audit is tested with.
const GOOD: &str = include_str!("data/audit_good.sql");

#[tokio::test]
async fn sagas_are_filtered_and_shown_with_history() {
    let (program, pool) = with_database().await;
    sqlx::raw_sql(GOOD).execute(&pool).await.unwrap();
    let waiting = program.json(0, "saga list --workflow booking --status waiting").await;
    assert_eq!(waiting["items"].as_array().unwrap().len(), 1);
    assert_eq!(waiting["items"][0]["step"], "await_payment");
    assert_eq!(waiting["next_cursor"], Value::Null);
    let first = program.json(0, "saga list --limit 4").await;
    let next = first["next_cursor"].as_str().unwrap();
    let rest = program.json(0, &format!("saga list --before {next}")).await;
    assert_eq!(rest["items"].as_array().unwrap().len(), 5, "nine in all");
    let about = program.json(0, "saga list --reservation 00000000-0000-7000-8000-000000000004").await;
    assert_eq!(about["items"].as_array().unwrap().len(), 2, "the booking and the cancellation");

    let shown = program.json(0, "saga show 00000000-0000-7000-8000-000000000002").await;
    assert_eq!((&shown["status"], &shown["history"]), (&"waiting".into(), &Value::Array(Vec::new())));
    assert_eq!(program.run("saga show 00000000-0000-7000-8000-0000000000ff").await.code, 1);
    assert_eq!(program.run("saga show nonsense").await.code, 2);
}

#[tokio::test]
async fn operator_act_is_done_or_refused() {
    let env = Env::start().await;
    topology::ensure_with_bucket(&env.bus).await.unwrap();
    let program = Program::of(&env);
    // It deploys the workflows that the sagas are of.
    program.json(0, "migrate").await;
    sqlx::raw_sql(GOOD).execute(&env.pool).await.unwrap();
    sqlx::query(
        "update sagas set status = saga_status('stuck'), stuck_since = now(), due_at = null where id = '00000000-0000-7000-8000-000000000015'",
    )
    .execute(&env.pool)
    .await
    .unwrap();
    let ended = program.json(1, "saga retry 00000000-0000-7000-8000-000000000001 --reason why-not").await;
    assert_eq!((&ended["code"], &ended["saga_status"]), (&"illegal_act".into(), &"completed".into()));

    let retried = program.json(0, "saga retry 00000000-0000-7000-8000-000000000015 --reason looked").await;
    assert_eq!((&retried["status"], &retried["visit"]), (&"running".into(), &2.into()));
    let written: String =
        sqlx::query_scalar("select reason from operator_acts").fetch_one(&env.pool).await.unwrap();
    assert_eq!(written, "looked");
}

#[tokio::test]
async fn doctor_finds_missing_streams_and_schema() {
    let env = Env::start().await;
    let program = Program::of(&env);
    let state = |report: &Value, check: &str| {
        let checks = report["checks"].as_array().unwrap();
        let found = checks.iter().find(|found| found["check"] == check).unwrap_or_else(|| panic!("{report}"));
        found["state"].as_str().unwrap().to_owned()
    };
    let before = program.json(1, "doctor").await;
    assert_eq!(state(&before, "streams"), "wrong");
    topology::ensure_with_bucket(&env.bus).await.unwrap();
    program.json(0, "migrate").await;
    let after = program.json(0, "doctor").await;
    for check in ["postgres", "schema", "clock", "nats", "streams"] {
        assert_eq!(state(&after, check), "ok", "{after}");
    }

    assert_eq!(state(&after, "workers"), "note");
    assert!(
        after.to_string().contains("no worker serves points.deduct, points.refund, seats.hold"),
        "{after}"
    );
    let app = start(&env, &[], &[Role::Worker]).await;
    until(10, "every step to be served", || async {
        state(&program.json(0, "doctor").await, "workers") == "ok"
    })
    .await;
    app.stop().await;

    sqlx::query("delete from _sqlx_migrations where version = 3").execute(&env.pool).await.unwrap();
    let behind = program.json(1, "doctor").await;
    assert_eq!(state(&behind, "schema"), "wrong");
    assert!(behind.to_string().contains("boxoffice migrate"), "{behind}");
    let skewed = Program::of(&env).with("BOXOFFICE_CLOCK_SKEW_MS", "5000");
    assert_eq!(state(&skewed.json(1, "doctor").await, "clock"), "note");
}

#[tokio::test]
async fn a_line_is_looked_at_and_run() {
    let env = Env::start().await;
    topology::ensure_with_bucket(&env.bus).await.unwrap();
    let program = Program::of(&env);
    let concert = program.json(0, "concert add --name Lieder --max-active 7").await;
    let id = concert["id"].as_str().unwrap();
    let shown = program.json(0, &format!("queue show {id}")).await;
    assert_eq!((&shown["settings"]["max_active"], &shown["length"]), (&7.into(), &0.into()));
    let set = program.json(0, &format!("queue set {id} --admit-per-minute 90")).await;
    assert_eq!(set["admit_per_minute"], 90);
    let pause = format!("queue pause {id} --reason fire");
    assert_eq!(program.json(0, &pause).await["paused"], true);
    let listed = program.json(0, "queue list").await;
    assert_eq!(listed["items"][0]["settings"]["paused"], true);
    assert_eq!(program.json(0, &format!("queue resume {id}")).await["paused"], false);
    assert!(program.run("queue list").await.out.contains("0 of 7"));
    let opening = format!("queue set {id} --opens-at 2030-01-01T00:00:00Z --min-rate 60 --max-rate 90");
    let set = program.json(0, &opening).await;
    assert_eq!((&set["opens_at"], &set["max_rate"]), (&"2030-01-01T00:00:00Z".into(), &90.into()));
    let set = program.json(0, &format!("queue set {id} --opens-at none --no-brake")).await;
    assert_eq!((&set["opens_at"], &set["min_rate"]), (&Value::Null, &Value::Null));
    assert!(program.run(&format!("queue show {id}")).await.out.contains("Admitted by: no instance"));
    let acts = program.run(&format!("queue acts --concert {id} --json")).await.out;
    let acts: Vec<Value> = acts.lines().map(|act| serde_json::from_str(act).unwrap()).collect();
    assert_eq!((acts.len(), &acts[3]["act"], &acts[3]["reason"]), (5, &"queue.pause".into(), &"fire".into()));
    assert!(acts[0]["actor"].as_str().unwrap().starts_with("cli:"));

    assert_eq!(program.run(&format!("queue set {id}")).await.code, 2, "nothing to change");
    assert_eq!(program.run(&format!("queue set {id} --max-active=-1")).await.code, 2);
    let unknown = program.run("queue pause 0198c0de-0000-7000-8000-000000000000").await;
    assert_eq!((unknown.code, unknown.err.lines().count()), (1, 1), "{}", unknown.err);
    let nobody_admits = program.run(&format!("queue admit {id}")).await;
    assert_eq!(nobody_admits.code, 1, "no scheduler runs: {}", nobody_admits.out);
}
