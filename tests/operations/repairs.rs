//! Acts on one saga: what they lead to, what is refused and why, and what is written down.

use boxoffice::ids;
use boxoffice::store::api_keys::Role;
use serde_json::{Value, json};

use super::{stuck, until_status};
use crate::common::app::TestApp;
use crate::common::http::{Entrance, Reply};
use crate::common::program::Program;

async fn act(entrance: &Entrance, id: impl std::fmt::Display, name: &str, body: Value) -> Reply {
    let operator = entrance.key(Role::Operator).await;
    entrance.post(&format!("/v1/ops/sagas/{id}/{name}"), &operator, body).await
}

fn why() -> Value {
    json!({ "reason": "looked at it" })
}

#[tokio::test]
async fn retried_undo_keeps_the_original_reason() {
    let test = TestApp::start().await;
    let id = stuck(&test, 1).await;
    let program = Program::of(&test.env);
    let retried = program.json(0, &format!("saga retry {id} --reason mended")).await;
    assert_eq!((&retried["status"], &retried["visit"]), (&"compensating".into(), &2.into()));
    let ended = until_status(&test, id, "compensated").await;
    assert_eq!(ended["reason"], "hold_expired");
    test.check_books().await;
}

#[tokio::test]
async fn skipped_undo_names_what_is_left() {
    let entrance = Entrance::start().await;
    let id = stuck(&entrance.test, 1).await;
    let skipped = act(&entrance, id, "skip-undo", why()).await.good(200).clone();
    assert_eq!((&skipped["status"], &skipped["left_behind"]), (&"compensated".into(), &json!(["reserve"])));
    let again = act(&entrance, id, "skip-undo", why()).await;
    let refused = again.is(409, "illegal_act");
    assert_eq!((&refused["saga_status"], &refused["allowed"]), (&"compensated".into(), &json!([])));
}

#[tokio::test]
async fn abandoned_saga_lists_remaining_effects_and_the_reason() {
    let entrance = Entrance::start().await;
    let id = stuck(&entrance.test, 1).await;
    let given_up =
        act(&entrance, id, "abandon", json!({ "reason": "freed by hand" })).await.good(200).clone();
    assert_eq!((&given_up["status"], &given_up["left_behind"]), (&"abandoned".into(), &json!(["reserve"])));
    assert!(given_up["finished_at"].is_string());
    let acts = Program::of(&entrance.test.env).run(&format!("saga acts --saga {id} --json")).await;
    let written: Value = serde_json::from_str(acts.out.trim()).unwrap();
    assert_eq!((&written["act"], &written["reason"]), (&"abandon".into(), &"freed by hand".into()));
    assert_eq!((&written["from"], &written["to"]), (&"stuck".into(), &"abandoned".into()));
    assert_eq!(written["detail"]["left"], json!(["reserve"]));

    let second = stuck(&entrance.test, 2).await;
    let told = Program::of(&entrance.test.env).run(&format!("saga abandon {second} --reason freed")).await;
    assert!(told.out.contains("Left behind, for you to look after: reserve."), "{}", told.out);
}

#[tokio::test]
async fn manual_completion_gives_output_to_later_steps() {
    let entrance = Entrance::start().await;
    let buyer = entrance.admitted(0).await;
    let held = entrance.reserve(&buyer, &[1]).await.good(201).clone();
    let id = held["id"].as_str().unwrap();
    // The wait is taken as done: as if the buyer had begun to pay.
    let program = Program::of(&entrance.test.env);
    let wrong = program.run(&format!("saga complete {id} --output [1] --reason x")).await;
    assert_eq!(wrong.code, 2, "{}", wrong.err);
    let body = json!({ "reason": "told by telephone", "output": { "note": "by hand" } });
    let moved = act(&entrance, id, "complete", body).await.good(200).clone();
    assert_eq!((&moved["status"], &moved["step"]), (&"running".into(), &"pay".into()));
    let viewer = entrance.key(Role::Viewer).await;
    let shown = entrance.get(&format!("/v1/ops/sagas/{id}"), &viewer).await.good(200).clone();
    assert_eq!(shown["steps"][1]["output"], json!({ "note": "by hand" }));
    assert_eq!(shown["steps"][2]["input"]["note"], "by hand");
}

