//! Commands that nothing of the service has sent: a message names a saga and a step, and no more of it is believed.

use boxoffice::audit::{self, Verdict};
use boxoffice::bus::messages;
use boxoffice::bus::publish::publish;
use boxoffice::saga::{Act, Command, Direction, Status};
use boxoffice::store;
use boxoffice::store::reservations::ReservationStatus;
use serde_json::json;
use uuid::Uuid;

use crate::common::app::{TestApp, assert_good};
use crate::common::http::Entrance;

/// A reservation of seat 1 whose payment is asked for and held back, and the command that would be out.
async fn held_back(test: &TestApp, buyer: Uuid) -> Command {
    let held = test.reserve(buyer, &[1]).await;
    test.app.engine.act(held.id, Act::Pause, "test", "held back").await.unwrap();
    let began = test.app.engine.signal(held.id, "pay").await;
    assert!(began.is_ok());
    test.until(10, "the payment to be held back", || async {
        let saga = store::sagas::get(&test.app.pool, held.id).await.unwrap().unwrap();
        saga.status == Status::Running && saga.step == "pay"
    })
    .await;
    let saga = store::sagas::get(&test.app.pool, held.id).await.unwrap().unwrap();
    Command {
        saga_id: saga.id,
        workflow: saga.workflow,
        subject: "points.deduct".to_owned(),
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
}

#[tokio::test]
async fn command_other_than_the_one_asked_for_is_parked() {
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
    test.app.engine.act(forged.saga_id, Act::Resume, "test", "go on").await.unwrap();
    test.check_books().await;
    assert_eq!(test.find(forged.saga_id).await.status, ReservationStatus::Confirmed);
}

#[tokio::test]
async fn confirmed_without_a_payment_is_refused_with_a_code() {
    let entrance = Entrance::start().await;
    let test = &entrance.test;
    let buyer = entrance.admitted(1_000).await;
    let held = entrance.reserve(&buyer, &[1]).await.good(201).clone();
    let id: Uuid = held["id"].as_str().unwrap().parse().unwrap();
    let engine = &test.app.engine;
    engine.act(id, Act::Pause, "test", "held back").await.unwrap();
    assert_eq!(entrance.pay(&buyer, &held).await.status, 202);
    let output = serde_json::Map::new();
    let acted = engine.act(id, Act::Complete { output }, "test", "paid at the counter").await.unwrap();
    let left = &acted.detail.unwrap()["settlement"]["left_to_settle"];
    assert_eq!(left, &json!([{ "what": "points_owed", "user_id": buyer.id, "points": 100 }]));
    engine.act(id, Act::Resume, "test", "go on").await.unwrap();
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
    sqlx::query("update sagas set context = context - 'amount', seq = seq + 1 where id = $1")
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
