//! An external worker: it serves its steps with only a NATS client, and the saga follows its answers.

use async_nats::HeaderMap;
use async_nats::jetstream::consumer::pull;
use boxoffice::app::Role;
use boxoffice::bus::subjects;
use boxoffice::saga::{Saga, Status};
use boxoffice::{ids, store};
use futures::StreamExt;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::common::app::{TestApp, begin_saga};

const PARCEL: &str = r#"
name = "parcel"
version = 1
[[steps]]
name = "pack"
command = "parcels.pack"
undo = "parcels.unpack"
retry = { first_ms = 20, factor = 2.0, cap_ms = 100, attempts = 3 }
[[steps]]
name = "send"
command = "parcels.send"
retry = { first_ms = 20, factor = 2.0, cap_ms = 100, attempts = 3 }
[ends]
otherwise = "parcel.returned"
"#;

async fn with_parcels() -> TestApp {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("parcel.toml"), PARCEL).unwrap();
    let flag = folder.path().to_str().unwrap().to_owned();
    TestApp::roles(&["--workflows", &flag], &[Role::Api, Role::Orchestrator, Role::Scheduler]).await
}

async fn send_a_parcel(test: &TestApp) -> Uuid {
    let id = ids::new();
    begin_saga(&test.app.engine, "parcel", id).await;
    id
}

/// Serves every command by what `answer` says to its subject, each answer sent twice.
fn serve(
    test: &TestApp,
    answer: impl Fn(&str, usize) -> Value + Send + 'static,
) -> tokio::task::JoinHandle<()> {
    let bus = test.app.bus.clone();
    tokio::spawn(async move {
        let stream = bus.jetstream.get_stream("STEPS").await.unwrap();
        let config = pull::Config {
            durable_name: Some("parcels".to_owned()),
            filter_subject: "steps.parcels.>".to_owned(),
            ..pull::Config::default()
        };
        let mut commands = stream.create_consumer(config).await.unwrap().messages().await.unwrap();
        let mut count = 0;
        while let Some(Ok(command)) = commands.next().await {
            let subject = command.subject.strip_prefix("steps.").unwrap().to_owned();
            let body = answer(&subject, count).to_string();
            count += 1;
            let mut headers = HeaderMap::new();
            for name in ["Saga", "Step", "Direction", "Visit", "Send"] {
                headers.insert(name, command.headers.as_ref().unwrap().get(name).unwrap().as_str());
            }
            for _ in 0..2 {
                let sent =
                    bus.jetstream.publish_with_headers("sagas.reply", headers.clone(), body.clone().into());
                sent.await.unwrap().await.unwrap();
            }
            command.ack().await.unwrap();
        }
    })
}

async fn ended(test: &TestApp, id: Uuid) -> Saga {
    let read = || async { store::sagas::get(&test.app.pool, id).await.unwrap().unwrap() };
    test.until(15, "the saga to end", || async { read().await.status.is_end() }).await;
    read().await
}

fn done() -> Value {
    json!({ "version": 1, "outcome": "done", "output": { "weight": 3 } })
}

