//! Forged commands: of a message only the saga and the step are used, and the engine checks both.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};

use boxoffice::app::Role;
use boxoffice::audit::{self, Verdict};
use boxoffice::bus::publish::publish;
use boxoffice::bus::{messages, subjects};
use boxoffice::saga::{Command, Direction, OperatorAction, Outcome, Saga, Status};
use boxoffice::store::reservations::ReservationStatus;
use boxoffice::{ids, store};
use serde_json::json;
use uuid::Uuid;

use crate::common::app::{TestApp, assert_good, begin_saga, start};
use crate::common::http::Entrance;
use crate::undelivered::{pack, waiting_commands, with_parcels};

/// A reservation of seat 1 whose payment is asked for and held back, and the command that would be out.
async fn held_back(test: &TestApp, buyer: Uuid) -> Command {
    let held = test.reserve(buyer, &[1]).await;
    test.app.engine.act(held.id, OperatorAction::Pause, "test", "held back").await.unwrap();
    let began = test.app.engine.signal(held.id, "pay").await;
    assert!(began.is_ok());
    test.until(10, "the payment to be held back", || async {
        let saga = store::sagas::get(&test.app.pool, held.id).await.unwrap().unwrap();
        saga.status == Status::Running && saga.step == "pay"
    })
    .await;
    let saga = store::sagas::get(&test.app.pool, held.id).await.unwrap().unwrap();
    command_for(saga, "points.deduct")
}

/// A command of this subject with the fence of what the saga asks for.
fn command_for(saga: Saga, subject: &str) -> Command {
    Command {
        saga_id: saga.id,
        workflow: saga.workflow,
        subject: subject.to_owned(),
        step: saga.step,
        direction: Direction::Do,
        visit: saga.visit,
        send: saga.send,
        deadline: None,
        reason: None,
        context: saga.context,
        trace: saga.id,
    }
}

#[tokio::test]
async fn forged_payer_amount_and_seats_are_ignored() {
    let test = TestApp::start().await;
    let (buyer, victim) = (test.user(1_000).await, test.user(1_000).await);
    let command = held_back(&test, buyer).await;
    let mut context = (*command.context).clone();
    context["user_id"] = json!(victim);
    context["seats"] = json!([2]);
    context["amount"] = json!(1);
    let forged = Command { context: context.into(), ..command };
    publish(&test.app.bus, std::slice::from_ref(&forged), messages::command).await.unwrap();
    test.until(20, "the payment", || async { test.balance(buyer).await == 900 }).await;
    assert_eq!(test.balance(victim).await, 1_000);
    let payer: Uuid = sqlx::query_scalar("select user_id from payments where reservation_id = $1")
        .bind(forged.saga_id)
        .fetch_one(&test.app.pool)
        .await
        .unwrap();
    assert_eq!(payer, buyer);
    // The saga is still held back; now the same with its tickets.
    let saga = store::sagas::get(&test.app.pool, forged.saga_id).await.unwrap().unwrap();
    assert_eq!((saga.status, saga.step.as_str()), (Status::Running, "confirm"));
    let (subject, visit) = ("tickets.issue".to_owned(), saga.visit);
    let issue = Command { subject, step: saga.step, visit, send: saga.send, ..forged };
    publish(&test.app.bus, std::slice::from_ref(&issue), messages::command).await.unwrap();
    test.until(20, "the tickets", || async { test.find(issue.saga_id).await.tickets.len() == 1 }).await;
    let reservation = test.find(issue.saga_id).await;
    assert_eq!((reservation.user_id, reservation.tickets[0].seat), (buyer, 1));
    test.check_books().await;
}

#[tokio::test]
async fn forged_buyer_and_seats_are_ignored() {
    let test = TestApp::roles(&["--settle-ms", "1"], &[Role::Api]).await;
    let (buyer, victim) = (test.user(0).await, test.user(0).await);
    let order = test.order(buyer, &[1]);
    let id = order.id;
    drop(test.app.booking.reserve(order).await.unwrap());
    test.until(10, "the command to be out", || async { waiting_commands(&test).await == 1 }).await;
    let stream = test.app.bus.jetstream.get_stream(subjects::STEPS).await.unwrap();
    stream.purge().await.unwrap();
    let saga = store::sagas::get(&test.app.pool, id).await.unwrap().unwrap();
    let mut context = (*saga.context).clone();
    context["user_id"] = json!(victim);
    context["seats"] = json!([2, 3]);
    let forged = Command { context: context.into(), ..command_for(saga, "seats.hold") };
    publish(&test.app.bus, std::slice::from_ref(&forged), messages::command).await.unwrap();
    let worker = start(&test.env, &[], &[Role::Worker]).await;
    test.until(20, "the hold", || async { test.find(id).await.status == ReservationStatus::Held }).await;
    let taken: Vec<(i32, Uuid)> = sqlx::query_as("select number, holder from seats where holder is not null")
        .fetch_all(&test.app.pool)
        .await
        .unwrap();
    assert_eq!(taken, [(1, id)]);
    assert_eq!(test.find(id).await.user_id, buyer);
    worker.stop().await;
}

/// A service in this database is asked to do a step that another service serves.
#[tokio::test]
async fn command_for_a_step_elsewhere_is_parked() {
    let (test, _folder) = with_parcels(&Role::ALL).await;
    let id = ids::new();
    begin_saga(&test.app.engine, "parcel", id).await;
    for subject in ["seats.hold", "points.deduct", "tickets.issue"] {
        let saga = store::sagas::get(&test.app.pool, id).await.unwrap().unwrap();
        let forged = command_for(saga, subject);
        publish(&test.app.bus, &[forged], messages::command).await.unwrap();
    }
    test.until(20, "the messages to be parked", || async {
        store::operations::count_parked(&test.app.pool).await.unwrap() == 3
    })
    .await;
    let saga = store::sagas::get(&test.app.pool, id).await.unwrap().unwrap();
    assert_eq!((saga.status, saga.seq), (Status::Running, 1));
}

