//! Seats that staff keep from sale: blocked and released all or nothing, over by themselves, and sold to guests.

use boxoffice::ids;
use boxoffice::store::api_keys::Role;
use chrono::{TimeDelta, Utc};
use futures::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};

use crate::common::app::{add_performance_at, until};
use crate::common::http::{Caller, Entrance, Reply};

fn path(entrance: &Entrance, rest: &str) -> String {
    format!("/v1/admin/performances/{}/blocks{rest}", entrance.test.performance)
}

async fn block(entrance: &Entrance, admin: &Caller, seats: &[i64]) -> Reply {
    let body = json!({ "seats": seats, "reason": "for the sponsor" });
    entrance.post(&path(entrance, ""), admin, body).await
}

async fn statuses(entrance: &Entrance, buyer: &Caller) -> Vec<String> {
    let path = format!("/v1/performances/{}/seats", entrance.test.performance);
    let map = entrance.get(&path, buyer).await.good(200).clone();
    let seats = map["seats"].as_array().unwrap().iter();
    seats.map(|seat| seat["status"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn blocked_seats_are_kept_until_released() {
    let entrance = Entrance::start().await;
    let (admin, buyer) = (entrance.key(Role::Admin).await, entrance.admitted(0).await);
    let made = block(&entrance, &admin, &[3, 1, 2]).await.good(201).clone();
    assert_eq!((&made["seats"], &made["seats_blocked"]), (&json!([1, 2, 3]), &json!([1, 2, 3])));
    assert_eq!((&made["reason"], &made["blocked_by"]), (&json!("for the sponsor"), &json!("admin")));
    assert!(made["until"].is_null() && made["released_at"].is_null());
    assert_eq!(entrance.reserve(&buyer, &[3, 4]).await.is(409, "seat_taken")["seats"], json!([3]));
    let best = json!({ "performance_id": entrance.test.performance, "best": { "count": 2 } });
    let held = entrance.post("/v1/reservations", &buyer, best).await.good(201).clone();
    assert_eq!(held["seats"][0]["number"], 4, "blocked seats are not offered");
    until(20, "the map to show the block", || async { statuses(&entrance, &buyer).await[0] == "blocked" })
        .await;
    let only = format!("/v1/performances/{}/seats?status=blocked", entrance.test.performance);
    assert_eq!(entrance.get(&only, &buyer).await.good(200)["seats"].as_array().unwrap().len(), 3);

    let refused = block(&entrance, &admin, &[3, 4, 6]).await;
    assert_eq!(refused.is(409, "seat_taken")["seats"], json!([3, 4]), "all or nothing");
    assert_eq!(block(&entrance, &admin, &[6, 51]).await.is(422, "seat_unknown")["seats"], json!([51]));
    entrance.test.check_books().await;

    let own = path(&entrance, &format!("/{}", made["id"].as_str().unwrap()));
    for _ in 0..2 {
        let released = entrance.send(Method::DELETE, &own, &admin, None).await;
        assert_eq!(released.status, 204, "{released:?}");
    }
    let listed = entrance.get(&path(&entrance, ""), &admin).await.good(200)["items"].clone();
    assert_eq!((&listed[0]["id"], &listed[0]["seats_blocked"]), (&made["id"], &json!([])));
    assert!(listed[0]["released_at"].is_string() && listed[0]["released_by"] == "admin", "{listed}");
    entrance.reserve(&buyer, &[1, 2, 3]).await.good(201);
    entrance.test.check_books().await;
}

#[tokio::test]
async fn block_ends_by_itself() {
    let entrance = Entrance::start().await;
    let (admin, buyer) = (entrance.key(Role::Admin).await, entrance.admitted(0).await);
    let until_then = |seconds| Utc::now() + TimeDelta::seconds(seconds);
    let body = |until| json!({ "seats": [1], "reason": "press", "until": until });
    let past = entrance.post(&path(&entrance, ""), &admin, body(until_then(-5))).await;
    assert_eq!(past.pointers(), ["/until"]);
    let made = entrance.post(&path(&entrance, ""), &admin, body(until_then(2))).await.good(201).clone();
    until(20, "the block to end", || async { entrance.reserve(&buyer, &[1]).await.status == 201 }).await;
    assert!(Utc::now() >= made["until"].as_str().unwrap().parse::<chrono::DateTime<Utc>>().unwrap());
    entrance.test.check_books().await;
}

#[tokio::test]
async fn blocked_seats_are_sold_to_a_guest() {
    let entrance = Entrance::start().await;
    let admin = entrance.key(Role::Admin).await;
    let (guest, poor) = (entrance.user(1_000).await, entrance.user(50).await);
    let made = block(&entrance, &admin, &[1, 2, 3, 4, 5, 6, 7, 8]).await.good(201).clone();
    let sale = path(&entrance, &format!("/{}/sale", made["id"].as_str().unwrap()));
    let sell = async |body: Value| entrance.post(&sale, &admin, body).await;
    let sold = sell(json!({ "user_id": guest.id, "seats": [2, 1], "pay": true })).await.good(201).clone();
    assert_eq!((&sold["status"], &sold["amount"]), (&json!("confirmed"), &json!(200)));
    assert_eq!(entrance.test.balance(guest.id).await, 800);
    let mine = entrance.get("/v1/reservations", &guest).await.good(200)["items"][0].clone();
    assert_eq!(mine["tickets"].as_array().unwrap().len(), 2);

    let again = sell(json!({ "user_id": guest.id, "seats": [1] })).await;
    assert_eq!(again.is(409, "seat_taken")["seats"], json!([1]));
    sell(json!({ "user_id": guest.id, "seats": [9] })).await.is(422, "seat_unknown");
    let unpaid = sell(json!({ "user_id": poor.id, "seats": [3], "pay": true })).await;
    assert!(unpaid.is(402, "insufficient_points")["reservation_id"].is_string(), "the hold stays");
    // More than a buyer may have, and after them nothing is left.
    let held = sell(json!({ "user_id": guest.id })).await.good(201).clone();
    assert_eq!((&held["status"], held["seats"].as_array().unwrap().len()), (&json!("held"), 5));
    assert!(sell(json!({ "user_id": guest.id })).await.status == 409);
    entrance.cancel(&guest, &held).await.good(200);
    let listed = entrance.get(&path(&entrance, ""), &admin).await.good(200)["items"].clone();
    assert_eq!(listed[0]["seats_blocked"], json!([]), "what was sold once does not come back");
    entrance.test.check_books().await;
}

#[tokio::test]
async fn guests_may_buy_before_the_sale_opens() {
    let entrance = Entrance::start().await;
    let admin = entrance.key(Role::Admin).await;
    let (guest, now) = (entrance.user(1_000).await, Utc::now());
    let (starts, opens) = (now + TimeDelta::days(30), now + TimeDelta::days(1));
    let date = add_performance_at(&entrance.test.app, entrance.test.concert, 5, 100, starts, opens).await;
    let blocks = format!("/v1/admin/performances/{date}/blocks");
    let made =
        entrance.post(&blocks, &admin, json!({ "seats": [1], "reason": "crew" })).await.good(201).clone();
    let sale = format!("{blocks}/{}/sale", made["id"].as_str().unwrap());
    let body = json!({ "user_id": guest.id, "pay": true });
    let key = admin.with("idempotency-key", "one-guest");
    let sold = entrance.post(&sale, &key, body.clone()).await.good(201)["id"].clone();
    assert_eq!(entrance.post(&sale, &key, body).await.good(201)["id"], sold);
    entrance.test.check_books().await;
}

#[tokio::test]
async fn blocks_are_for_admins_and_checked() {
    let entrance = Entrance::start().await;
    let admin = entrance.key(Role::Admin).await;
    let id = ids::new();
    let body = json!({ "seats": [1], "reason": "x" });
    for role in [Role::Viewer, Role::Operator, Role::Cashier, Role::Support, Role::Gate] {
        let key = entrance.key(role).await;
        entrance.post(&path(&entrance, ""), &key, body.clone()).await.is(403, "forbidden");
        entrance.get(&path(&entrance, ""), &key).await.is(403, "forbidden");
        let sale = json!({ "user_id": id });
        entrance.post(&path(&entrance, &format!("/{id}/sale")), &key, sale).await.is(403, "forbidden");
        let deleted = entrance.send(Method::DELETE, &path(&entrance, &format!("/{id}")), &key, None).await;
        deleted.is(403, "forbidden");
    }
    entrance
        .post(&path(&entrance, ""), &entrance.user(0).await, body.clone())
        .await
        .is(401, "unauthenticated");
    for (bad, pointer) in [
        (json!({ "seats": [], "reason": "x" }), "/seats"),
        (json!({ "seats": [1, 1], "reason": "x" }), "/seats/1"),
        (json!({ "seats": [0], "reason": "x" }), "/seats/0"),
        (json!({ "seats": [1], "reason": " " }), "/reason"),
        (json!({ "seats": [1], "reason": "x", "untill": null }), "/untill"),
    ] {
        assert_eq!(entrance.post(&path(&entrance, ""), &admin, bad).await.pointers(), [pointer]);
    }
    let elsewhere = format!("/v1/admin/performances/{id}/blocks");
    entrance.post(&elsewhere, &admin, body).await.is(404, "not_found");
    let gone = path(&entrance, &format!("/{id}"));
    entrance.send(Method::DELETE, &gone, &admin, None).await.is(404, "not_found");
    entrance.post(&format!("{gone}/sale"), &admin, json!({ "user_id": id })).await.is(404, "not_found");
}

#[tokio::test(flavor = "multi_thread")]
async fn blocks_and_buyers_never_share_a_seat() {
    let entrance = Entrance::start().await;
    let admin = entrance.key(Role::Admin).await;
    let buyers = join_all((0..10).map(|_| entrance.admitted(0))).await;
    let (entrance, admin) = (&entrance, &admin);
    let blocks = (0..10).map(async |at: i64| {
        let reply = block(entrance, admin, &[1 + at * 3, 2 + at * 3]).await;
        (reply.status == 201).then_some([1 + at * 3, 2 + at * 3])
    });
    let holds = buyers.iter().zip(0i64..).map(async |(buyer, at)| {
        let reply = entrance.reserve(buyer, &[2 + at * 3, 3 + at * 3]).await;
        (reply.status == 201).then_some([2 + at * 3, 3 + at * 3])
    });
    let (blocks, holds) = tokio::join!(join_all(blocks), join_all(holds));
    for (blocked, held) in blocks.iter().zip(&holds) {
        // A hold that is not decided in time is answered 202, so neither may be seen.
        assert!(blocked.is_none() || held.is_none(), "{blocked:?} and {held:?} share a seat");
    }
    entrance.test.check_books().await;
}
