//! The consumers of step commands: one for each command, paused alone; and who is there to serve them.

use std::time::Duration;

use async_nats::jetstream::consumer::pull;
use boxoffice::app::Role;
use boxoffice::booking::Answer;
use boxoffice::bus::consumers::{self, ConsumerState, ConsumersError};
use boxoffice::bus::{Bus, presence, subjects, topology};
use boxoffice::store::reservations::ReservationStatus;
use chrono::{TimeDelta, Utc};
use futures::StreamExt;

use crate::common::Env;
use crate::common::app::{TestApp, add_concert, add_performance, start, until};

/// The one consumer of a command, once it is there.
async fn consumer(bus: &Bus, command: &str) -> ConsumerState {
    until(10, "the consumer", || async { consumers::of_command(bus, command).await.unwrap().len() == 1 })
        .await;
    consumers::of_command(bus, command).await.unwrap().remove(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn one_step_type_is_paused_and_stays() {
    let test = TestApp::start().await;
    let bus = &test.app.bus;
    let (user, other) = (test.user(0).await, test.user(0).await);
    let held = test.reserve(user, &[1]).await;
    assert_eq!(consumer(bus, "seats.hold").await.paused_until, None);
    let end = Utc::now() + TimeDelta::hours(1);
    consumers::pause(bus, "seats-hold", end).await.unwrap();
    // Every worker that starts brings the consumer up to date: the pause survives it.
    topology::ensure_consumer(bus, subjects::STEPS, topology::command_consumer("seats.hold")).await.unwrap();
    let paused = consumer(bus, "seats.hold").await;
    assert_eq!((paused.name.as_str(), paused.filter.as_str()), ("seats-hold", "steps.seats.hold"));
    assert!((paused.paused_until.unwrap() - end).abs() < TimeDelta::milliseconds(1), "{paused:?}");

    let (booking, order) = (test.app.booking.clone(), test.order(other, &[2]));
    let wanted = order.id;
    assert!(
        matches!(booking.reserve(order).await.unwrap(), Answer::Pending(_)),
        "no worker takes the command"
    );
    let waiting = consumer(bus, "seats.hold").await;
    assert_eq!((waiting.pending, waiting.ack_pending), (1, 0));
    assert_eq!(test.cancel(held.id).await.status, ReservationStatus::Cancelled, "seats.release goes on");

    consumers::resume(bus, "seats-hold").await.unwrap();
    test.until(5, "the hold", || async { test.find(wanted).await.status == ReservationStatus::Held }).await;
    assert_eq!(consumer(bus, "seats.hold").await.paused_until, None);
    consumers::pause(bus, "seats-hold", Utc::now() + TimeDelta::milliseconds(500)).await.unwrap();
    test.until(5, "the pause to end at its time", || async {
        consumer(bus, "seats.hold").await.paused_until.is_none()
    })
    .await;
    let unknown = consumers::pause(bus, "seats-sell", end).await;
    assert!(matches!(unknown, Err(ConsumersError::NoConsumer { name, .. }) if name == "seats-sell"));
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_delivered_before_a_pause_are_done() {
    let env = Env::start().await;
    topology::ensure_with_bucket(&env.bus).await.unwrap();
    let config = topology::command_consumer("parcels.pack");
    let pulling = topology::ensure_consumer(&env.bus, subjects::STEPS, config).await.unwrap();
    for body in ["first", "second"] {
        let sent = env.bus.jetstream.publish(subjects::step("parcels.pack"), body.into()).await.unwrap();
        sent.await.unwrap();
    }
    let mut batch = pulling.fetch().max_messages(1).messages().await.unwrap();
    let first = batch.next().await.unwrap().unwrap();
    consumers::pause(&env.bus, "parcels-pack", Utc::now() + TimeDelta::hours(1)).await.unwrap();
    let paused = consumer(&env.bus, "parcels.pack").await;
    assert_eq!((paused.pending, paused.ack_pending), (1, 1));
    first.double_ack().await.unwrap();
    let paused = consumer(&env.bus, "parcels.pack").await;
    assert_eq!((paused.pending, paused.ack_pending), (1, 0));
    let mut nothing =
        pulling.fetch().max_messages(1).expires(Duration::from_millis(300)).messages().await.unwrap();
    assert!(nothing.next().await.is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn service_consumer_is_replaced_by_command_consumers() {
    let env = Env::start().await;
    topology::ensure_with_bucket(&env.bus).await.unwrap();
    let old = topology::work_consumer("seats", &subjects::service("seats"));
    topology::ensure_consumer(&env.bus, subjects::STEPS, old).await.unwrap();
    assert_eq!(consumer(&env.bus, "seats.hold").await.name, "seats");
    let app = start(&env, &[], &Role::ALL).await;
    let concert = add_concert(&app).await;
    let performance = add_performance(&app, concert, 50, 100).await;
    let test = TestApp { app, env, concert, performance };
    let user = test.user(0).await;
    let held = test.reserve(user, &[1]).await;
    assert_eq!(held.status, ReservationStatus::Held);
    for (command, name) in [("seats.hold", "seats-hold"), ("seats.release", "seats-release")] {
        assert_eq!(consumer(&test.app.bus, command).await.name, name);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn foreign_overlapping_consumer_is_left_alone() {
    let env = Env::start().await;
    topology::ensure_with_bucket(&env.bus).await.unwrap();
    let theirs: pull::Config = topology::work_consumer("everything", subjects::ALL_STEPS);
    topology::ensure_consumer(&env.bus, subjects::STEPS, theirs).await.unwrap();
    let ours = topology::command_consumer("seats.hold");
    let refused = topology::ensure_consumer(&env.bus, subjects::STEPS, ours).await.unwrap_err().to_string();
    assert!(refused.contains("the consumer seats-hold"), "{refused}");
    assert_eq!(consumer(&env.bus, "seats.hold").await.name, "everything");
}

#[tokio::test(flavor = "multi_thread")]
async fn present_workers_are_known_and_departed_ones_not() {
    let test = TestApp::start().await;
    let bus = &test.app.bus;
    let serving = async |command| presence::served_by(&presence::present(bus).await.unwrap(), command).len();
    test.until(5, "all to be announced", || async { presence::present(bus).await.unwrap().len() == 3 }).await;
    let present = presence::present(bus).await.unwrap();
    let names: Vec<&str> = present.iter().map(|worker| worker.service.as_str()).collect();
    assert_eq!(names, ["points", "seats", "tickets"]);
    let seats = presence::served_by(&present, "seats.hold")[0];
    assert_eq!(seats.commands, ["seats.hold", "seats.release"]);
    assert!(seats.started.unwrap() > Utc::now() - TimeDelta::minutes(1));
    assert!(seats.instance.as_ref().unwrap().ends_with(&std::process::id().to_string()));
    assert_eq!(serving("printer.print").await, 0);

    let other = test.another(&[]).await;
    test.until(5, "the second process", || async { serving("seats.hold").await == 2 }).await;
    other.stop().await;
    test.until(5, "the second process to be gone", || async { serving("seats.hold").await == 1 }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn presence_is_empty_without_workers() {
    let env = Env::start().await;
    let began = std::time::Instant::now();
    assert_eq!(presence::present(&env.bus).await.unwrap(), []);
    assert!(
        began.elapsed() < Duration::from_millis(200),
        "the server says at once that there is no listener"
    );
}
