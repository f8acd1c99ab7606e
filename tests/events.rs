//! Domain events: complete, in order, with stable ids; published again after a loss; a slow consumer slows no purchase.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, pull};
use boxoffice::bus::events::{EventMessage, read_events};
use boxoffice::bus::subjects;
use boxoffice::store::reservations::ReservationStatus;
use futures::StreamExt;
use uuid::Uuid;

use crate::common::app::{TestApp, until};

/// All events published so far.
pub async fn published(test: &TestApp) -> Vec<EventMessage> {
    let mut stream = test.app.bus.jetstream.get_stream(subjects::EVENTS).await.unwrap();
    let count = stream.info().await.unwrap().state.messages as usize;
    let config = pull::Config {
        ack_policy: AckPolicy::None,
        deliver_policy: DeliverPolicy::All,
        ..pull::Config::default()
    };
    let consumer = stream.create_consumer(config).await.unwrap();
    let messages = consumer.messages().await.unwrap().take(count);
    let events = messages.map(|message| read_events(&message.unwrap().payload).unwrap()).collect::<Vec<_>>();
    events.await.concat()
}

async fn names_of(test: &TestApp, subject: Uuid) -> Vec<String> {
    let mut events = published(test).await;
    events.retain(|event| event.subject_id == subject);
    let numbers: Vec<i64> = events.iter().map(|event| event.sequence).collect();
    assert!(numbers.is_sorted(), "{numbers:?}");
    events.into_iter().map(|event| event.name).collect()
}

async fn at_rest(test: &TestApp, saga: Uuid) {
    until(10, "the saga to be at rest", || async {
        let rests =
            sqlx::query_scalar::<_, bool>("select due_at is null and not exists (select from flights f where s.id = any (f.sagas)) from sagas s where id = $1").bind(saga);
        rests.fetch_one(&test.app.pool).await.unwrap()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn events_of_a_reservation_come_in_order() {
    let test = TestApp::start().await;
    let user = test.user(1_000).await;
    let held = test.reserve(user, &[1]).await;
    test.pay(held.id).await;
    test.cancel(held.id).await;
    let story = [
        "reservation.reserved",
        "reservation.paid",
        "points.entry",
        "reservation.confirmed",
        "points.entry",
        "reservation.cancelled",
    ];
    until(5, "all events", || async { names_of(&test, held.id).await.len() >= story.len() }).await;
    assert_eq!(names_of(&test, held.id).await, story);
    let events = published(&test).await;
    let confirmed = events.iter().find(|event| event.name == "reservation.confirmed").unwrap();
    assert_eq!(confirmed.data["user_id"], user.to_string());
    assert_eq!(confirmed.data["amount"], 100);
    assert!(!confirmed.data.to_string().contains("code"), "ticket codes are for the buyer alone");
}

#[tokio::test(flavor = "multi_thread")]
async fn expired_holds_and_charges_have_events() {
    let test = TestApp::with(&["--hold-seconds", "1"]).await;
    let user = test.user(77).await;
    let held = test.reserve(user, &[1]).await;
    until(6, "the expiry", || async { names_of(&test, held.id).await.len() == 2 }).await;
    assert_eq!(names_of(&test, held.id).await, ["reservation.reserved", "reservation.expired"]);
    until(5, "the charge", || async { names_of(&test, user).await == ["points.entry"] }).await;
    let events = published(&test).await;
    assert!(events.iter().any(|event| event.name == "points.entry" && event.data["amount"] == 77));
}

/// An ended saga is at rest only when JetStream has its last event; until then all of them are published again.
#[tokio::test(flavor = "multi_thread")]
async fn lost_events_are_republished_with_the_same_content() {
    let test = TestApp::start().await;
    let user = test.user(100).await;
    let (sold, given_back) = (test.reserve(user, &[1]).await.id, test.reserve(user, &[2]).await.id);
    test.pay(sold).await;
    test.cancel(given_back).await;
    let all_are_there =
        || async { names_of(&test, sold).await.len() >= 4 && names_of(&test, given_back).await.len() >= 2 };
    until(5, "all events", all_are_there).await;
    at_rest(&test, sold).await;
    at_rest(&test, given_back).await;
    let of_reservations = |events: Vec<EventMessage>| -> BTreeMap<String, serde_json::Value> {
        let own = events.into_iter().filter(|event| [sold, given_back].contains(&event.subject_id));
        own.map(|event| (event.id.clone(), serde_json::to_value(event).unwrap())).collect()
    };
    let before = of_reservations(published(&test).await);
    test.app.bus.jetstream.get_stream(subjects::EVENTS).await.unwrap().purge().await.unwrap();
    sqlx::query("update sagas set due_at = now() where id = any ($1)")
        .bind([sold, given_back])
        .execute(&test.app.pool)
        .await
        .unwrap();
    until(10, "the events to come again", all_are_there).await;
    assert_eq!(of_reservations(published(&test).await), before);
    at_rest(&test, sold).await;
    at_rest(&test, given_back).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_consumer_slows_no_purchase() {
    let test = TestApp::start().await;
    let stream = test.app.bus.jetstream.get_stream(subjects::EVENTS).await.unwrap();
    let config =
        pull::Config { durable_name: Some("slow".to_owned()), max_ack_pending: 1, ..pull::Config::default() };
    let consumer = stream.create_consumer(config).await.unwrap();
    let reader = tokio::spawn(async move {
        let mut messages = consumer.messages().await.unwrap();
        while let Some(Ok(message)) = messages.next().await {
            tokio::time::sleep(Duration::from_secs(2)).await;
            message.ack().await.unwrap();
        }
    });
    let user = test.user(3_000).await;
    let started = Instant::now();
    for seat in 1..=10 {
        let held = test.reserve(user, &[seat]).await;
        assert_eq!(test.pay(held.id).await.status, ReservationStatus::Confirmed);
    }
    assert!(started.elapsed() < Duration::from_secs(15), "the consumer alone needs 60 s for as many events");
    reader.abort();
    test.check_books().await;
}
