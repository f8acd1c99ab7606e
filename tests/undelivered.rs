//! Commands that no worker can handle are kept whole and taken off the stream, and their saga is stuck. The others go
//! on.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};

use async_nats::jetstream::consumer::pull;
use async_nats::jetstream::{AckKind, Message};
use boxoffice::app::Role;
use boxoffice::bus::{messages, publish, subjects};
use boxoffice::saga::{Outcome, STUCK, Status};
use boxoffice::{ids, store};
use futures::StreamExt;
use serde_json::Value;
use uuid::Uuid;

use crate::common::app::{TestApp, begin_saga, start};

const PARCEL: &str = r#"
name = "parcel"
version = 1
[[steps]]
name = "pack"
command = "parcels.pack"
undo = "parcels.unpack"
"#;

/// The service with a workflow of one step that an external worker serves, and its folder.
pub async fn with_parcels(roles: &[Role]) -> (TestApp, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("parcel.toml"), PARCEL).unwrap();
    (TestApp::roles(&["--workflows", folder.path().to_str().unwrap()], roles).await, folder)
}

/// Whom a worker cannot handle.
pub type Bad = Arc<Mutex<HashSet<Uuid>>>;

/// A worker that packs, but refuses the commands of some sagas and what it cannot read, twice at most.
pub async fn pack(test: &TestApp, bad: Bad) {
    let bus = test.app.bus.clone();
    let stream = bus.jetstream.get_stream(subjects::STEPS).await.unwrap();
    let config = pull::Config {
        durable_name: Some("parcels-pack".to_owned()),
        filter_subject: subjects::step("parcels.pack"),
        max_deliver: 2,
        ..pull::Config::default()
    };
    let mut commands = stream.create_consumer(config).await.unwrap().messages().await.unwrap();
    tokio::spawn(async move {
        while let Some(Ok(message)) = commands.next().await {
            let message: Message = message;
            match messages::read_command(&message) {
                Ok(command) if !bad.lock().unwrap().contains(&command.saga_id) => {
                    let done = [Outcome::done()];
                    publish::publish(&bus, &done, |done| messages::reply(&command, done)).await.unwrap();
                    message.ack().await.unwrap();
                }
                _ => message.ack_with(AckKind::Nak(None)).await.unwrap(),
            }
        }
    });
}

async fn parked(test: &TestApp) -> Vec<(String, Vec<u8>, Value, String)> {
    sqlx::query_as("select stream, payload, headers, error from parked_messages order by id")
        .fetch_all(&test.app.pool)
        .await
        .unwrap()
}

pub async fn waiting_commands(test: &TestApp) -> u64 {
    let mut stream = test.app.bus.jetstream.get_stream(subjects::STEPS).await.unwrap();
    stream.info().await.unwrap().state.messages
}

