//! An operator's act that ends a saga ends its reservation too, and says what is left to settle.

use boxoffice::audit::{self, Verdict};
use boxoffice::ids;
use boxoffice::saga::OperatorAction;
use boxoffice::store::api_keys::Role;
use boxoffice::store::reservations::ReservationStatus;
use serde_json::{Map, json};
use uuid::Uuid;

use super::{make_stuck, stuck};
use crate::common::app::{TestApp, until};
use crate::common::http::Entrance;
use crate::common::program::Program;
use crate::events::published;

/// A booking that was paid and whose tickets an operator has to look at: it is stuck in `confirm`.
async fn stuck_after_payment(test: &TestApp, user: Uuid, seat: i32) -> Uuid {
    let program = Program::of(&test.env);
    program.json(0, "saga pause --step tickets.issue --reason no-paper").await;
    let held = test.reserve(user, &[seat]).await;
    let _paid = test.app.booking.pay(held.id).await.unwrap();
    test.until(20, "the points to be taken", || async {
        let step: String = sqlx::query_scalar("select step from saga_view where id = $1")
            .bind(held.id)
            .fetch_one(&test.app.pool)
            .await
            .unwrap();
        step == "confirm"
    })
    .await;
    sqlx::query(
        "update sagas set status = saga_status('stuck'), stuck_since = now(), due_at = null, reason = 'no paper', seq = seq + 1
         where id = $1",
    )
    .bind(held.id)
    .execute(&test.app.pool)
    .await
    .unwrap();
    held.id
}

#[tokio::test]
async fn abandoned_hold_fails_and_its_seats_are_free() {
    let entrance = Entrance::start().await;
    let test = &entrance.test;
    let buyer = entrance.admitted(1_000).await;
    let held = entrance.reserve(&buyer, &[1]).await.good(201).clone();
    let id: Uuid = held["id"].as_str().unwrap().parse().unwrap();
    make_stuck(test, id).await;
    let waiting = entrance.cancel(&buyer, &held).await;
    waiting.is(409, "reservation_not_cancellable");

    let done = Program::of(&test.env).json(0, &format!("saga abandon {id} --reason x")).await;
    let settlement =
        json!({ "reservation_id": id, "status": "failed", "seats_freed": [1], "left_to_settle": [] });
    assert_eq!(done["settlement"], settlement);
    let read = entrance.get(&format!("/v1/reservations/{id}"), &buyer).await.good(200).clone();
    assert_eq!((&read["status"], &read["reason"]), (&"failed".into(), &"abandoned".into()));
    let over = entrance.cancel(&buyer, &held).await;
    assert_eq!(over.is(409, "reservation_not_cancellable")["reservation_status"], "failed");
    entrance.pay(&buyer, &held).await.is(409, "reservation_not_payable");
    let other = entrance.admitted(0).await;
    entrance.reserve(&other, &[1]).await.good(201);
    test.check_books().await;
}

#[tokio::test]
async fn skipped_release_ends_the_reservation() {
    let test = TestApp::start().await;
    let id = stuck(&test, 1).await;
    let acted = test.app.engine.act(id, OperatorAction::SkipUndo, "test", "x").await.unwrap();
    assert_eq!(acted.detail.unwrap()["settlement"]["seats_freed"], json!([1]));
    let ended = test.find(id).await;
    assert_eq!((ended.status, ended.reason.as_deref()), (ReservationStatus::Failed, Some("abandoned")));
    assert_eq!(test.reserve(ids::new(), &[1]).await.status, ReservationStatus::Held);
    test.check_books().await;
}

#[tokio::test]
async fn points_without_a_ticket_are_named_and_audited() {
    let test = TestApp::start().await;
    let user = test.user(1_000).await;
    let id = stuck_after_payment(&test, user, 1).await;
    let finding = async |saga_status: &str| {
        let report = audit::run(&test.app.pool).await.unwrap();
        assert_eq!(report.verdict, Verdict::Good, "{:#?}", report.broken);
        assert!(report.is_good(false) && !report.is_good(true));
        let [left] = &report.unsettled_points[..] else { panic!("{:#?}", report.unsettled_points) };
        assert_eq!((left.saga_id, left.reservation_id, left.user_id), (id, id, user));
        assert_eq!((left.points, left.what.as_str(), left.saga_status.as_str()), (100, "taken", saga_status));
    };
    finding("stuck").await;
    let program = Program::of(&test.env);
    let told = program.run(&format!("saga abandon {id} --reason gone")).await;
    let words = format!("100 points were taken from user {user}, and there is no ticket for them.");
    assert!(told.out.contains(&format!("Left to settle: {words}")), "{}", told.out);
    assert!(told.out.contains("these seats are free again: 1"), "{}", told.out);
    assert_eq!(test.find(id).await.status, ReservationStatus::Failed);
    finding("abandoned").await;
    let shown = program.run("audit --strict").await;
    assert_eq!(shown.code, 1, "{}", shown.out);
    assert!(shown.out.contains("to settle: 100 points are taken and there is no ticket"), "{}", shown.out);
    let listed = program.json(0, "audit").await;
    assert_eq!(listed["unsettled_points"][0]["points"], 100);
}

