//! A date is sold until it starts, whatever its window says: not listed, held or paid for after that, and not given back.

use boxoffice::booking::Answer;
use boxoffice::store::api_keys::Role;
use boxoffice::store::reservations::ReservationStatus;
use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Value, json};
use uuid::Uuid;

use super::common::app::{TestApp, add_performance_at, until};
use super::common::http::{Caller, Entrance};
use super::common::program::Program;

/// Makes a date start now.
async fn start_now(test: &TestApp, performance: Uuid) {
    sqlx::query("update performances set starts_at = clock_timestamp() where id = $1")
        .bind(performance)
        .execute(&test.app.pool)
        .await
        .unwrap();
}

#[tokio::test]
async fn started_date_is_not_for_sale() {
    let entrance = Entrance::start().await;
    let (test, performance) = (&entrance.test, entrance.test.performance);
    let buyer = entrance.admitted(1_000).await;
    let held = entrance.reserve(&buyer, &[1]).await.good(201).clone();
    let owner = entrance.admitted(1_000).await;
    let sold = entrance.reserve(&owner, &[2]).await.good(201).clone();
    entrance.pay(&owner, &sold).await.good(201);
    start_now(test, performance).await;

    let refused = entrance.reserve(&buyer, &[3]).await;
    refused.is(422, "sale_not_open");
    let cashier = entrance.key(Role::Cashier).await;
    let order = json!({ "performance_id": performance, "seats": [4], "user_id": buyer.id, "pay": true });
    entrance.post("/v1/reservations", &cashier, order).await.is(422, "sale_not_open");
    entrance.pay(&buyer, &held).await.is(410, "hold_expired");
    assert_eq!(test.balance(buyer.id).await, 1_000, "nothing was taken, or it was given back");
    let late = entrance.cancel(&owner, &sold).await;
    assert_eq!(late.is(409, "reservation_not_cancellable")["reservation_status"], "confirmed");

    let dates = format!("/v1/concerts/{}/performances", test.concert);
    until(5, "the date to leave the list", || async {
        entrance.get(&dates, &buyer).await.good(200)["items"] == json!([])
    })
    .await;
    until(5, "the concert to be no longer on sale", || async {
        let concerts = entrance.get("/v1/concerts", &Caller::anonymous()).await.good(200).clone();
        concerts["items"].as_array().unwrap().iter().all(|concert| concert["on_sale"] == false)
    })
    .await;
    let line = format!("/v1/concerts/{}/queue-tokens", test.concert);
    until(10, "the line to close", || async {
        // Each time another user: one who joined a moment before keeps the place.
        let late = entrance.user(0).await;
        entrance.post(&line, &late, json!({})).await.body["code"] == "queue_closed"
    })
    .await;
    test.check_books().await;
}

#[tokio::test]
async fn hold_executed_after_the_start_is_rejected() {
    let test = TestApp::start().await;
    let program = Program::of(&test.env);
    program.json(0, "saga pause --step seats.hold --reason slow").await;
    let user = test.user(0).await;
    let answer = test.app.booking.reserve(test.order(user, &[1])).await.unwrap();
    let Answer::Pending(pending) = answer else { panic!("held in spite of the pause: {answer:?}") };
    start_now(&test, test.performance).await;
    program.json(0, "saga resume --step seats.hold --reason quick").await;
    test.until(20, "the hold to be rejected", || async {
        test.find(pending.id).await.status == ReservationStatus::Failed
    })
    .await;
    assert_eq!(test.find(pending.id).await.reason.as_deref(), Some("sale_not_open"));
    test.check_books().await;
}

#[tokio::test]
async fn hold_ends_when_its_date_starts() {
    let entrance = Entrance::start().await;
    let buyer = entrance.admitted(100).await;
    let (app, concert) = (&entrance.test.app, entrance.test.concert);
    let (starts_at, opens_at) = (Utc::now() + TimeDelta::seconds(5), Utc::now() - TimeDelta::hours(1));
    let performance = add_performance_at(app, concert, 5, 10, starts_at, opens_at).await;
    let order = json!({ "performance_id": performance, "seats": [1] });
    let held = entrance.post("/v1/reservations", &buyer, order).await.good(201).clone();
    let expires_at: DateTime<Utc> = held["expires_at"].as_str().unwrap().parse().unwrap();
    assert!(expires_at <= starts_at, "{expires_at} is after {starts_at}");
    let path = format!("/v1/reservations/{}", held["id"].as_str().unwrap());
    until(20, "the hold to run out", || async {
        entrance.get(&path, &buyer).await.body["status"] == "expired"
    })
    .await;
    entrance.pay(&buyer, &held).await.is(410, "hold_expired");
    entrance.test.check_books().await;
}

#[tokio::test]
async fn impossible_times_are_refused_by_field() {
    let entrance = Entrance::start().await;
    let admin = entrance.key(Role::Admin).await;
    let path = format!("/v1/admin/concerts/{}/performances", entrance.test.concert);
    let now = Utc::now();
    let in_days = |days: i64| json!(now + TimeDelta::days(days));
    let refused = async |starts: Value, opens: Value, closes: Value| {
        let date = json!({
            "venue": "The Hall", "starts_at": starts, "duration_minutes": 120, "sale_opens_at": opens,
            "sale_closes_at": closes, "seats": [{ "from": 1, "to": 2, "section": "A", "price": 1 }],
        });
        let reply = entrance.post(&path, &admin, date).await;
        reply.pointers().into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(
        refused(in_days(9), in_days(5), in_days(4)).await,
        ["/sale_closes_at"],
        "opens after it closes"
    );
    assert_eq!(
        refused(in_days(9), in_days(1), in_days(10)).await,
        ["/sale_closes_at"],
        "closes after the start"
    );
    assert_eq!(
        refused(in_days(-1), in_days(-3), in_days(-2)).await,
        ["/starts_at", "/sale_closes_at"],
        "is over already"
    );
    let program = Program::of(&entrance.test.env);
    let date = format!(
        "concert date {} --venue Hall --starts-at 2020-01-01T00:00:00Z --opens-at 2019-01-01T00:00:00Z --seats 1-2:A:1",
        entrance.test.concert
    );
    let told = program.run(&date).await;
    assert_eq!(told.code, 2, "{}", told.err);
    assert!(told.err.contains("starts_at must be in the future"), "{}", told.err);
}