#[tokio::test(flavor = "multi_thread")]
async fn unacknowledged_command_is_parked_and_its_saga_stuck() {
    let (test, _folder) = with_parcels(&[Role::Orchestrator, Role::Scheduler]).await;
    let bad = Bad::default();
    pack(&test, Arc::clone(&bad)).await;
    let status = async |id| store::sagas::get(&test.app.pool, id).await.unwrap().unwrap().status;
    let (sick, well) = (ids::new(), ids::new());
    // Known as bad before its command goes out.
    bad.lock().unwrap().insert(sick);
    begin_saga(&test.app.engine, "parcel", sick).await;
    begin_saga(&test.app.engine, "parcel", well).await;
    test.until(10, "the other saga", || async { status(well).await == Status::Completed }).await;
    test.until(10, "the sick saga", || async { status(sick).await == Status::Stuck }).await;
    let saga = store::sagas::get(&test.app.pool, sick).await.unwrap().unwrap();
    assert!(saga.reason.unwrap().contains("delivered 2 times to parcels-pack"), "an operator sees why");
    let told = async || crate::events::published(&test).await.into_iter().find(|event| event.name == STUCK);
    test.until(5, "the event", || async { told().await.is_some() }).await;
    crate::asyncapi::assert_event_fits(&told().await.unwrap());
    let kept = parked(&test).await;
    assert_eq!((kept.len(), kept[0].0.as_str()), (1, subjects::STEPS));
    assert_eq!(kept[0].2["Saga"], sick.to_string());
    assert_eq!(serde_json::from_slice::<Value>(&kept[0].1).unwrap()["workflow"], "parcel");
    test.until(5, "the stream to be empty", || async { waiting_commands(&test).await == 0 }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn used_up_deliveries_stop_no_saga() {
    let (test, _folder) = with_parcels(&[Role::Orchestrator, Role::Scheduler]).await;
    let (bad, sick) = (Bad::default(), ids::new());
    pack(&test, Arc::clone(&bad)).await;
    bad.lock().unwrap().insert(sick);
    test.env.permit_nats("publish: { deny: \"health.jetstream\" }");
    let is_failing = || async { test.app.bus.health.is_failing() };
    test.until(15, "JetStream to be found at fault", is_failing).await;
    begin_saga(&test.app.engine, "parcel", sick).await;
    test.until(15, "the command to be given up", || async { waiting_commands(&test).await == 0 }).await;
    let status = async || store::sagas::get(&test.app.pool, sick).await.unwrap().unwrap().status;
    assert_eq!((status().await, parked(&test).await.len()), (Status::Running, 0));
    bad.lock().unwrap().clear();
    test.env.permit_nats("");
    test.until(20, "the command to come anew", || async { status().await == Status::Completed }).await;
}

/// Postgres refuses what such an answer says; the other answers of its batch must not suffer.
#[tokio::test(flavor = "multi_thread")]
async fn unstorable_answer_is_parked_and_changes_no_saga() {
    let (test, _folder) = with_parcels(&[Role::Orchestrator, Role::Scheduler]).await;
    let (bad, good) = (ids::new(), ids::new());
    begin_saga(&test.app.engine, "parcel", bad).await;
    begin_saga(&test.app.engine, "parcel", good).await;
    let outputs = [
        (bad, r#"{"x":"\u0000"}"#),
        (bad, r#"{"a":[{"\u0000":1}]}"#),
        (bad, r#"{"a":18446744073709551617}"#),
        (good, r#"{"a":"b"}"#),
    ];
    for (saga, output) in outputs {
        let mut headers = async_nats::HeaderMap::new();
        for (name, value) in
            [("Saga", saga.to_string().as_str()), ("Step", "pack"), ("Direction", "do"), ("Visit", "1")]
        {
            headers.insert(name, value);
        }
        let body = format!("{{\"version\":1,\"outcome\":\"done\",\"output\":{output}}}");
        let sent = test.app.bus.jetstream.publish_with_headers(subjects::REPLIES, headers, body.into()).await;
        sent.unwrap().await.unwrap();
    }
    let status = async |id| store::sagas::get(&test.app.pool, id).await.unwrap().unwrap().status;
    test.until(20, "the other saga", || async { status(good).await == Status::Completed }).await;
    test.until(20, "all to be parked", || async { parked(&test).await.len() == 3 }).await;
    for (_, _, _, error) in parked(&test).await {
        assert!(error.starts_with("the body cannot be kept: /output/"), "{error}");
    }
    assert_eq!(status(bad).await, Status::Running);
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_given_up_without_orchestrators_are_parked_later() {
    let (test, folder) = with_parcels(&[Role::Scheduler]).await;
    pack(&test, Bad::default()).await;
    let sent = test.app.bus.jetstream.publish(subjects::step("parcels.pack"), "not a command".into()).await;
    sent.unwrap().await.unwrap();
    let mut given_up = test.app.bus.jetstream.get_stream(subjects::UNDELIVERED).await.unwrap();
    for _ in 0..100 {
        if given_up.info().await.unwrap().state.messages == 1 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    assert_eq!((parked(&test).await.len(), waiting_commands(&test).await), (0, 1));
    let flags = ["--workflows", folder.path().to_str().unwrap()];
    let _orchestrator = start(&test.env, &flags, &[Role::Orchestrator]).await;
    test.until(10, "it to be kept", || async { parked(&test).await.len() == 1 }).await;
    assert_eq!(parked(&test).await[0].1, b"not a command");
    test.until(5, "the stream to be empty", || async { waiting_commands(&test).await == 0 }).await;
}
