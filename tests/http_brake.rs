//! What stops a line: the stall detector reports that no user is admitted. The throttle is tested in `tests/slow/throttle.rs`.

use boxoffice::app::Role as Does;
use boxoffice::store::api_keys::Role;
use serde_json::{Value, json};

use super::common::app::until;
use super::common::http::{Caller, Entrance};
use super::common::program::Program;

async fn line(entrance: &Entrance, staff: &Caller) -> Value {
    let path = format!("/v1/ops/queues/{}", entrance.test.concert);
    entrance.get(&path, staff).await.good(200).clone()
}

#[tokio::test]
async fn stalled_line_without_a_scheduler_is_reported() {
    let entrance = Entrance::roles(&[], &[Does::Api]).await;
    let concert = entrance.test.concert;
    let (viewer, user) = (entrance.key(Role::Viewer).await, entrance.user(0).await);
    let join = format!("/v1/concerts/{concert}/queue-tokens");
    let place = entrance.post(&join, &user, json!({})).await.good(201).clone();
    assert_eq!((&place["status"], &place["position"]), (&"waiting".into(), &1.into()));
    let at_first = line(&entrance, &viewer).await;
    assert_eq!((&at_first["stalled_since"], &at_first["leader"]), (&Value::Null, &Value::Null));

    until(20, "the alarm", || async { !line(&entrance, &viewer).await["stalled_since"].is_null() }).await;
    let program = Program::of(&entrance.test.env);
    let report = program.json(1, "doctor").await;
    let checks = report["checks"].as_array().unwrap();
    let admission = checks.iter().find(|check| check["check"] == "admission").unwrap();
    assert_eq!(admission["state"], "wrong", "{report}");

    let scheduler = entrance.test.another(&[]).await;
    until(10, "the place to be admitted", || async { line(&entrance, &viewer).await["active"] == 1 }).await;
    let admitted = line(&entrance, &viewer).await;
    assert!(!admitted["leader"].is_null());
    until(5, "the alarm to end", || async { line(&entrance, &viewer).await["stalled_since"].is_null() })
        .await;
    scheduler.stop().await;
}
