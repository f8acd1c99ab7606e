//! Paying and cancelling over HTTP: what each answers, and every code it refuses with.

use axum::http::Method;
use chrono::{TimeDelta, Utc};
use futures::future::join_all;
use serde_json::{Value, json};

use super::common::app::{add_performance_at, until};
use super::common::http::Entrance;

#[tokio::test]
async fn hold_waits_for_enough_points() {
    let entrance = Entrance::start().await;
    let buyer = entrance.admitted(150).await;
    let held = entrance.reserve(&buyer, &[1, 2]).await.good(201).clone();
    for _ in 0..2 {
        let refused = entrance.pay(&buyer, &held).await;
        let body = refused.is(402, "insufficient_points");
        assert_eq!((&body["balance"], &body["required"]), (&150.into(), &200.into()));
    }
    entrance.test.charge(buyer.id, 100).await;
    entrance.pay(&buyer, &held).await.good(201);
    assert_eq!(entrance.test.balance(buyer.id).await, 50);
    entrance.test.check_books().await;
}

#[tokio::test]
async fn paying_from_many_clients_at_once_charges_once() {
    let entrance = Entrance::start().await;
    let buyer = entrance.admitted(1_000).await;
    let held = entrance.reserve(&buyer, &[1]).await.good(201).clone();
    let replies = join_all((0..20).map(|_| entrance.pay(&buyer, &held))).await;
    let bodies: Vec<&Value> = replies
        .iter()
        .map(|reply| {
            assert!([200, 201].contains(&reply.status), "{reply:#?}");
            &reply.body
        })
        .collect();
    assert!(bodies.iter().all(|body| *body == bodies[0]), "{bodies:#?}");
    assert_eq!(entrance.test.balance(buyer.id).await, 900);
    entrance.test.check_books().await;
}

#[tokio::test]
async fn live_hold_is_enough_to_pay() {
    let entrance = Entrance::start().await;
    let buyer = entrance.admitted(100).await;
    let held = entrance.reserve(&buyer, &[1]).await.good(201).clone();
    let left = entrance.send(Method::DELETE, "/v1/queue-tokens/current", &buyer, None).await;
    assert_eq!(left.status, 204);
    entrance.reserve(&buyer, &[2]).await.is(403, "queue_token_expired");
    entrance.pay(&buyer.without("queue-token"), &held).await.is(403, "queue_token_required");
    entrance.pay(&buyer, &held).await.good(201);
}

#[tokio::test]
async fn live_hold_is_payable_after_the_session() {
    let flags = ["--queue-session-seconds", "2", "--queue-session-max-seconds", "6"];
    let entrance = Entrance::with(&flags).await;
    let buyer = entrance.admitted(100).await;
    let held = entrance.reserve(&buyer, &[1]).await.good(201).clone();
    let current = "/v1/queue-tokens/current";
    let is_over = async || entrance.get(current, &buyer).await.body["status"] == "expired";
    until(20, "the session to end", || async { is_over().await }).await;
    entrance.reserve(&buyer, &[2]).await.is(403, "queue_token_expired");
    entrance.pay(&buyer, &held).await.good(201);
}

#[tokio::test]
async fn expired_hold_cannot_be_paid_or_cancelled() {
    let entrance = Entrance::with(&["--hold-seconds", "1"]).await;
    let buyer = entrance.admitted(1_000).await;
    let held = entrance.reserve(&buyer, &[1]).await.good(201).clone();
    let path = format!("/v1/reservations/{}", held["id"].as_str().unwrap());
    let read = async || entrance.get(&path, &buyer).await.body;
    until(10, "the hold to run out", || async { read().await["status"] == "expired" }).await;
    assert_eq!(read().await["reason"], "hold_expired");
    entrance.pay(&buyer, &held).await.is(410, "hold_expired");
    entrance.pay(&buyer.without("queue-token"), &held).await.is(410, "hold_expired");
    let refused = entrance.cancel(&buyer, &held).await;
    assert_eq!(refused.is(409, "reservation_not_cancellable")["reservation_status"], "expired");
    assert_eq!(entrance.test.balance(buyer.id).await, 1_000);
    let other = entrance.admitted(0).await;
    entrance.reserve(&other, &[1]).await.good(201);
}

#[tokio::test]
async fn cancelled_hold_frees_its_seats() {
    let entrance = Entrance::start().await;
    let (buyer, other) = (entrance.admitted(1_000).await, entrance.admitted(0).await);
    let held = entrance.reserve(&buyer, &[1]).await.good(201).clone();
    let cancelled = entrance.cancel(&buyer, &held).await.good(200).clone();
    assert_eq!(cancelled["status"], "cancelled");
    assert_eq!(entrance.cancel(&buyer, &held).await.good(200)["status"], "cancelled");
    let refused = entrance.pay(&buyer, &held).await;
    assert_eq!(refused.is(409, "reservation_not_payable")["reservation_status"], "cancelled");
    entrance.reserve(&other, &[1]).await.good(201);
    entrance.test.check_books().await;
}

#[tokio::test]
async fn a_confirmed_reservation_is_refunded_once() {
    let entrance = Entrance::start().await;
    let buyer = entrance.admitted(1_000).await;
    let held = entrance.reserve(&buyer, &[1, 2]).await.good(201).clone();
    entrance.pay(&buyer, &held).await.good(201);
    let replies = join_all((0..5).map(|_| entrance.cancel(&buyer, &held))).await;
    for reply in &replies {
        let body = reply.good(200);
        assert_eq!((&body["status"], &body["payment"]["status"]), (&"cancelled".into(), &"refunded".into()));
        assert_eq!(body["tickets"][0]["status"], "void");
    }
    assert_eq!(entrance.test.balance(buyer.id).await, 1_000);
    let entries = entrance.get("/v1/points/entries", &buyer).await.body;
    let kinds: Vec<&Value> =
        entries["items"].as_array().unwrap().iter().map(|entry| &entry["kind"]).collect();
    assert_eq!(kinds, ["refund", "use", "charge"]);
    assert_eq!(entries["items"][0]["reservation_id"], held["id"]);
    entrance.test.check_books().await;
}

#[tokio::test]
async fn after_the_start_there_is_no_refund() {
    let entrance = Entrance::start().await;
    let buyer = entrance.admitted(100).await;
    let held = entrance.reserve(&buyer, &[1]).await.good(201).clone();
    entrance.pay(&buyer, &held).await.good(201);
    let start = "update performances set starts_at = now() - interval '1 minute' where id = $1";
    sqlx::query(start).bind(entrance.test.performance).execute(&entrance.pool).await.unwrap();
    let refused = entrance.cancel(&buyer, &held).await;
    assert_eq!(refused.is(409, "reservation_not_cancellable")["reservation_status"], "confirmed");
}

#[tokio::test]
async fn free_seat_makes_no_ledger_entry() {
    let entrance = Entrance::start().await;
    let now = Utc::now();
    let (starts, opens) = (now + TimeDelta::days(9), now - TimeDelta::hours(1));
    let gratis = add_performance_at(&entrance.test.app, entrance.test.concert, 5, 0, starts, opens).await;
    let buyer = entrance.admitted(0).await;
    let order = json!({ "performance_id": gratis, "seats": [1] });
    let held = entrance.post("/v1/reservations", &buyer, order).await.good(201).clone();
    assert_eq!(entrance.pay(&buyer, &held).await.good(201)["amount"], 0);
    assert_eq!(entrance.get("/v1/points/entries", &buyer).await.good(200)["items"], json!([]));
    entrance.test.check_books().await;
}