#[tokio::test(flavor = "multi_thread")]
async fn its_answers_carry_the_saga_to_its_end() {
    let test = with_parcels().await;
    let _worker = serve(&test, |_, _| done());
    let saga = ended(&test, send_a_parcel(&test).await).await;
    assert_eq!(saga.status, Status::Completed);
    assert_eq!(saga.context["weight"], 3);
    let history = store::history::of_sagas(&test.app.pool, &[saga.id]).await.unwrap();
    let events: Vec<&str> = history.iter().map(|row| row.event.as_str()).collect();
    assert_eq!(events, ["started", "done", "done"], "the second copy of each answer changes nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn failures_are_retried_rejections_undone() {
    let test = with_parcels().await;
    let _worker = serve(&test, |subject, count| match subject {
        "parcels.pack" if count == 0 => json!({ "version": 1, "outcome": "failed", "code": "busy" }),
        "parcels.send" => {
            json!({ "version": 1, "outcome": "rejected", "code": "no_address", "detail": { "field": "town" } })
        }
        _ => done(),
    });
    let saga = ended(&test, send_a_parcel(&test).await).await;
    assert_eq!((saga.status, saga.reason.as_deref()), (Status::Compensated, Some("no_address")));
    let history = store::history::of_sagas(&test.app.pool, &[saga.id]).await.unwrap();
    let events: Vec<&str> = history.iter().map(|row| row.event.as_str()).collect();
    assert_eq!(events, ["started", "failed", "done", "rejected", "undone"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn impossible_answers_are_parked_and_change_nothing() {
    let test = with_parcels().await;
    let id = send_a_parcel(&test).await;
    let reply = async |saga: &str, step: &str, visit: &str, body: &str| {
        let mut headers = HeaderMap::new();
        for (name, value) in [("Saga", saga), ("Step", step), ("Direction", "do"), ("Visit", visit)] {
            headers.insert(name, value);
        }
        let sent =
            test.app.bus.jetstream.publish_with_headers("sagas.reply", headers, body.to_owned().into());
        sent.await.unwrap().await.unwrap();
    };
    let good = done().to_string();
    let (own, nobody) = (id.to_string(), ids::new().to_string());
    reply(&own, "pack", "1", "not JSON").await;
    reply(&own, "pack", "1", r#"{"version":9,"outcome":"done"}"#).await;
    reply(&own, "pack", "1", r#"{"version":1,"outcome":"perhaps"}"#).await;
    reply(&own, "pack", "one", &good).await;
    reply(&own, "send", "1", &good).await;
    reply(&own, "pack", "2", &good).await;
    reply(&nobody, "pack", "1", &good).await;
    // Its `Message-Id` is of another saga's command: a worker has mixed two answers up.
    let mut mixed_up = HeaderMap::new();
    let other = format!("{nobody}:pack:do:1:0");
    for (name, value) in
        [("Saga", &*own), ("Step", "pack"), ("Direction", "do"), ("Visit", "1"), ("Message-Id", &*other)]
    {
        mixed_up.insert(name, value);
    }
    let sent = test.app.bus.jetstream.publish_with_headers("sagas.reply", mixed_up, good.clone().into());
    sent.await.unwrap().await.unwrap();
    // A worker that may answer for its own service only answers for another.
    let mut foreign = HeaderMap::new();
    for (name, value) in [("Saga", &*own), ("Step", "pack"), ("Direction", "do"), ("Visit", "1")] {
        foreign.insert(name, value);
    }
    let subject = subjects::reply("badges");
    let sent = test.app.bus.jetstream.publish_with_headers(subject, foreign, good.clone().into());
    sent.await.unwrap().await.unwrap();
    test.until(10, "all of them to be parked", || async {
        store::operations::count_parked(&test.app.pool).await.unwrap() == 9
    })
    .await;
    let saga = store::sagas::get(&test.app.pool, id).await.unwrap().unwrap();
    assert_eq!((saga.status, saga.step.as_str(), saga.seq), (Status::Running, "pack", 1));
    let errors: Vec<String> =
        sqlx::query_scalar("select error from parked_messages").fetch_all(&test.app.pool).await.unwrap();
    for why in ["it answers another command", "the service badges has answered for pack"] {
        assert!(errors.iter().any(|error| error.contains(why)), "{why}: {errors:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_can_come_as_a_message() {
    let test = TestApp::start().await;
    let user = test.user(0).await;
    let held = test.reserve(user, &[1]).await;
    let signal = boxoffice::bus::messages::signal(held.id, "cancel", &serde_json::Map::new());
    boxoffice::bus::publish::publish(&test.app.bus, &[signal], Clone::clone).await.unwrap();
    test.until(5, "the hold to be cancelled", || async {
        test.find(held.id).await.status == store::reservations::ReservationStatus::Cancelled
    })
    .await;
}
