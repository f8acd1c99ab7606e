//! Reserving over HTTP, and reading reservations: what each answers, and every code it refuses with.

use std::collections::BTreeMap;
use std::time::Duration;

use boxoffice::ids;
use chrono::{TimeDelta, Utc};
use futures::future::join_all;
use serde_json::{Value, json};
use tokio::time::sleep;

use super::common::app::{add_performance_at, until};
use super::common::http::{Caller, Entrance, Reply};

#[tokio::test]
async fn hold_pay_and_read_it_back() {
    let entrance = Entrance::start().await;
    let buyer = entrance.admitted(1_000).await;
    let held = entrance.reserve(&buyer, &[2, 1]).await.good(201).clone();
    assert_eq!(held["status"], "held");
    assert_eq!(held["performance_id"], json!(entrance.test.performance));
    assert_eq!(held["amount"], 200);
    assert_eq!(held["seats"][0], json!({ "number": 1, "section": "A", "price": 100 }));
    assert!((290..=300).contains(&held["expires_in_seconds"].as_i64().unwrap()), "{held}");
    assert!(held["payment"].is_null() && held["tickets"] == json!([]) && held["reason"].is_null());

    let paid = entrance.pay(&buyer, &held).await.good(201).clone();
    assert_eq!((&paid["status"], &paid["amount"]), (&"succeeded".into(), &200.into()));
    assert_eq!(paid["reservation_id"], held["id"]);
    let seats: Vec<&Value> =
        paid["tickets"].as_array().unwrap().iter().map(|ticket| &ticket["seat"]).collect();
    assert_eq!(seats, [1, 2]);
    let again = entrance.pay(&buyer, &held).await;
    assert_eq!(again.good(200), &paid, "again: 200, the same body");
    assert_eq!(entrance.test.balance(buyer.id).await, 800);

    let path = format!("/v1/reservations/{}", held["id"].as_str().unwrap());
    let read = entrance.get(&path, &buyer).await.good(200).clone();
    assert_eq!(read["status"], "confirmed");
    assert_eq!(read["payment"]["id"], paid["payment_id"]);
    assert_eq!(read["tickets"][0]["status"], "valid");
    let listed = entrance.get("/v1/reservations", &buyer).await.good(200).clone();
    assert_eq!(listed, json!({ "items": [read], "next_cursor": null }));

    let stranger = entrance.user(0).await;
    entrance.get(&path, &stranger).await.is(404, "not_found");
    entrance.pay(&stranger, &held).await.is(404, "not_found");
    entrance.cancel(&stranger, &held).await.is(404, "not_found");
    entrance.test.check_books().await;
}

#[tokio::test]
async fn taken_seats_are_named_and_none_held() {
    let entrance = Entrance::start().await;
    let (first, second) = (entrance.admitted(0).await, entrance.admitted(0).await);
    entrance.reserve(&first, &[1, 2, 3]).await.good(201);
    let refused = entrance.reserve(&second, &[3, 4, 2]).await;
    assert_eq!(refused.is(409, "seat_taken")["seats"], json!([2, 3]));
    entrance.reserve(&second, &[4]).await.good(201);
}

#[tokio::test]
async fn ones_own_hold_is_given_again() {
    let entrance = Entrance::start().await;
    let buyer = entrance.admitted(0).await;
    let held = entrance.reserve(&buyer, &[1, 2]).await.good(201).clone();
    let again = entrance.reserve(&buyer, &[2, 1]).await;
    assert_eq!(again.good(200)["id"], held["id"]);
    entrance.reserve(&buyer, &[1]).await.is(409, "seat_taken");
    entrance.reserve(&buyer, &[1, 2, 3]).await.is(409, "seat_taken");
}

/// Status and code of an answer; of a 202 what it becomes.
async fn outcome(entrance: &Entrance, buyer: &Caller, reply: Reply) -> (u16, String) {
    if reply.status != 202 {
        return (reply.status, reply.body["code"].as_str().unwrap_or_default().to_owned());
    }
    let path = reply.headers["location"].to_str().unwrap().to_owned();
    let read = async || entrance.get(&path, buyer).await.good(200).clone();
    until(20, "a reservation to be settled", || async { read().await["status"] != "pending" }).await;
    let settled = read().await;
    match settled["status"].as_str() {
        Some("held") => (201, String::new()),
        _ => (409, settled["reason"].as_str().unwrap_or_default().to_owned()),
    }
}

#[tokio::test]
async fn one_of_a_thousand_gets_the_seat() {
    let entrance = Entrance::start().await;
    let buyers = join_all((0..100).map(|_| entrance.admitted(0))).await;
    let tries = (0..1_000).map(async |at| {
        let buyer = buyers[at % 100].with("idempotency-key", &format!("try-{at}"));
        let mut reply = entrance.reserve(&buyer, &[7]).await;
        // On a busy machine some are refused for overload; clients send them again under their keys.
        for _ in 0..100 {
            if reply.status != 503 && reply.body["code"] != "request_in_progress" {
                break;
            }
            sleep(Duration::from_millis(200)).await;
            reply = entrance.reserve(&buyer, &[7]).await;
        }
        outcome(&entrance, &buyer, reply).await
    });
    let mut counts: BTreeMap<(u16, String), usize> = BTreeMap::new();
    for outcome in join_all(tries).await {
        *counts.entry(outcome).or_default() += 1;
    }
    // Nine more requests of the winner's own may come after the hold, and get it.
    let won = counts.remove(&(201, String::new())).unwrap_or(0);
    let again = counts.remove(&(200, String::new())).unwrap_or(0);
    assert_eq!(won, 1, "{counts:?}");
    assert!(again <= 9);
    assert_eq!(counts, BTreeMap::from([((409, "seat_taken".to_owned()), 999 - again)]));
}

