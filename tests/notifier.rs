//! The example of a system that listens to events, against a real service.

// Its `main` is for the command line.
#[allow(dead_code)]
#[path = "../examples/notifier.rs"]
mod example;

use std::sync::{Arc, Mutex};

use saga_protocol::events::EventMessage;
use tokio_util::sync::CancellationToken;

use crate::common::app::{TestApp, until};
use crate::worker_sdk::nats;

/// Listens until all of these are heard, and answers everything that was.
async fn heard(test: &TestApp, wanted: &[&str]) -> Vec<EventMessage> {
    let (events, stop) = (Arc::<Mutex<Vec<EventMessage>>>::default(), CancellationToken::new());
    let (all, nats, stopped) = (Arc::clone(&events), nats(&test.app.bus), stop.clone());
    let listening = tokio::spawn(async move {
        let collect = |event: &EventMessage| all.lock().unwrap().push(event.clone());
        example::listen(&nats, "notifier", &stopped, collect).await;
    });
    until(10, "the events", || async {
        let events = events.lock().unwrap();
        wanted.iter().all(|name| events.iter().any(|event| event.name == *name))
    })
    .await;
    stop.cancel();
    listening.await.unwrap();
    events.lock().unwrap().clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn notifier_reports_every_event_and_resumes() {
    let test = TestApp::start().await;
    let user = test.user(1_000).await;
    let held = test.reserve(user, &[7]).await;
    let before = heard(&test, &["points.entry", "reservation.reserved"]).await;
    test.pay(held.id).await;
    let after = heard(&test, &["points.entry", "reservation.paid", "reservation.confirmed"]).await;
    let ids = |events: &[EventMessage]| events.iter().map(|event| event.id.clone()).collect::<Vec<_>>();
    let (before_ids, after_ids) = (ids(&before), ids(&after));
    assert!(before_ids.iter().all(|id| !after_ids.contains(id)), "{before_ids:?} {after_ids:?}");
    let reserved = before.iter().find(|event| event.name == "reservation.reserved").unwrap();
    let line = example::line(reserved);
    assert!(line.contains("reservation.reserved") && line.contains(&held.id.to_string()), "{line}");
}
