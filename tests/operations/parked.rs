//! Parked messages: released to try again, or dropped.

use boxoffice::bus::headers;
use boxoffice::store::api_keys::Role;
use serde_json::{Value, json};

use super::until_status;
use crate::common::http::Entrance;
use crate::common::program::Program;

#[tokio::test]
async fn released_message_is_handled_and_acts_are_recorded() {
    let entrance = Entrance::start().await;
    let buyer = entrance.admitted(0).await;
    let held = entrance.reserve(&buyer, &[1]).await.good(201).clone();
    let id = held["id"].as_str().unwrap();
    // A signal that no saga could accept at the time, and one that no saga ever will.
    sqlx::query(
        "insert into parked_messages (stream, subject, headers, payload, error)
         values ('SAGAS', 'sagas.signal', jsonb_build_object('Saga', $1::text), $2, 'busy'),
                ('SAGAS', 'sagas.signal', '{}', 'rubbish', 'the header Saga is missing')",
    )
    .bind(id)
    .bind(br#"{"version":1,"signal":"cancel"}"#.as_slice())
    .execute(&entrance.pool)
    .await
    .unwrap();
    assert_eq!(headers::SAGA, "Saga");
    let (operator, program) = (entrance.key(Role::Operator).await, Program::of(&entrance.test.env));
    let released = program.json(0, "saga parked release 1 --reason mended").await;
    assert_eq!(released, json!({ "id": 1, "outcome": "released" }));
    until_status(&entrance.test, id.parse().unwrap(), "compensated").await;

    let path = "/v1/ops/parked/2/drop";
    entrance.post(path, &operator, json!({ "reason": "" })).await.is(422, "invalid_request");
    let dropped = entrance.post(path, &operator, json!({ "reason": "rubbish" })).await.good(200).clone();
    assert_eq!(dropped["outcome"], "dropped");
    entrance.post(path, &operator, json!({ "reason": "rubbish" })).await.is(404, "not_found");
    for strange in ["x", "-1", "99999999999999999999"] {
        let path = format!("/v1/ops/parked/{strange}/release");
        entrance.post(&path, &operator, json!({ "reason": "x" })).await.is(404, "not_found");
    }
    assert_eq!(program.run("saga parked drop 2 --reason again").await.code, 1);
    assert_eq!(program.json(0, "saga parked list").await["items"], json!([]));

    let acts = entrance.get("/v1/ops/acts", &operator).await.good(200).clone();
    let (drop, release) = (&acts["items"][0], &acts["items"][1]);
    assert_eq!((&drop["act"], &drop["saga_id"]), (&"drop".into(), &Value::Null));
    assert_eq!(drop["target"], "parked message 2 on sagas.signal");
    assert_eq!((&release["act"], &release["saga_id"]), (&"release".into(), &id.into()));
    assert_eq!((&release["from"], &release["to"]), (&"parked".into(), &"released".into()));
}
