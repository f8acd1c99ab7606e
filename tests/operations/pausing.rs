//! Holding back a workflow, and a step type everywhere.

use async_nats::jetstream::stream::LastRawMessageErrorKind;
use boxoffice::app::Role as Does;
use boxoffice::bus::{consumers, subjects, topology};
use boxoffice::store::api_keys::Role;
use boxoffice::store::operations::PauseKind;
use boxoffice::{ids, store};
use serde_json::json;

use super::until_status;
use crate::common::app::{TestApp, begin_saga, until};
use crate::common::http::Entrance;
use crate::common::program::Program;
use crate::undelivered::with_parcels;

#[tokio::test]
async fn paused_workflow_stops_everywhere_and_resumes() {
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
async fn step_type_pause_names_its_consumers() {
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
async fn wide_consumer_pauses_only_when_forced() {
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

#[tokio::test]
async fn next_resume_finishes_one_that_missed_nats() {
    let TestApp { app, env, .. } = TestApp::start().await;
    let (engine, command) = (&app.engine, "points.deduct");
    let paused = async || {
        let found = consumers::of_command(&app.bus, command).await;
        found.map(|found| found.iter().any(|consumer| consumer.paused_until.is_some()))
    };
    assert!(engine.pause_step(command, false, "ada", "the ledger moves").await.unwrap().changed);
    assert!(paused().await.unwrap());
    env.kill_nats();
    engine.resume_step(command, "ada", "ready").await.unwrap_err();
    let _env = env.restart_nats().await;
    until(20, "NATS to answer", || async { paused().await.is_ok() }).await;
    assert!(paused().await.unwrap(), "it never heard of the first");
    assert!(engine.resume_step(command, "ada", "ready").await.unwrap().changed);
    assert!(!paused().await.unwrap());
    assert!(!engine.resume_step(command, "ada", "ready").await.unwrap().changed);
    let acts = store::operations::acts(&app.pool, None, Some("ada"), None, None, 9).await.unwrap();
    let acts: Vec<&str> = acts.iter().map(|act| act.act.as_str()).collect();
    assert_eq!(acts, ["resume_step", "resume_step", "pause_step"]);
}

#[tokio::test]
async fn instance_without_nats_learns_of_a_pause_later() {
    let (test, _folder) = with_parcels(&[Does::Orchestrator]).await;
    let TestApp { app, env, .. } = test;
    env.kill_nats();
    // Like another instance that reaches Postgres, and whose notification is lost.
    store::operations::pause(&app.pool, PauseKind::Workflow, "parcel", "ada", "a new box").await.unwrap();
    let _env = env.restart_nats().await;
    until(20, "NATS to answer", || async { app.bus.jetstream.get_stream(subjects::STEPS).await.is_ok() })
        .await;
    let stream = app.bus.jetstream.get_stream(subjects::STEPS).await.unwrap();
    let is_held_back = async || {
        let id = ids::new();
        begin_saga(&app.engine, "parcel", id).await;
        match stream.get_last_raw_message_by_subject(&subjects::step("parcels.pack")).await {
            Ok(sent) => sent.headers.get("Saga").is_none_or(|saga| saga.as_str() != id.to_string()),
            Err(error) => {
                assert_eq!(error.kind(), LastRawMessageErrorKind::NoMessageFound);
                true
            }
        }
    };
    until(5, "new parcels to be held back", || async { is_held_back().await }).await;
}
