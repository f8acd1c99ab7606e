//! Finding sagas, looking at one, and at what operators did and what was parked.

use boxoffice::ids;
use boxoffice::store::api_keys::Role;
use serde_json::{Value, json};

use crate::common::Env;
use crate::common::http::{Caller, Entrance};
use crate::common::program::{Program, with_database};

const GOOD: &str = include_str!("../data/audit_good.sql");

/// The sagas of a page, newest first.
fn ids_of(body: &Value) -> Vec<&str> {
    body["items"].as_array().unwrap().iter().map(|saga| saga["id"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn sagas_are_found_by_every_filter() {
    let entrance = Entrance::start().await;
    let buyer = entrance.admitted(0).await;
    let held = entrance.reserve(&buyer, &[1]).await.good(201).clone();
    let other = entrance.admitted(0).await;
    let cancelled = entrance.reserve(&other, &[2]).await.good(201).clone();
    entrance.cancel(&other, &cancelled).await.good(200);
    let (held, cancelled) = (held["id"].as_str().unwrap(), cancelled["id"].as_str().unwrap());
    sqlx::query("update sagas set updated_at = updated_at - interval '20 minutes' where id = $1::uuid")
        .bind(held)
        .execute(&entrance.pool)
        .await
        .unwrap();

    let viewer = entrance.key(Role::Viewer).await;
    let program = Program::of(&entrance.test.env);
    let (performance, user) = (entrance.test.performance, buyer.id);
    for (query, words, expected) in [
        (
            format!("performance_id={performance}"),
            format!("--performance {performance}"),
            vec![cancelled, held],
        ),
        (format!("user_id={user}"), format!("--user {user}"), vec![held]),
        (format!("reservation_id={held}"), format!("--reservation {held}"), vec![held]),
        ("open=true".into(), "--open".into(), vec![held]),
        ("status=waiting".into(), "--status waiting".into(), vec![held]),
        ("paused=true".into(), "--paused".into(), vec![]),
        ("direction=undo&version=1".into(), "--direction undo --version 1".into(), vec![cancelled]),
        ("reason_contains=CANCEL".into(), "--reason-contains CANCEL".into(), vec![cancelled]),
        ("idle_seconds=600".into(), "--idle-for 10m".into(), vec![held]),
        ("older_than_seconds=600".into(), "--older-than 10m".into(), vec![]),
        (
            "older_than_seconds=0&step=await_payment".into(),
            "--older-than 0s --step await_payment".into(),
            vec![held],
        ),
    ] {
        let over_api = entrance.get(&format!("/v1/ops/sagas?{query}"), &viewer).await.good(200).clone();
        assert_eq!(ids_of(&over_api), expected, "{query}");
        let on_terminal = program.json(0, &format!("saga list {words}")).await;
        assert_eq!(ids_of(&on_terminal), expected, "{words}");
    }
}

#[tokio::test]
async fn sagas_are_counted_where_they_stand() {
    let entrance = Entrance::start().await;
    sqlx::raw_sql(GOOD).execute(&entrance.pool).await.unwrap();
    let viewer = entrance.key(Role::Viewer).await;
    let program = Program::of(&entrance.test.env);
    let counted = entrance.get("/v1/ops/sagas/counts", &viewer).await.good(200).clone();
    assert_eq!(counted["total"], 9);
    assert_eq!(program.json(0, "saga counts").await, counted);
    let waiting = program.json(0, "saga counts --status waiting").await;
    let expected = json!({ "workflow": "booking", "version": 1, "status": "waiting", "step": "await_payment",
        "direction": "do", "count": 1 });
    assert_eq!(waiting, json!({ "items": [expected], "total": 1 }));
    assert!(program.run("saga counts").await.out.contains("9 in all"));
}

#[tokio::test]
async fn invalid_filter_names_its_field() {
    let entrance = Entrance::start().await;
    let viewer = entrance.key(Role::Viewer).await;
    let long = "x".repeat(201);
    for (query, pointer) in [
        ("status=odd".to_owned(), "/status"),
        ("direction=sideways".to_owned(), "/direction"),
        ("version=0".to_owned(), "/version"),
        ("paused=perhaps".to_owned(), "/paused"),
        ("performance_id=x".to_owned(), "/performance_id"),
        ("older_than_seconds=-1".to_owned(), "/older_than_seconds"),
        ("idle_seconds=99999999999".to_owned(), "/idle_seconds"),
        (format!("reason_contains={long}"), "/reason_contains"),
        ("reason_contains=".to_owned(), "/reason_contains"),
        ("colour=red".to_owned(), "/colour"),
    ] {
        for list in ["sagas", "sagas/counts"] {
            let reply = entrance.get(&format!("/v1/ops/{list}?{query}"), &viewer).await;
            assert_eq!(reply.pointers(), [pointer], "{list}: {query}");
        }
    }
    assert_eq!(entrance.get("/v1/ops/sagas/counts?limit=1", &viewer).await.pointers(), ["/limit"]);
    assert_eq!(entrance.get("/v1/ops/sagas?cursor=x", &viewer).await.pointers(), ["/cursor"]);
    assert_eq!(entrance.get("/v1/ops/acts?since=yesterday", &viewer).await.pointers(), ["/since"]);
    entrance.get("/v1/ops/sagas", &Caller::anonymous()).await.is(401, "unauthenticated");

    let program = Program::of(&entrance.test.env);
    for words in [
        "list --status odd",
        "list --version 0",
        "list --older-than soon",
        "counts --direction sideways",
        "acts --since yesterday",
        "tail --count 0",
    ] {
        let ran = program.run(&format!("saga {words}")).await;
        assert_eq!((ran.code, ran.out.as_str()), (2, ""), "{words}: {}", ran.err);
    }
}

#[tokio::test]
async fn saga_view_shows_steps_durations_and_compensations() {
    let entrance = Entrance::start().await;
    let buyer = entrance.admitted(1_000).await;
    let held = entrance.reserve(&buyer, &[1]).await.good(201).clone();
    let (viewer, program) = (entrance.key(Role::Viewer).await, Program::of(&entrance.test.env));
    let id = held["id"].as_str().unwrap();
    let path = format!("/v1/ops/sagas/{id}");
    let waiting = entrance.get(&path, &viewer).await.good(200).clone();
    let standings = |saga: &Value| -> Vec<String> {
        let steps = saga["steps"].as_array().unwrap().iter();
        steps.map(|step| step["standing"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(standings(&waiting), ["done", "now", "to_come", "to_come"]);
    assert_eq!(waiting["undo_path"], json!(["reserve"]));
    let reserve = &waiting["steps"][0];
    assert_eq!((&reserve["command"], &reserve["undo"]), (&"seats.hold".into(), &"seats.release".into()));
    assert_eq!(reserve["input"]["performance_id"], entrance.test.performance.to_string());
    assert_eq!(reserve["output"]["amount"], held["amount"]);
    assert!(reserve["duration_ms"].as_i64().unwrap() >= 0);
    assert_eq!(waiting["steps"][1]["signal"], "pay");
    assert_eq!(waiting["steps"][1]["input"]["amount"], held["amount"], "it knows what the step before gave");
    assert_eq!(program.json(0, &format!("saga show {id}")).await, waiting);

    let drawn = program.run(&format!("saga show {id}")).await.out;
    for part in [
        "is waiting",
        "├── ✓ reserve  seats.hold",
        "├── ▶ await_payment  waits for the signal pay  now",
        "├── ○ pay  points.deduct  to come",
        "├── the way back, if it turned back now",
        "│   └── ↩ reserve  seats.release",
        "└── an operator can: ",
    ] {
        assert!(drawn.contains(part), "{part} is not in\n{drawn}");
    }

    entrance.cancel(&buyer, &held).await.good(200);
    let undone = entrance.get(&path, &viewer).await.good(200).clone();
    assert_eq!(standings(&undone)[0], "undone");
    assert_eq!((&undone["undo_path"], &undone["allowed"]), (&json!([]), &json!([])));
    let last = undone["history"].as_array().unwrap().last().unwrap();
    assert_eq!((&last["event"], last["output"].is_object()), (&"undone".into(), true), "{last}");
}

#[tokio::test]
async fn operator_acts_are_listed_with_all_details() {
    let entrance = Entrance::start().await;
    let buyer = entrance.admitted(0).await;
    let held = entrance.reserve(&buyer, &[1]).await.good(201).clone();
    let operator = entrance.key(Role::Operator).await;
    let id = held["id"].as_str().unwrap();
    let program = Program::of(&entrance.test.env).with("USER", "ada");
    let reason = json!({ "reason": "the buyer called" });
    entrance.post(&format!("/v1/ops/sagas/{id}/cancel"), &operator, reason).await.good(200);
    let other = entrance.admitted(0).await;
    let second = entrance.reserve(&other, &[2]).await.good(201).clone();
    let second = second["id"].as_str().unwrap();
    program.json(0, &format!("saga cancel {second} --reason wrong-seat")).await;

    let listed = entrance.get("/v1/ops/acts", &operator).await.good(200).clone();
    let acts = listed["items"].as_array().unwrap();
    assert_eq!(acts.len(), 2);
    for field in ["at", "actor", "act", "saga_id", "reason", "from", "to"] {
        assert!(!acts[1][field].is_null(), "{field}: {listed}");
    }
    assert_eq!((&acts[1]["actor"], &acts[1]["reason"]), (&"operator".into(), &"the buyer called".into()));
    assert_eq!((&acts[1]["from"], &acts[1]["to"]), (&"waiting".into(), &"compensating".into()));
    assert_eq!((&acts[0]["actor"], &acts[0]["saga_id"]), (&"cli:ada".into(), &second.into()));

    let ran = program.run("saga acts --json").await;
    let lines: Vec<Value> = ran.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(&lines, acts, "one object per line");
    let found = async |query: &str| {
        let body = entrance.get(&format!("/v1/ops/acts?{query}"), &operator).await.good(200).clone();
        body["items"].as_array().unwrap().len()
    };
    assert_eq!(found(&format!("saga_id={id}")).await, 1);
    assert_eq!(found("actor=cli:ada").await, 1);
    assert_eq!(found("since=2100-01-01T00:00:00Z").await, 0);
    let first = entrance.get("/v1/ops/acts?limit=1", &operator).await.good(200).clone();
    assert_eq!(found(&format!("cursor={}", first["next_cursor"].as_str().unwrap())).await, 1);
}

#[tokio::test]
async fn parked_messages_are_shown_whole_text_or_not() {
    let env = Env::start().await;
    let saga = ids::new();
    sqlx::query(
        "insert into parked_messages (stream, subject, headers, payload, error)
         values ('SAGAS', 'sagas.reply', jsonb_build_object('Saga', $1::text), '{\"version\":9}', 'version 9 is not known'),
                ('STEPS', 'steps.seats.hold', '{}', '\\xff00', 'the header Saga is missing')",
    )
    .bind(saga.to_string())
    .execute(&env.pool)
    .await
    .unwrap();
    let program = Program::of(&env);
    let all = program.json(0, "saga parked list").await;
    assert_eq!(all["items"].as_array().unwrap().len(), 2);
    let about = program.json(0, &format!("saga parked list --saga {saga}")).await;
    assert_eq!(about["items"][0]["payload"], "{\"version\":9}");
    assert_eq!(about["items"][0]["headers"]["Saga"], saga.to_string());
    let bytes = program.json(0, "saga parked show 2").await;
    assert_eq!((&bytes["payload"], &bytes["payload_base64"]), (&Value::Null, &"/wA=".into()));
    assert!(program.run("saga parked show 1").await.out.contains("version 9 is not known"));
    assert_eq!(program.run("saga parked show 7").await.code, 1);
}

#[tokio::test]
async fn the_command_line_needs_no_nats_to_look() {
    let (program, pool) = with_database().await;
    sqlx::raw_sql(GOOD).execute(&pool).await.unwrap();
    let program = program.with("NATS_URL", "nats://127.0.0.1:1");
    // The rows of the workflows have no text yet, as after a release from before definitions were deployed.
    program.json(0, "migrate").await;
    let waiting = program.json(0, "saga list --status waiting").await;
    let id = waiting["items"][0]["id"].as_str().unwrap();
    program.json(0, &format!("saga show {id}")).await;
    let why = program.json(0, &format!("saga why {id}")).await;
    assert!(why["sentence"].as_str().unwrap().starts_with("waits for the signal pay"), "{why}");
}