#[tokio::test]
async fn manually_completed_hold_needs_its_expiry() {
    let entrance = Entrance::start().await;
    let buyer = entrance.admitted(0).await;
    let held = entrance.reserve(&buyer, &[1]).await.good(201).clone();
    let id = held["id"].as_str().unwrap();
    let back = "with forgotten as (delete from saga_history where saga_id = $1::uuid and event = 1)
                update sagas set status = saga_status('stuck'), step = saga_step(definition, 'reserve'), stuck_since = now(), due_at = null
                where id = $1::uuid";
    sqlx::query(back).bind(id).execute(&entrance.pool).await.unwrap();
    let refused = act(&entrance, id, "complete", json!({ "reason": "x", "output": {} })).await;
    assert_eq!(refused.pointers(), ["/output"]);
    assert!(
        refused.body["detail"].as_str().unwrap().contains("claimable_at, expires_at"),
        "{}",
        refused.body
    );
    let program = Program::of(&entrance.test.env);
    let told = program.run(&format!("saga complete {id} --reason x")).await;
    assert_eq!(told.code, 1);
    assert!(told.err.contains("claimable_at, expires_at"), "{}", told.err);
}

#[tokio::test]
async fn paused_saga_sends_no_command_until_resumed() {
    let entrance = Entrance::start().await;
    let buyer = entrance.admitted(1_000).await;
    let held = entrance.reserve(&buyer, &[1]).await.good(201).clone();
    let id = held["id"].as_str().unwrap();
    let paused = act(&entrance, id, "pause", why()).await.good(200).clone();
    assert_eq!((&paused["status"], &paused["paused"]), (&"waiting".into(), &true.into()));
    let paying = entrance.pay(&buyer, &held).await;
    assert_eq!(paying.status, 202, "{}", paying.body);
    let program = Program::of(&entrance.test.env);
    let told = program.run(&format!("saga why {id}")).await.out;
    assert!(
        told.contains("points.deduct is held back") && told.contains("the saga is paused since "),
        "{told}"
    );
    assert!(told.contains("by operator (looked at it)"), "{told}");
    let pauses = program.json(0, "saga pauses").await;
    assert_eq!((&pauses["items"][0]["kind"], &pauses["items"][0]["name"]), (&"saga".into(), &id.into()));

    let resumed = program.json(0, &format!("saga resume {id} --reason ready")).await;
    assert_eq!(resumed["paused"], false);
    until_status(&entrance.test, id.parse().unwrap(), "completed").await;
    entrance.pay(&buyer, &held).await.good(200);
}

#[tokio::test]
async fn forbidden_and_unknown_acts_change_nothing() {
    let entrance = Entrance::start().await;
    let id = stuck(&entrance.test, 1).await;
    for name in ["pause", "resume", "cancel", "complete"] {
        let reply = act(&entrance, id, name, why()).await;
        let refused = reply.is(409, "illegal_act");
        assert_eq!(refused["saga_status"], "stuck", "{name}");
        assert_eq!(refused["allowed"], json!(["retry", "skip_undo", "abandon"]), "{name}");
    }
    let unknown = ids::new();
    for name in ["retry", "complete", "skip-undo", "cancel", "abandon", "pause", "resume"] {
        act(&entrance, unknown, name, why()).await.is(404, "not_found");
        assert_eq!(
            act(&entrance, id, name, json!({ "reason": " " })).await.pointers(),
            ["/reason"],
            "{name}"
        );
    }
    assert_eq!(
        act(&entrance, id, "complete", json!({ "reason": "x", "output": 1 })).await.pointers(),
        ["/output"]
    );
    let viewer = entrance.key(Role::Viewer).await;
    let path = format!("/v1/ops/sagas/{id}/retry");
    entrance.post(&path, &viewer, why()).await.is(403, "forbidden");

    let program = Program::of(&entrance.test.env);
    let refused = program.json(1, &format!("saga cancel {id} --reason x")).await;
    assert_eq!((&refused["code"], &refused["saga_status"]), (&"illegal_act".into(), &"stuck".into()));
    assert_eq!(program.run(&format!("saga retry {unknown} --reason x")).await.code, 1);
    for words in ["pause --reason x", "pause --workflow booking --step points.deduct --reason x", "abandon"] {
        assert_eq!(program.run(&format!("saga {words}")).await.code, 2, "{words}");
    }
    let acts: i64 =
        sqlx::query_scalar("select count(*) from operator_acts").fetch_one(&entrance.pool).await.unwrap();
    assert_eq!(acts, 0, "nothing was done, and nothing is written down");
}
