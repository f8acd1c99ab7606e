//! Messages that JetStream will never store: their sagas are stuck at once, with the reason, and go on once it is mended.

use std::time::{Duration, Instant};

use async_nats::jetstream::message::PublishMessage;
use async_nats::jetstream::stream::Config;
use boxoffice::bus::publish::{Outgoing, publish_each};
use boxoffice::bus::{subjects, topology};
use boxoffice::saga::{OperatorAction, Status};
use boxoffice::store::api_keys::Role;
use boxoffice::store::reservations::ReservationStatus;
use boxoffice::{audit, store};
use serde_json::json;
use uuid::Uuid;

use super::common::app::{TestApp, until};
use super::common::http::Entrance;
use super::common::program::Program;

/// Waits until a saga is stuck, and returns why.
async fn stuck(test: &TestApp, saga: Uuid) -> String {
    let find = || async { store::sagas::get(&test.app.pool, saga).await.unwrap() };
    until(20, "the saga to be stuck", || async {
        find().await.is_some_and(|saga| saga.status == Status::Stuck)
    })
    .await;
    find().await.unwrap().reason.unwrap()
}

/// The audit finds nothing but that a saga is stuck.
async fn assert_good_but_stuck(test: &TestApp) {
    let report = audit::run(&test.app.pool).await.unwrap();
    assert!(report.is_good(false) && report.stuck.len() == 1, "{report:#?}");
}

/// An order whose saga gets stuck: the answer is not waited for.
async fn order(test: &TestApp, seat: i32) -> Uuid {
    let order = test.order(test.user(1_000).await, &[seat]);
    let id = order.id;
    let _answer = test.app.booking.reserve(order).await.unwrap();
    id
}

async fn retry_until_held(test: &TestApp, saga: Uuid) {
    test.app.engine.act(saga, OperatorAction::Retry, "the test", "it is mended").await.unwrap();
    until(20, "the hold", || async { test.find(saga).await.status == ReservationStatus::Held }).await;
}

#[tokio::test]
async fn denied_command_makes_its_saga_stuck() {
    let test = TestApp::start().await;
    let held = test.reserve(test.user(1_000).await, &[1]).await;
    test.env.permit_nats("publish: { deny: [\"steps.points.deduct\", \"events.denied\"] }");
    let event = |_: &()| Outgoing { subject: "events.denied".to_owned(), message: PublishMessage::build() };
    until(10, "the new rights", || async {
        publish_each(&test.app.bus, &[()], event).await.is_err_and(|left| !left.refused.is_empty())
    })
    .await;
    let begin = Instant::now();
    let _answer = test.app.booking.pay(held.id).await.unwrap();
    let reason = stuck(&test, held.id).await;
    assert!(reason.contains("does not let this user publish to steps.points.deduct"), "{reason}");
    assert!(begin.elapsed() < Duration::from_secs(15), "it took {:?}", begin.elapsed());
    assert_good_but_stuck(&test).await;
    test.env.permit_nats("");
    until(20, "the payment", || async {
        // Until the rights are there it gets stuck again.
        if status(&test, held.id).await == Status::Stuck {
            let _acted =
                test.app.engine.act(held.id, OperatorAction::Retry, "the test", "it is mended").await;
        }
        test.find(held.id).await.status == ReservationStatus::Confirmed
    })
    .await;
    test.check_books().await;
}

async fn status(test: &TestApp, saga: Uuid) -> Status {
    store::sagas::get(&test.app.pool, saga).await.unwrap().unwrap().status
}

#[tokio::test]
async fn sealed_stream_makes_sagas_stuck() {
    let entrance = Entrance::start().await;
    let test = &entrance.test;
    let jetstream = &test.env.bus.jetstream;
    let steps = topology::streams(1).into_iter().find(|stream| stream.name == subjects::STEPS).unwrap();
    jetstream.update_stream(Config { sealed: true, ..steps }).await.unwrap();
    let saga = order(test, 1).await;
    let reason = stuck(test, saga).await;
    assert!(reason.contains("sealed"), "{reason}");
    assert_good_but_stuck(test).await;
    // An output that would fit no message is refused with its bound.
    let operator = entrance.key(Role::Operator).await;
    let body = json!({ "reason": "by hand", "output": { "x": "y".repeat(300_000) } });
    let answer = entrance.post(&format!("/v1/ops/sagas/{saga}/complete"), &operator, body).await;
    let refused = answer.is(422, "invalid_request");
    assert_eq!(refused["errors"][0]["pointer"], "/output");
    assert!(
        refused["errors"][0]["reason"].as_str().unwrap().contains("at most 262144 are allowed"),
        "{refused}"
    );
    jetstream.delete_stream(subjects::STEPS).await.unwrap();
    retry_until_held(test, saga).await;
}

/// Deletes a stream, and makes one that keeps it from being made again.
async fn take_subjects(test: &TestApp, stream: &str, subjects: &str) {
    let jetstream = &test.env.bus.jetstream;
    let other = Config { name: "OTHER".to_owned(), subjects: vec![subjects.to_owned()], ..Config::default() };
    until(10, "the subjects to be taken by another stream", || async {
        // A process of ours may have made the stream again meanwhile.
        let _gone = jetstream.delete_stream(stream).await;
        jetstream.create_stream(other.clone()).await.is_ok()
    })
    .await;
}