#[tokio::test]
async fn what_cannot_be_held_says_why() {
    let entrance = Entrance::start().await;
    let buyer = entrance.admitted(0).await;
    assert_eq!(entrance.reserve(&buyer, &[50, 51]).await.is(422, "seat_unknown")["seats"], json!([51]));
    entrance.reserve(&buyer, &[3_000_000_000]).await.is(422, "seat_unknown");
    assert_eq!(entrance.reserve(&buyer, &[]).await.pointers(), ["/seats"]);
    assert_eq!(entrance.reserve(&buyer, &[1, 1]).await.pointers(), ["/seats/1"]);
    entrance.reserve(&buyer, &[1, 2, 3, 4, 5, 6, 7]).await.is(422, "too_many_seats");
    entrance.reserve(&buyer, &[1, 2, 3, 4, 5, 6]).await.good(201);
    entrance.reserve(&buyer, &[11, 12, 13, 14, 15, 16]).await.good(201);
    entrance.reserve(&buyer, &[20]).await.is(422, "too_many_seats");

    let unknown = json!({ "performance_id": ids::new(), "seats": [1] });
    entrance.post("/v1/reservations", &buyer, unknown).await.is(404, "not_found");
    let now = Utc::now();
    let (starts, opens) = (now + TimeDelta::days(30), now + TimeDelta::days(1));
    let later = add_performance_at(&entrance.test.app, entrance.test.concert, 5, 10, starts, opens).await;
    let early = json!({ "performance_id": later, "seats": [1] });
    entrance.post("/v1/reservations", &buyer, early).await.is(422, "sale_not_open");
}

#[tokio::test]
async fn requests_that_are_sent_again_book_once() {
    let entrance = Entrance::start().await;
    let buyer = entrance.admitted(1_000).await;
    let order = |seats: &[i64]| json!({ "performance_id": entrance.test.performance, "seats": seats });
    let post = async |key: &str, body: Value| {
        entrance.post("/v1/reservations", &buyer.with("idempotency-key", key), body).await
    };
    let held = post("one", order(&[1])).await;
    let again = post("one", order(&[1])).await;
    assert_eq!((again.status, &again.body), (201, held.good(201)));
    assert_eq!(again.headers["idempotent-replayed"], "true");
    post("one", order(&[2])).await.is(422, "idempotency_key_reused");

    let other = entrance.admitted(0).await.with("idempotency-key", "theirs");
    let refused = entrance.post("/v1/reservations", &other, order(&[1])).await;
    refused.is(409, "seat_taken");
    entrance.cancel(&buyer, &held.body).await.good(200);
    let replayed = entrance.post("/v1/reservations", &other, order(&[1])).await;
    assert_eq!(replayed.is(409, "seat_taken"), &refused.body);
    assert_eq!(replayed.headers["idempotent-replayed"], "true");

    // What was refused for a passing reason is tried anew under the same key.
    post("late", order(&[99])).await.is(422, "seat_unknown");
    post("late", order(&[9])).await.good(201);

    let held = post("two", order(&[3])).await.good(201).clone();
    let path = format!("/v1/reservations/{}/payment", held["id"].as_str().unwrap());
    let keyed = buyer.with("idempotency-key", "pay");
    let paid = entrance.post(&path, &keyed, json!({})).await;
    let again: Reply = entrance.post(&path, &keyed, json!({})).await;
    assert_eq!((again.status, &again.body), (201, paid.good(201)));
    assert_eq!(again.headers["idempotent-replayed"], "true");
}

#[tokio::test]
async fn unsettled_request_gets_a_202_with_its_location() {
    let entrance = Entrance::with(&["--settle-ms", "0"]).await;
    let buyer = entrance.admitted(1_000).await.with("idempotency-key", "slow");
    let reply = entrance.reserve(&buyer, &[1]).await;
    if reply.status != 202 {
        // It may have settled even so.
        assert_eq!(reply.good(201)["status"], "held");
        return;
    }
    assert_eq!(reply.headers["retry-after"], "1");
    let location = reply.headers["location"].to_str().unwrap().to_owned();
    assert_eq!(location, format!("/v1/reservations/{}", reply.body["id"].as_str().unwrap()));
    until(10, "the hold", || async { entrance.get(&location, &buyer).await.body["status"] == "held" }).await;
    let again = entrance.reserve(&buyer, &[1]).await;
    assert_eq!(
        (again.status, &again.body["id"]),
        (201, &reply.body["id"]),
        "the same reservation: {again:#?}"
    );
}

#[tokio::test]
async fn lists_of_reservations_are_cut_into_pages() {
    let entrance = Entrance::start().await;
    let buyer = entrance.admitted(0).await;
    let mut made = Vec::new();
    for seat in 1..=5 {
        made.push(entrance.reserve(&buyer, &[seat]).await.good(201)["id"].clone());
    }
    made.reverse();
    let (mut seen, mut path) = (Vec::new(), "/v1/reservations?limit=2".to_owned());
    loop {
        let page = entrance.get(&path, &buyer).await.good(200).clone();
        seen.extend(page["items"].as_array().unwrap().iter().map(|item| item["id"].clone()));
        let Some(cursor) = page["next_cursor"].as_str() else {
            break;
        };
        path = format!("/v1/reservations?limit=2&cursor={cursor}");
    }
    assert_eq!(seen, made, "newest first, each once");
    for (query, pointer) in [
        ("limit=0", "/limit"),
        ("limit=101", "/limit"),
        ("limit=x", "/limit"),
        ("cursor=x", "/cursor"),
        ("colour=1", "/colour"),
    ] {
        let reply = entrance.get(&format!("/v1/reservations?{query}"), &buyer).await;
        assert_eq!(reply.pointers(), [pointer], "{query}");
    }
}
