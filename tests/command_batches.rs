//! Commands that travel together: each is fenced, done and parked by itself, whatever becomes of the others or of their message.

use async_nats::jetstream::AckKind;
use async_nats::jetstream::consumer::pull;
use boxoffice::app::Role;
use boxoffice::booking::Answer;
use boxoffice::bus::publish::publish;
use boxoffice::bus::{command_batch, subjects, topology};
use boxoffice::saga::{Command, Direction, Status};
use boxoffice::store;
use boxoffice::store::reservations::ReservationStatus;
use futures::StreamExt;
use serde_json::Value;
use uuid::Uuid;

use crate::common::app::{TestApp, start};
use crate::laws::process::Process;

const HOLDS: i32 = 9;
const WAIT: std::time::Duration = std::time::Duration::from_secs(5);

/// Bookings that have begun and whose holds nothing has done, and those commands. Neither worker nor sweeper runs.
async fn begun() -> (TestApp, Vec<Command>) {
    let test = TestApp::roles(&["--settle-ms", "1"], &[Role::Api, Role::Orchestrator]).await;
    let user = test.user(0).await;
    let mut commands = Vec::new();
    for seat in 1..=HOLDS {
        let order = test.order(user, &[seat]);
        let id = order.id;
        assert!(matches!(test.app.booking.reserve(order).await.unwrap(), Answer::Pending(_)));
        commands.push(hold(id));
    }
    // What was sent for each alone is taken away.
    let mut stream = test.app.bus.jetstream.get_stream(subjects::STEPS).await.unwrap();
    test.until(10, "the commands to be out", || async {
        let mut stream = stream.clone();
        stream.info().await.unwrap().state.messages == HOLDS as u64
    })
    .await;
    stream.purge().await.unwrap();
    assert_eq!(stream.info().await.unwrap().state.messages, 0);
    (test, commands)
}

fn hold(saga_id: Uuid) -> Command {
    Command {
        saga_id,
        workflow: "booking".to_owned(),
        subject: "seats.hold".to_owned(),
        step: "reserve".to_owned(),
        direction: Direction::Do,
        visit: 1,
        send: 0,
        deadline: None,
        reason: None,
        context: std::sync::Arc::default(),
        trace: saga_id,
    }
}

async fn send_together(test: &TestApp, commands: &[Command]) {
    publish(&test.app.bus, &[commands], |commands| command_batch::message(commands)).await.unwrap();
}

async fn until_drained(test: &TestApp) {
    test.until(20, "the stream to be drained", || async {
        let mut stream = test.app.bus.jetstream.get_stream(subjects::STEPS).await.unwrap();
        stream.info().await.unwrap().state.messages == 0
    })
    .await;
}

async fn assert_held_once(test: &TestApp, commands: &[Command]) {
    for command in commands {
        assert_eq!(test.find(command.saga_id).await.status, ReservationStatus::Held);
        let history = store::history::of_sagas(&test.app.pool, &[command.saga_id]).await.unwrap();
        let done = history.iter().filter(|row| row.event == "done").count();
        assert_eq!(done, 1, "{history:?}");
    }
    test.check_books().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_of_one_message_are_all_done() {
    let (test, commands) = begun().await;
    send_together(&test, &commands).await;
    let _worker = start(&test.env, &[], &[Role::Worker]).await;
    until_drained(&test).await;
    assert_held_once(&test, &commands).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn busy_engine_sends_commands_together() {
    let test = TestApp::start().await;
    let mut heard = test.app.bus.client.subscribe(subjects::ALL_STEPS).await.unwrap();
    test.app.bus.client.flush().await.unwrap();
    let user = test.user(0).await;
    let mut blocker = test.app.pool.begin().await.unwrap();
    sqlx::query("lock table sagas in share mode").execute(&mut *blocker).await.unwrap();
    let orders = (1..=20).map(|seat| test.app.booking.reserve(test.order(user, &[seat])));
    let all = futures::future::join_all(orders);
    let (_, ()) = tokio::join!(all, async {
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        blocker.commit().await.unwrap();
    });
    let mut together = 0;
    while let Ok(Some(message)) =
        tokio::time::timeout(std::time::Duration::from_millis(500), heard.next()).await
    {
        together = together.max(command_batch::read(&message).unwrap().len());
    }
    assert!(together > 1, "every command travelled alone");
    test.check_books().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_command_among_others_is_parked_alone() {
    let (test, commands) = begun().await;
    sqlx::query("alter table reservations add constraint one_is_bad check (not (seats = array[5] and status = 'held'))")
        .execute(&test.app.pool)
        .await
        .unwrap();
    send_together(&test, &commands).await;
    let _worker = start(&test.env, &[], &[Role::Worker]).await;
    until_drained(&test).await;
    let (headers, payload): (Value, Vec<u8>) = sqlx::query_as("select headers, payload from parked_messages")
        .fetch_one(&test.app.pool)
        .await
        .unwrap();
    let bad = commands[4].saga_id;
    assert_eq!(headers["Saga"], bad.to_string());
    assert_eq!(serde_json::from_slice::<Value>(&payload).unwrap()["workflow"], "booking");
    let saga = store::sagas::get(&test.app.pool, bad).await.unwrap().unwrap();
    assert_eq!(saga.status, Status::Stuck, "{:?}", saga.reason);
    for command in commands.iter().filter(|command| command.saga_id != bad) {
        assert_eq!(test.find(command.saga_id).await.status, ReservationStatus::Held);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn redelivered_commands_are_done_once() {
    let (test, commands) = begun().await;
    let _one = start(&test.env, &[], &[Role::Worker]).await;
    let _other = start(&test.env, &[], &[Role::Worker]).await;
    for _ in 0..4 {
        send_together(&test, &commands).await;
    }
    until_drained(&test).await;
    assert_held_once(&test, &commands).await;
}

/// A message that ends processes must not take its commands along each time.
#[tokio::test(flavor = "multi_thread")]
async fn third_delivery_sends_commands_on_alone() {
    let (test, commands) = begun().await;
    let stream = test.app.bus.jetstream.get_stream(subjects::STEPS).await.unwrap();
    let consumer: pull::Config = topology::command_consumer("seats.hold");
    let consumer = stream.create_consumer(consumer).await.unwrap();
    send_together(&test, &commands).await;
    for _ in 0..2 {
        let mut batch = consumer.batch().max_messages(1).expires(WAIT).messages().await.unwrap();
        batch.next().await.unwrap().unwrap().ack_with(AckKind::Nak(None)).await.unwrap();
    }
    let mut heard = test.app.bus.client.subscribe(subjects::step("seats.hold")).await.unwrap();
    test.app.bus.client.flush().await.unwrap();
    let _worker = start(&test.env, &[], &[Role::Worker]).await;
    for _ in 0..HOLDS {
        let message = heard.next().await.unwrap();
        assert!(!command_batch::is_batch(&message));
    }
    until_drained(&test).await;
    assert_held_once(&test, &commands).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn worker_killed_amid_a_message_loses_nothing() {
    for point in ["worker::committed", "worker::published"] {
        let (test, commands) = begun().await;
        let halted = Process::start(&test.env, &[], "worker", &[point.to_owned()]);
        send_together(&test, &commands).await;
        halted.until_halted(point, 1).await;
        halted.kill().await;
        let _worker = start(&test.env, &[], &[Role::Worker]).await;
        until_drained(&test).await;
        assert_held_once(&test, &commands).await;
    }
}
