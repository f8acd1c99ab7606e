//! `saga why` against a running service.

use boxoffice::app::Role as Does;
use boxoffice::ids;
use boxoffice::store::api_keys::Role;
use serde_json::Value;

use crate::common::app::TestApp;
use crate::common::http::Entrance;
use crate::common::program::Program;

#[tokio::test]
async fn wait_shows_its_signals_and_end_everywhere() {
    let entrance = Entrance::start().await;
    let buyer = entrance.admitted(0).await;
    let held = entrance.reserve(&buyer, &[1]).await.good(201).clone();
    let viewer = entrance.key(Role::Viewer).await;
    let id = held["id"].as_str().unwrap();
    let why = entrance.get(&format!("/v1/ops/sagas/{id}/why"), &viewer).await.good(200).clone();
    let sentence = why["sentence"].as_str().unwrap();
    assert!(sentence.starts_with("waits for the signal pay since "), "{sentence}");
    for part in
        ["(then: compensation, hold_expired)", "moved by the signal pay or cancel", "an operator can "]
    {
        assert!(sentence.contains(part), "{part} is not in {sentence}");
    }
    assert_eq!(why["facts"]["saga"]["id"], held["id"]);
    assert_eq!(why["facts"]["turns_back_at"], held["expires_at"]);
    let ran = Program::of(&entrance.test.env).run(&format!("saga why {id}")).await;
    assert_eq!(ran.out.trim_end(), sentence, "one line, and the same");

    let unknown = format!("/v1/ops/sagas/{}/why", ids::new());
    entrance.get(&unknown, &viewer).await.is(404, "not_found");
}

#[tokio::test]
async fn unserved_command_is_named_with_its_backlog() {
    let test = TestApp::roles(&[], &[Does::Orchestrator]).await;
    let order = test.order(ids::new(), &[1]);
    let id = order.id;
    let booking = test.app.booking.clone();
    // No worker holds seats here, so the response takes its two seconds, and more.
    tokio::spawn(async move { booking.reserve(order).await });
    let program = Program::of(&test.env);
    test.until(5, "the command to be out", || async {
        program.run(&format!("saga why {id}")).await.out.contains("no worker serves seats.hold")
    })
    .await;
    let why: Value = program.json(0, &format!("saga why {id}")).await;
    let sentence = why["sentence"].as_str().unwrap();
    assert!(sentence.starts_with("seats.hold is out since "), "{sentence}");
    for part in ["(send 1, visit 1)", "asked again in ", "(then: compensation, unavailable)"] {
        assert!(sentence.contains(part), "{part} is not in {sentence}");
    }
    assert_eq!(why["facts"]["carrier"]["workers"], Value::Array(Vec::new()));
}

#[tokio::test]
async fn a_command_whose_workers_are_there_names_them() {
    let test = TestApp::start().await;
    // The row asks for a command that has gone astray: the workers are there, and nothing is before them.
    let held = test.reserve(test.user(1_000).await, &[1]).await;
    sqlx::query(
        "update sagas set status = saga_status('running'), step = saga_step(definition, 'pay'), sent_at = now(), due_at = now() + interval '1 minute'
         where id = $1",
    )
    .bind(held.id)
    .execute(&test.app.pool)
    .await
    .unwrap();
    let why = Program::of(&test.env).json(0, &format!("saga why {}", held.id)).await;
    let sentence = why["sentence"].as_str().unwrap();
    assert!(
        sentence.contains("points.deduct is out since ") && sentence.contains("served by "),
        "{sentence}"
    );
    assert_eq!(why["facts"]["carrier"]["workers"][0]["service"], "points");
    assert_eq!(why["facts"]["carrier"]["consumers"][0]["consumer"], "points-deduct");
}

#[tokio::test]
async fn without_nats_the_answer_says_so() {
    let entrance = Entrance::start().await;
    let held = entrance.test.reserve(ids::new(), &[1]).await;
    let viewer = entrance.key(Role::Viewer).await;
    entrance.kill_nats();
    sqlx::query("update sagas set status = saga_status('running'), step = saga_step(definition, 'pay'), sent_at = now() where id = $1")
        .bind(held.id)
        .execute(&entrance.pool)
        .await
        .unwrap();
    let path = format!("/v1/ops/sagas/{}/why", held.id);
    let told = async || entrance.get(&path, &viewer).await.good(200)["sentence"].as_str().unwrap().to_owned();
    entrance
        .test
        .until(10, "NATS to be missed", || async {
            told().await.contains("NATS does not answer, so backlog and workers are not known")
        })
        .await;
    assert!(told().await.starts_with("points.deduct is out since "));
}
