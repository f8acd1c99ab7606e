//! Seats that are paid in the request that takes them, and sales at the counter.

use boxoffice::store::api_keys::Role;
use serde_json::{Value, json};
use uuid::Uuid;

use super::common::app::until;
use super::common::http::{Caller, Entrance, Reply};

const RESERVATIONS: &str = "/v1/reservations";

/// Takes seats and pays for them at once; a cashier says for whom.
async fn buy(entrance: &Entrance, caller: &Caller, seats: &[i64], whose: Option<Uuid>) -> Reply {
    let mut body = json!({ "performance_id": entrance.test.performance, "seats": seats, "pay": true });
    if let Some(user) = whose {
        body["user_id"] = json!(user);
    }
    entrance.post(RESERVATIONS, caller, body).await
}

/// What the history of its saga says happened, in order.
async fn history(entrance: &Entrance, reservation: &Value) -> Vec<String> {
    let viewer = entrance.key(Role::Viewer).await;
    let path = format!("/v1/ops/sagas/{}", reservation["id"].as_str().unwrap());
    let saga = entrance.get(&path, &viewer).await.good(200).clone();
    let rows = saga["history"].as_array().unwrap().iter();
    rows.map(|row| format!("{} {}", row["event"].as_str().unwrap(), row["step"].as_str().unwrap())).collect()
}

#[tokio::test]
async fn counter_holds_and_pays_in_one_request() {
    let entrance = Entrance::start().await;
    let buyer = entrance.admitted(1_000).await.with("idempotency-key", "once");
    let sold = buy(&entrance, &buyer, &[1, 2], None).await.good(201).clone();
    assert_eq!((&sold["status"], &sold["payment"]["status"]), (&json!("confirmed"), &json!("succeeded")));
    assert_eq!(sold["tickets"].as_array().unwrap().len(), 2);
    let path = history(&entrance, &sold).await;
    assert_eq!(path, ["started reserve", "done reserve", "done pay", "done confirm"]);
    let again = buy(&entrance, &buyer, &[1, 2], None).await;
    assert_eq!(again.good(201), &sold, "the same key gives the same answer, though the place is spent");
    buy(&entrance, &buyer.without("idempotency-key"), &[3], None).await.is(403, "queue_token_expired");
    assert_eq!(entrance.test.balance(buyer.id).await, 800);
    entrance.test.check_books().await;
}

#[tokio::test]
async fn hold_with_too_few_points_stays_payable() {
    let entrance = Entrance::with(&["--hold-seconds", "3"]).await;
    let (buyer, other) = (entrance.admitted(50).await, entrance.admitted(50).await);
    let refused = buy(&entrance, &buyer, &[1], None).await;
    let body = refused.is(402, "insufficient_points");
    assert_eq!((&body["balance"], &body["required"]), (&50.into(), &100.into()));
    let held = json!({ "id": body["reservation_id"] });
    buy(&entrance, &other, &[2], None).await.is(402, "insufficient_points");
    entrance.test.charge(buyer.id, 50).await;
    entrance.pay(&buyer, &held).await.good(201);
    // The wait was passed over at first: its alarm has to be set all the same.
    let free = async || {
        let seats =
            entrance.get(&format!("/v1/performances/{}/seats", entrance.test.performance), &other).await;
        seats.body["seats"][1]["status"] == "free"
    };
    until(10, "the other hold to run out", || async { free().await }).await;
    entrance.test.check_books().await;
}

#[tokio::test]
async fn hold_expired_before_payment_is_no_sale() {
    let flags = ["--hold-seconds", "1", "--payment-grace-seconds", "1", "--settle-ms", "30000"];
    let entrance = Entrance::with(&flags).await;
    let (buyer, operator) = (entrance.admitted(1_000).await, entrance.key(Role::Operator).await);
    let held_back = json!({ "reason": "the payment is never made" });
    entrance.post("/v1/ops/steps/points.deduct/pause", &operator, held_back).await.good(200);
    let refused = buy(&entrance, &buyer, &[1], None).await;
    let id = refused.is(410, "hold_expired")["reservation_id"].as_str().unwrap();
    let read = entrance.get(&format!("{RESERVATIONS}/{id}"), &buyer).await.good(200).clone();
    assert_eq!((&read["status"], &read["reason"]), (&json!("expired"), &json!("hold_expired")));
    assert_eq!(entrance.test.balance(buyer.id).await, 1_000);
    entrance.test.check_books().await;
}

#[tokio::test]
async fn cashier_sells_without_a_line() {
    let entrance = Entrance::start().await;
    let (buyer, cashier) = (entrance.user(1_000).await, entrance.key(Role::Cashier).await);
    let sold = buy(&entrance, &cashier, &[5], Some(buyer.id)).await.good(201).clone();
    assert_eq!(sold["status"], "confirmed");
    let own = entrance.get(RESERVATIONS, &buyer).await.good(200).clone();
    assert_eq!(own["items"][0]["id"], sold["id"]);
    assert_eq!(entrance.test.balance(buyer.id).await, 900);
    assert_eq!(buy(&entrance, &cashier, &[6], None).await.pointers(), ["/user_id"], "a buyer must be named");
    assert_eq!(buy(&entrance, &buyer, &[6], Some(buyer.id)).await.pointers(), ["/user_id"], "not by a user");
    let viewer = entrance.key(Role::Viewer).await;
    buy(&entrance, &viewer, &[6], Some(buyer.id)).await.is(403, "forbidden");
    buy(&entrance, &cashier, &[5], Some(buyer.id)).await.is(409, "seat_taken");
    entrance.test.check_books().await;
}
