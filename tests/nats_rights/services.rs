//! What a service elsewhere cannot do, whatever its program sends.

use std::time::Duration;

use async_nats::HeaderMap;
use async_nats::jetstream::consumer::pull;
use boxoffice::bus::{Bus, messages, publish, subjects, topology};
use boxoffice::ids;
use boxoffice::saga::{Command, Direction};
use bytes::Bytes;
use futures::StreamExt;
use serde_json::json;

use super::Nats;
use crate::common::app::until;

/// The states of the streams that a service must not change, as far as messages change them.
async fn last_sequences(bus: &Bus) -> Vec<u64> {
    let mut found = Vec::new();
    for name in [subjects::STEPS, subjects::SAGAS, subjects::TIMERS, subjects::QUEUE_TOKENS_STREAM] {
        found.push(bus.jetstream.get_stream(name).await.unwrap().cached_info().state.last_sequence);
    }
    found
}

fn command(name: &str) -> Command {
    Command {
        saga_id: ids::new(),
        workflow: "party".to_owned(),
        subject: name.to_owned(),
        step: "print".to_owned(),
        direction: Direction::Do,
        visit: 1,
        send: 0,
        deadline: None,
        reason: None,
        context: json!({ "secret": name }).into(),
        trace: ids::new(),
    }
}

/// The streams, a consumer and a command of each of two services; who may do all of it makes them.
async fn prepared(nats: &Nats) -> Bus {
    let api = nats.bus("api").await;
    topology::ensure_with_bucket(&api).await.unwrap();
    let orchestrator = nats.bus("orchestrator").await;
    for name in ["badges.print", "seats.hold"] {
        let config = topology::command_consumer(name);
        topology::ensure_consumer(&orchestrator, subjects::STEPS, config).await.unwrap();
        publish::publish(&api, &[command(name)], messages::command).await.unwrap();
    }
    api
}

