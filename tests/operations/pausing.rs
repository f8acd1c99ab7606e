//! Holding back a workflow, and a step type everywhere.

use boxoffice::bus::topology;
use boxoffice::store::api_keys::Role;
use serde_json::json;

use super::until_status;
use crate::common::http::Entrance;
use crate::common::program::Program;

#[tokio::test]
async fn a_workflow_is_held_back_on_every_instance_and_goes_on_where_it_was() {
    let entrance = Entrance::start().await;
    let (operator, program) = (entrance.key(Role::Operator).await, Program::of(&entrance.test.env));
    let buyer = entrance.admitted(1_000).await;
    let held = entrance.reserve(&buyer, &[1]).await.good(201).clone();
    let path = "/v1/ops/workflows/booking/pause";
    let paused = entrance.post(path, &operator, json!({ "reason": "a new price" })).await.good(200).clone();
    let expected =
        json!({ "kind": "workflow", "name": "booking", "paused": true, "changed": true, "consumers": [] });
    assert_eq!(paused, expected);
    assert_eq!(entrance.pay(&buyer, &held).await.status, 202);
    let id = held["id"].as_str().unwrap();
    let told = program.run(&format!("saga why {id}")).await.out;
    assert!(
        told.contains("the workflow booking is paused since ") && told.contains("(a new price)"),
        "{told}"
    );

    let listed = entrance.get("/v1/ops/pauses", &operator).await.good(200).clone();
    assert_eq!(program.json(0, "saga pauses").await, listed);
    let pause = &listed["items"][0];
    assert_eq!((&pause["actor"], &pause["reason"]), (&"operator".into(), &"a new price".into()));
    let resumed = program.json(0, "saga resume --workflow booking --reason ready").await;
    assert_eq!((&resumed["paused"], &resumed["changed"]), (&false.into(), &true.into()));
    until_status(&entrance.test, id.parse().unwrap(), "completed").await;
    let acts = program.run("saga acts").await.out;
    assert!(acts.contains("pause") && acts.contains("resume") && acts.contains("booking"), "{acts}");

    let unknown = "/v1/ops/workflows/sales/pause";
    entrance.post(unknown, &operator, json!({ "reason": "x" })).await.is(404, "not_found");
    assert_eq!(program.run("saga pause --workflow sales --reason x").await.code, 1);
    let again = program.json(0, "saga resume --workflow booking --reason twice").await;
    assert_eq!(again["changed"], false);
}

#[tokio::test]
async fn a_step_type_is_paused_everywhere_and_says_which_consumers() {
    let entrance = Entrance::start().await;
    let (operator, program) = (entrance.key(Role::Operator).await, Program::of(&entrance.test.env));
    let buyer = entrance.admitted(1_000).await;
    let held = entrance.reserve(&buyer, &[1]).await.good(201).clone();
    let paused = program.json(0, "saga pause --step points.deduct --reason ledger-moves").await;
    assert_eq!((&paused["paused"], &paused["consumers"]), (&true.into(), &json!(["points-deduct"])));
    assert_eq!(entrance.pay(&buyer, &held).await.status, 202);
    let id = held["id"].as_str().unwrap();
    let told = program.run(&format!("saga why {id}")).await.out;
    for part in ["consumer points-deduct is paused until ", "points.deduct is paused everywhere since "] {
        assert!(told.contains(part), "{part} is not in {told}");
    }
    let path = "/v1/ops/steps/points.deduct/resume";
    let resumed = entrance.post(path, &operator, json!({ "reason": "ready" })).await.good(200).clone();
    assert_eq!((&resumed["paused"], &resumed["consumers"]), (&false.into(), &json!(["points-deduct"])));
    until_status(&entrance.test, id.parse().unwrap(), "completed").await;
    let unknown = "/v1/ops/steps/points.dream/pause";
    entrance.post(unknown, &operator, json!({ "reason": "x" })).await.is(404, "not_found");
    assert_eq!(program.run("saga pause --step points.dream --reason x").await.code, 1);
}

#[tokio::test]
async fn a_consumer_that_takes_more_pauses_only_when_somebody_insists() {
    let entrance = Entrance::start().await;
    let (operator, program) = (entrance.key(Role::Operator).await, Program::of(&entrance.test.env));
    let wide = topology::work_consumer("parcels", "steps.parcels.>");
    topology::ensure_consumer(&entrance.test.env.bus, "STEPS", wide).await.unwrap();
    let path = "/v1/ops/steps/parcels.send/pause";
    let reply = entrance.post(path, &operator, json!({ "reason": "x" })).await;
    let refused = reply.is(409, "illegal_act");
    assert!(refused["detail"].as_str().unwrap().contains("parcels takes steps.parcels.>"), "{refused}");
    let told = program.run("saga pause --step parcels.send --reason x").await;
    assert_eq!(told.code, 1);
    assert!(told.out.contains("--whole-consumer pauses all of it"), "{}", told.out);
    assert_eq!(program.json(0, "saga pauses").await["items"], json!([]));

    let insisted = json!({ "reason": "x", "whole_consumer": true });
    let paused = entrance.post(path, &operator, insisted).await.good(200).clone();
    assert_eq!(paused["consumers"], json!(["parcels"]));
}