#[tokio::test]
async fn refund_gives_points_back_once() {
    let entrance = Entrance::start().await;
    let test = &entrance.test;
    let (user, operator) = (test.user(1_000).await, entrance.key(Role::Operator).await);
    let id = stuck_after_payment(test, user, 1).await;
    let program = Program::of(&test.env);
    let refund = format!("saga refund {id} --reason unprinted");
    let early = program.json(1, &refund).await;
    assert!(early["detail"].as_str().unwrap().starts_with("the saga is stuck;"), "{early}");
    test.app.engine.act(id, OperatorAction::Abandon, "test", "gone").await.unwrap();
    assert_eq!(test.balance(user).await, 900);
    let done = program.json(0, &refund).await;
    assert_eq!(
        (&done["points"], &done["user_id"], &done["was_refunded"]),
        (&json!(100), &json!(user), &json!(false))
    );
    assert_eq!(test.balance(user).await, 1_000);
    // The same over the API: nothing more is given back, and no second act is written down.
    let path = format!("/v1/ops/sagas/{id}/refund");
    let again = entrance.post(&path, &operator, json!({ "reason": "x" })).await.good(200).clone();
    assert_eq!((&again["entry_id"], &again["was_refunded"]), (&done["entry_id"], &json!(true)));
    assert_eq!(test.balance(user).await, 1_000);
    let reasons: Vec<String> =
        sqlx::query_scalar("select reason from operator_acts where act = 'refund' and saga_id = $1")
            .bind(id)
            .fetch_all(&test.app.pool)
            .await
            .unwrap();
    assert_eq!(reasons, ["unprinted"]);
    let entry = done["entry_id"].as_str().unwrap();
    test.until(10, "the event", || async {
        published(test).await.iter().any(|event| event.id == entry && event.data["kind"] == "refund")
    })
    .await;
    crate::asyncapi::assert_event_fits(
        published(test).await.iter().find(|event| event.id == entry).expect("it was there"),
    );
    assert!(audit::run(&test.app.pool).await.unwrap().unsettled_points.is_empty());
    test.check_books().await;
}

#[tokio::test]
async fn refund_of_a_confirmed_reservation_is_refused() {
    let entrance = Entrance::start().await;
    let (test, operator) = (&entrance.test, entrance.key(Role::Operator).await);
    let user = test.user(1_000).await;
    let held = test.reserve(user, &[1]).await;
    test.pay(held.id).await;
    let refund = async |id| {
        let path = format!("/v1/ops/sagas/{id}/refund");
        entrance.post(&path, &operator, json!({ "reason": "x" })).await
    };
    refund(held.id).await.is(409, "illegal_act");
    let unpaid = test.reserve(user, &[2]).await;
    test.cancel(unpaid.id).await;
    refund(unpaid.id).await.is(409, "illegal_act");
    refund(ids::new()).await.is(404, "not_found");
    assert_eq!(test.balance(user).await, 900);
    test.check_books().await;
}

#[tokio::test]
async fn confirm_completed_without_tickets_fails_the_reservation() {
    let test = TestApp::start().await;
    let user = test.user(1_000).await;
    let id = stuck_after_payment(&test, user, 1).await;
    let act = OperatorAction::Complete { step: None, output: Map::new() };
    let acted = test.app.engine.act(id, act, "test", "printed").await.unwrap();
    let left = json!([{ "what": "points_taken", "user_id": user, "points": 100 }]);
    assert_eq!(acted.detail.unwrap()["settlement"]["left_to_settle"], left);
    assert_eq!(test.find(id).await.status, ReservationStatus::Failed);
}

#[tokio::test]
async fn unfreeable_seats_are_left_to_settle() {
    let test = TestApp::start().await;
    let id = stuck(&test, 3).await;
    sqlx::raw_sql(
        "create function refuse_free_seats() returns trigger language plpgsql as
         $$ begin raise check_violation using message = 'seats cannot become free'; end $$;
         create trigger faulty before update on seats for each row
         when (new.status = 'free') execute function refuse_free_seats()",
    )
    .execute(&test.app.pool)
    .await
    .unwrap();
    let acted = test.app.engine.act(id, OperatorAction::Abandon, "test", "x").await.unwrap();
    let left = json!([{ "what": "seats_held", "seats": [3] }]);
    assert_eq!(acted.detail.unwrap()["settlement"]["left_to_settle"], left);
    assert_eq!(test.find(id).await.status, ReservationStatus::Failed);
}

#[tokio::test]
async fn abandoned_cancellation_can_be_asked_for_again() {
    let entrance = Entrance::start().await;
    let test = &entrance.test;
    let buyer = entrance.admitted(1_000).await;
    let held = entrance.reserve(&buyer, &[1]).await.good(201).clone();
    entrance.pay(&buyer, &held).await.good(201);
    let program = Program::of(&test.env);
    program.json(0, "saga pause --step tickets.void --reason x").await;
    assert_eq!(entrance.cancel(&buyer, &held).await.status, 202);
    let cancellation: Uuid =
        sqlx::query_scalar("select cancellation_id from reservations where id = $1::uuid")
            .bind(held["id"].as_str().unwrap())
            .fetch_one(&test.app.pool)
            .await
            .unwrap();
    let acted = test.app.engine.act(cancellation, OperatorAction::Abandon, "test", "x").await.unwrap();
    assert_eq!(acted.detail.unwrap()["settlement"]["status"], "confirmed");
    program.json(0, "saga resume --step tickets.void --reason x").await;
    until(20, "the second cancellation", || async {
        let reply = entrance.cancel(&buyer, &held).await;
        assert!([200, 202].contains(&reply.status), "{reply:#?}");
        reply.status == 200 && reply.body["status"] == "cancelled"
    })
    .await;
    assert_eq!(test.balance(buyer.id).await, 1_000);
    test.check_books().await;
}