#[tokio::test]
async fn subject_without_a_stream_makes_sagas_stuck() {
    let test = TestApp::start().await;
    let jetstream = &test.env.bus.jetstream;
    take_subjects(&test, subjects::STEPS, "steps.other.>").await;
    let saga = order(&test, 1).await;
    let reason = stuck(&test, saga).await;
    assert!(reason.contains("no stream takes the subject"), "{reason}");
    assert_good_but_stuck(&test).await;
    jetstream.delete_stream("OTHER").await.unwrap();
    retry_until_held(&test, saga).await;
}

/// Waits until `saga why` says of an ended saga, over HTTP and on the terminal, that an event cannot be published and why.
async fn event_is_refused(entrance: &Entrance, saga: Uuid, reason: &str) {
    let viewer = entrance.key(Role::Viewer).await;
    let path = format!("/v1/ops/sagas/{saga}/why");
    let says_so = |sentence: &str| {
        sentence.starts_with("completed at ") && sentence.contains("an event cannot be published: ")
    };
    let ask =
        || async { entrance.get(&path, &viewer).await.good(200)["sentence"].as_str().unwrap().to_owned() };
    until(20, "the ops API to say it", || async { says_so(&ask().await) }).await;
    let sentence = ask().await;
    assert!(sentence.contains(reason), "{sentence}");
    let ran = Program::of(&entrance.test.env).run(&format!("saga why {saga}")).await;
    assert!(says_so(&ran.out) && ran.out.contains(reason), "{}", ran.out);
}

/// Once the cause is mended the event goes out without an operator's act.
async fn event_goes_out(test: &TestApp, saga: Uuid) {
    until(60, "the event to be acknowledged", || async {
        store::sagas::get(&test.app.pool, saga).await.unwrap().unwrap().due_at.is_none()
    })
    .await;
    test.check_books().await;
}

/// A saga that is completed once `refuse` has seen to it that its last events are refused.
async fn completed(test: &TestApp, refuse: impl AsyncFnOnce()) -> Uuid {
    let held = test.reserve(test.user(1_000).await, &[1]).await;
    refuse().await;
    test.pay(held.id).await;
    held.id
}

#[tokio::test]
async fn why_names_a_denied_event() {
    let entrance = Entrance::start().await;
    let test = &entrance.test;
    let saga = completed(test, async || {
        test.env.permit_nats("publish: { deny: [\"events.>\"] }");
        let event =
            |_: &()| Outgoing { subject: "events.denied".to_owned(), message: PublishMessage::build() };
        until(10, "the new rights", || async {
            publish_each(&test.app.bus, &[()], event).await.is_err_and(|left| !left.refused.is_empty())
        })
        .await;
    })
    .await;
    event_is_refused(&entrance, saga, "NATS does not let this user publish to events.").await;
    test.env.permit_nats("");
    event_goes_out(test, saga).await;
}

#[tokio::test]
async fn why_names_a_too_large_event() {
    let entrance = Entrance::start().await;
    let test = &entrance.test;
    let jetstream = &test.env.bus.jetstream;
    let events = topology::streams(1).into_iter().find(|stream| stream.name == subjects::EVENTS).unwrap();
    let saga = completed(test, async || {
        let small = Config { max_message_size: 100, ..events.clone() };
        jetstream.update_stream(small).await.unwrap();
    })
    .await;
    event_is_refused(&entrance, saga, "the message is larger than its stream takes").await;
    jetstream.update_stream(events).await.unwrap();
    event_goes_out(test, saga).await;
}

#[tokio::test]
async fn why_names_an_event_without_a_stream() {
    let entrance = Entrance::start().await;
    let test = &entrance.test;
    let jetstream = &test.env.bus.jetstream;
    let saga = completed(test, async || take_subjects(test, subjects::EVENTS, "events.other.>").await).await;
    event_is_refused(&entrance, saga, "no stream takes the subject").await;
    jetstream.delete_stream("OTHER").await.unwrap();
    event_goes_out(test, saga).await;
}

#[tokio::test]
async fn too_large_message_is_refused_others_stored() {
    let test = TestApp::start().await;
    let message = |bytes: &usize| Outgoing {
        subject: "events.of_a_test".to_owned(),
        message: PublishMessage::build().payload(vec![b'x'; *bytes].into()),
    };
    let begin = Instant::now();
    let left = publish_each(&test.env.bus, &[10, 2 << 20, 20], message).await.unwrap_err();
    assert_eq!(left.failed, Vec::<usize>::new());
    let [(1, reason)] = &left.refused[..] else { panic!("{left:?}") };
    assert!(reason.contains("larger than the server takes"), "{reason}");
    assert!(begin.elapsed() < Duration::from_secs(5), "it took {:?}", begin.elapsed());
    let events = test.env.bus.jetstream.get_stream(subjects::EVENTS).await.unwrap();
    assert_eq!(events.cached_info().state.messages, 2);
}