/// Whatever may publish replies says that a payment was made.
#[tokio::test]
async fn reply_for_an_embedded_service_is_parked() {
    let test = TestApp::start().await;
    let buyer = test.user(1_000).await;
    let command = held_back(&test, buyer).await;
    let forged = [messages::reply(&command, &Outcome::done())];
    publish(&test.app.bus, &forged, Clone::clone).await.unwrap();
    let mut anonymous = messages::reply(&command, &Outcome::done());
    anonymous.subject = subjects::REPLIES.to_owned();
    publish(&test.app.bus, &[anonymous], Clone::clone).await.unwrap();
    test.until(20, "the replies to be parked", || async {
        store::operations::count_parked(&test.app.pool).await.unwrap() == 2
    })
    .await;
    let saga = store::sagas::get(&test.app.pool, command.saga_id).await.unwrap().unwrap();
    assert_eq!((saga.status, saga.step.as_str()), (Status::Running, "pay"));
    assert_eq!(test.balance(buyer).await, 1_000);
}

/// Nothing acknowledges a command on the subject of one service that names the step of another.
#[tokio::test]
async fn undelivered_command_stops_no_step_of_another_service() {
    let (test, _folder) = with_parcels(&Role::ALL).await;
    let buyer = test.user(1_000).await;
    let command = held_back(&test, buyer).await;
    pack(&test, Arc::new(Mutex::new(HashSet::from([command.saga_id])))).await;
    let forged = Command { subject: "parcels.pack".to_owned(), ..command };
    publish(&test.app.bus, std::slice::from_ref(&forged), messages::command).await.unwrap();
    test.until(20, "the message to be parked", || async {
        store::operations::count_parked(&test.app.pool).await.unwrap() == 1
    })
    .await;
    test.until(20, "it to be off the stream", || async { waiting_commands(&test).await == 0 }).await;
    let saga = store::sagas::get(&test.app.pool, forged.saga_id).await.unwrap().unwrap();
    assert_eq!((saga.status, saga.step.as_str()), (Status::Running, "pay"));
}

#[tokio::test]
async fn command_that_was_not_asked_is_parked() {
    let test = TestApp::start().await;
    let buyer = test.user(1_000).await;
    let command = held_back(&test, buyer).await;
    // The step's fence, with the work of another step.
    let forged = Command { subject: "tickets.issue".to_owned(), ..command };
    publish(&test.app.bus, std::slice::from_ref(&forged), messages::command).await.unwrap();
    test.until(20, "the message to be parked", || async {
        store::operations::count_parked(&test.app.pool).await.unwrap() == 1
    })
    .await;
    let reservation = test.find(forged.saga_id).await;
    assert_eq!((reservation.status, reservation.tickets.len()), (ReservationStatus::Held, 0));
    assert_eq!(test.balance(buyer).await, 1_000);
    test.app.engine.act(forged.saga_id, OperatorAction::Resume, "test", "go on").await.unwrap();
    test.check_books().await;
    assert_eq!(test.find(forged.saga_id).await.status, ReservationStatus::Confirmed);
}

#[tokio::test]
async fn confirmation_without_payment_is_refused() {
    let entrance = Entrance::start().await;
    let test = &entrance.test;
    let buyer = entrance.admitted(1_000).await;
    let held = entrance.reserve(&buyer, &[1]).await.good(201).clone();
    let id: Uuid = held["id"].as_str().unwrap().parse().unwrap();
    let engine = &test.app.engine;
    engine.act(id, OperatorAction::Pause, "test", "held back").await.unwrap();
    assert_eq!(entrance.pay(&buyer, &held).await.status, 202);
    let output = serde_json::Map::new();
    let acted = engine
        .act(id, OperatorAction::Complete { step: None, output }, "test", "paid at the counter")
        .await
        .unwrap();
    let left = &acted.detail.unwrap()["settlement"]["left_to_settle"];
    assert_eq!(left, &json!([{ "what": "points_owed", "user_id": buyer.id, "points": 100 }]));
    engine.act(id, OperatorAction::Resume, "test", "go on").await.unwrap();
    test.until(20, "the tickets", || async { test.find(id).await.status == ReservationStatus::Confirmed })
        .await;
    let refused = entrance.pay(&buyer, &held).await;
    assert_eq!(refused.is(409, "reservation_not_payable")["reservation_status"], "confirmed");
    let report = audit::run(&test.app.pool).await.unwrap();
    assert_eq!(report.verdict, Verdict::Good, "{:#?}", report.broken);
    assert!(!report.is_good(true), "the points are still owed");
    assert_eq!(report.unsettled_points[0].what, "owed");
}

#[tokio::test]
async fn deduct_without_an_amount_charges_nothing() {
    let test = TestApp::start().await;
    let buyer = test.user(1_000).await;
    let command = held_back(&test, buyer).await;
    sqlx::query("with forgotten as (
             update saga_history set detail = (detail::jsonb - 'amount')::text where saga_id = $1 and event = 1)
         update sagas set seq = seq + 1 where id = $1")
        .bind(command.saga_id)
        .execute(&test.app.pool)
        .await
        .unwrap();
    publish(&test.app.bus, std::slice::from_ref(&command), messages::command).await.unwrap();
    test.until(20, "the reservation to fail", || async {
        test.find(command.saga_id).await.status == ReservationStatus::Failed
    })
    .await;
    assert_eq!(test.find(command.saga_id).await.reason.as_deref(), Some("invalid_command"));
    assert_good(&test.app).await;
}