async fn answer(bus: &Bus, subject: &str, body: &str) -> Option<Bytes> {
    let asked = bus.client.request(subject.to_owned(), body.to_owned().into());
    let answered = tokio::time::timeout(Duration::from_secs(1), asked).await.ok()?.ok()?;
    Some(answered.payload).filter(|_| answered.status.is_none())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_reads_its_own_commands_only() {
    let nats = Nats::with_users();
    prepared(&nats).await;
    let badges = nats.bus("badges").await;
    let mut heard = badges.client.subscribe(">").await.unwrap();

    for api in ["$JS.API", "$JS.boxoffice.API"] {
        for wanted in [
            "CONSUMER.MSG.NEXT.STEPS.seats-hold",
            "CONSUMER.INFO.STEPS.seats-hold",
            "STREAM.MSG.GET.STEPS",
            "STREAM.INFO.SAGAS",
            "DIRECT.GET.KV_queue_tokens",
        ] {
            let said = answer(&badges, &format!("{api}.{wanted}"), r#"{"seq":1}"#).await;
            let said = said.map(|said| String::from_utf8_lossy(&said).into_owned()).unwrap_or_default();
            // The account's own API has no JetStream behind it.
            assert!(said.is_empty() || said.contains("\"error\""), "{api}.{wanted}: {said}");
        }
    }
    let stream = badges.jetstream.get_stream(subjects::STEPS).await.unwrap();
    let own: async_nats::jetstream::consumer::PullConsumer =
        stream.get_consumer("badges-print").await.unwrap();
    let mut messages = own.fetch().max_messages(10).expires(Duration::from_secs(1)).messages().await.unwrap();
    let mine = messages.next().await.unwrap().unwrap();
    assert_eq!(messages::read_command(&mine).unwrap().subject, "badges.print");
    mine.double_ack().await.unwrap();
    assert!(messages.next().await.is_none(), "there is no other command for it");
    while let Ok(Some(message)) = tokio::time::timeout(Duration::from_millis(300), heard.next()).await {
        let text = String::from_utf8_lossy(&message.payload).into_owned();
        assert!(!text.contains("seats.hold"), "{} was heard: {text}", message.subject);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_writes_nothing_but_its_replies() {
    let nats = Nats::with_users();
    let api = prepared(&nats).await;
    let before = last_sequences(&api).await;
    let badges = nats.bus("badges").await;
    let lease = subjects::queue_key(subjects::QUEUE_LEASE);

    for subject in [
        "sagas.reply",
        "sagas.reply.seats",
        "sagas.signal",
        "steps.badges.print",
        "steps.seats.hold",
        "timers.schedule.0",
        "events.reservation.confirmed",
        &lease,
    ] {
        badges.client.publish(subject.to_owned(), "forged".into()).await.unwrap();
    }
    // A server answers any request: with that answer the requester could write where it has no right to.
    for asked in [
        "$JS.boxoffice.API.INFO",
        "$JS.boxoffice.API.STREAM.INFO.STEPS",
        "$JS.boxoffice.API.CONSUMER.INFO.STEPS.badges-print",
    ] {
        for target in [&lease, "sagas.signal", "steps.seats.hold"] {
            let sent = badges.client.publish_with_reply(asked, target.to_owned(), Bytes::new()).await;
            sent.unwrap();
        }
    }
    let stream = r#"{"name":"X","subjects":["x"]}"#;
    for api in ["$JS.API", "$JS.boxoffice.API"] {
        for (asked, body) in [
            ("STREAM.CREATE.X", stream),
            ("STREAM.DELETE.STEPS", ""),
            ("STREAM.PURGE.KV_queue_tokens", ""),
            ("STREAM.UPDATE.STEPS", stream),
            ("CONSUMER.DELETE.STEPS.seats-hold", ""),
            ("CONSUMER.CREATE.STEPS.badges-shred.steps.badges.shred", "{}"),
        ] {
            let _said = answer(&badges, &format!("{api}.{asked}"), body).await;
        }
    }
    badges.client.flush().await.unwrap();
    assert_eq!(last_sequences(&api).await, before, "nothing was written, deleted or emptied");
    assert!(api.jetstream.get_stream("X").await.is_err());

    let mut headers = HeaderMap::new();
    headers.insert("Saga", "mine");
    let sent = badges.jetstream.publish_with_headers("sagas.reply.badges", headers, "a reply".into());
    sent.await.unwrap().await.unwrap();
    let after = last_sequences(&api).await;
    assert_eq!((after[1], &after[2..]), (before[1] + 1, &before[2..]), "its reply is where it belongs");
}

#[tokio::test(flavor = "multi_thread")]
async fn only_api_and_scheduler_write_the_bucket() {
    let nats = Nats::with_users();
    let api = prepared(&nats).await;
    let before = last_sequences(&api).await;
    let key = subjects::queue_key("a.b");
    let mut inbox = nats.bus("worker").await.client.subscribe("_INBOX_api.>").await.unwrap();
    for user in ["orchestrator", "worker", "operator", "reader", "badges"] {
        let bus = nats.bus(user).await;
        bus.client.publish(key.clone(), "forged".into()).await.unwrap();
        bus.client.publish("$JS.API.STREAM.DELETE.KV_queue_tokens", Bytes::new()).await.unwrap();
        bus.client.flush().await.unwrap();
    }
    assert_eq!(last_sequences(&api).await, before);
    // Only the user itself hears the answers to it.
    let heard = tokio::time::timeout(Duration::from_millis(300), inbox.next()).await;
    assert!(heard.is_err() || heard.is_ok_and(|message| message.is_none()));
    for user in ["orchestrator", "worker", "operator"] {
        let refused = || async {
            nats.refusals().iter().any(|line| line.contains(&format!("user:{user}\"")) && line.contains(&key))
        };
        until(5, &format!("the server to refuse {user}"), refused).await;
    }
    for user in ["api", "scheduler"] {
        let bus = nats.bus(user).await;
        bus.jetstream.publish(key.clone(), "a place".into()).await.unwrap().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_reader_watches_and_changes_nothing() {
    let nats = Nats::with_users();
    let api = prepared(&nats).await;
    let reader = nats.bus("reader").await;
    let mut events = reader.client.subscribe("events.>").await.unwrap();
    reader.client.flush().await.unwrap();
    let state = reader.jetstream.get_stream(subjects::STEPS).await.unwrap().cached_info().state.messages;
    assert_eq!(state, 2);
    let before = last_sequences(&api).await;
    reader.client.publish("steps.seats.hold", "forged".into()).await.unwrap();
    let lease = subjects::queue_key(subjects::QUEUE_LEASE);
    reader.client.publish_with_reply("$JS.boxoffice.API.INFO", lease, Bytes::new()).await.unwrap();
    reader.client.flush().await.unwrap();
    api.jetstream.publish("events.reservation.paid", "news".into()).await.unwrap().await.unwrap();
    let heard = tokio::time::timeout(Duration::from_secs(5), events.next()).await.unwrap().unwrap();
    assert_eq!(heard.payload, "news");
    assert_eq!(last_sequences(&api).await, before);
    let config = pull::Config { durable_name: Some("copy".to_owned()), ..pull::Config::default() };
    let stream = reader.jetstream.get_stream_no_info(subjects::STEPS).await.unwrap();
    assert!(stream.create_consumer(config).await.is_err(), "it reads no commands");
}
