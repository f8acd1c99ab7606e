//! How often one user or one address may join a line, and how many holds of a user may end without a payment.

use serde_json::json;

use crate::common::app::{add_performance_at, until};
use crate::common::http::{Caller, Entrance, Reply};

fn seconds(reply: &Reply) -> u64 {
    reply.headers["retry-after"].to_str().unwrap().parse().unwrap()
}

#[tokio::test]
async fn user_who_joins_too_often_gets_retry_after() {
    let entrance = Entrance::with(&["--queue-joins-per-minute", "3"]).await;
    let (hasty, calm) = (entrance.user(0).await, entrance.user(0).await);
    let line = format!("/v1/concerts/{}/queue-tokens", entrance.test.concert);
    entrance.post(&line, &hasty, json!({})).await.good(201);
    for _ in 0..2 {
        entrance.post(&line, &hasty, json!({})).await.good(200);
    }
    let refused = entrance.post(&line, &hasty, json!({})).await;
    let body = refused.is(429, "rate_limited");
    assert_eq!(body["limit"], 3);
    assert!(body["detail"].as_str().unwrap().contains("A user may ask for a place in line 3 times a minute"));
    assert!((10..=20).contains(&seconds(&refused)), "{refused:?}");
    entrance.post(&line, &calm, json!({})).await.good(201);
}

#[tokio::test]
async fn address_limit_trusts_only_configured_proxies() {
    let from = |caller: &Caller, address: &str| caller.with("x-forwarded-for", address);
    let flags = ["--queue-joins-per-address-per-minute", "2"];
    let direct = Entrance::with(&flags).await;
    let line = format!("/v1/concerts/{}/queue-tokens", direct.test.concert);
    for number in 0..2 {
        let user = from(&direct.user(0).await, &format!("198.51.100.{number}"));
        direct.post(&line, &user, json!({})).await.good(201);
    }
    let user = from(&direct.user(0).await, "198.51.100.77");
    let refused = direct.post(&line, &user, json!({})).await;
    assert!(refused.is(429, "rate_limited")["detail"].as_str().unwrap().contains("An address may ask"));

    let flags = [&flags[..], &["--trusted-proxies", "127.0.0.1,10.0.0.0/8"]].concat();
    let behind = direct.restarted(&flags).await;
    for number in 0..4 {
        let user = from(&behind.user(0).await, &format!("203.0.113.9, 198.51.100.{number}, 10.0.0.3"));
        behind.post(&line, &user, json!({})).await.good(201);
    }
    for status in [201, 429] {
        let user = from(&behind.user(0).await, "198.51.100.0");
        assert_eq!(behind.post(&line, &user, json!({})).await.status, status);
    }
}

#[tokio::test]
async fn user_with_too_many_expired_holds_must_wait() {
    let flags = ["--max-expired-holds", "2", "--hold-seconds", "1", "--payment-grace-seconds", "1"];
    let entrance = Entrance::with(&flags).await;
    let (idle, other) = (entrance.admitted(0).await, entrance.admitted(0).await);
    for seat in [1, 2] {
        entrance.reserve(&idle, &[seat]).await.good(201);
    }
    until(20, "the holds to run out", || async {
        let mine = entrance.get("/v1/reservations", &idle).await.body;
        mine["items"].as_array().unwrap().iter().all(|one| one["status"] == "expired")
    })
    .await;
    let refused = entrance.reserve(&idle, &[3]).await;
    let body = refused.is(429, "rate_limited");
    assert_eq!(body["limit"], 2);
    assert!(body["detail"].as_str().unwrap().starts_with("2 of your holds"), "{body}");
    assert!((3_500..=3_600).contains(&seconds(&refused)), "{refused:?}");
    assert_eq!(body["retry_after_seconds"], seconds(&refused));
    let mine = entrance.get("/v1/reservations?limit=1", &idle).await.good(200).clone();
    assert_eq!(
        (&mine["items"][0]["status"], &mine["items"][0]["reason"]),
        (&"failed".into(), &"rate_limited".into())
    );
    entrance.reserve(&other, &[3]).await.good(201);
    entrance.test.check_books().await;
}

#[tokio::test]
async fn ended_holds_are_limited_per_concert() {
    let entrance = Entrance::with(&["--max-expired-holds", "3"]).await;
    let (buyer, other) = (entrance.admitted(1_000).await, entrance.admitted(0).await);
    let (test, now) = (&entrance.test, chrono::Utc::now());
    let (starts, opens) = (now + chrono::TimeDelta::days(30), now - chrono::TimeDelta::hours(1));
    let second = add_performance_at(&test.app, test.concert, 5, 100, starts, opens).await;
    // Refused holds do not count, those of another date of the concert do.
    entrance.reserve(&other, &[9]).await.good(201);
    for _ in 0..4 {
        entrance.reserve(&buyer, &[9]).await.is(409, "seat_taken");
    }
    for (performance, seat) in [(test.performance, 1), (test.performance, 2), (second, 1)] {
        let order = json!({ "performance_id": performance, "seats": [seat] });
        let held = entrance.post("/v1/reservations", &buyer, order).await.good(201).clone();
        entrance.cancel(&buyer, &held).await.good(200);
    }
    let refused = entrance.reserve(&buyer, &[3]).await;
    let body = refused.is(429, "rate_limited");
    assert_eq!(body["limit"], 3);
    assert!((3_500..=3_600).contains(&seconds(&refused)), "{refused:?}");
    let until: chrono::DateTime<chrono::Utc> = body["until"].as_str().unwrap().parse().unwrap();
    assert!(until > chrono::Utc::now() + chrono::TimeDelta::minutes(50), "{body}");
    assert!(body["detail"].as_str().unwrap().starts_with("3 of your holds for this concert"), "{body}");
    // An hour after the first of them, the next one is allowed.
    let back = "update reservations set updated_at = updated_at - interval '1 hour' where id =
                (select id from reservations where user_id = $1 and status = 'cancelled' order by updated_at limit 1)";
    sqlx::query(back).bind(buyer.id).execute(&entrance.pool).await.unwrap();
    entrance.reserve(&buyer, &[3]).await.good(201);
    test.check_books().await;
}

#[tokio::test]
async fn cancelled_seats_go_to_others_first() {
    let entrance = Entrance::start().await;
    let (buyer, other) = (entrance.admitted(0).await, entrance.admitted(0).await);
    let seats = [1, 2, 3, 4, 5, 6];
    let held = entrance.reserve(&buyer, &seats).await.good(201).clone();
    entrance.cancel(&buyer, &held).await.good(200);
    let refused = entrance.reserve(&buyer, &seats).await;
    let body = refused.is(409, "seat_taken");
    assert_eq!((&body["seats"], &body["just_cancelled"]), (&json!(seats), &json!(seats)));
    entrance.reserve(&other, &[1, 2, 3]).await.good(201);
    until(20, "the seats to be offered again", || async {
        entrance.reserve(&buyer, &[4, 5]).await.status == 201
    })
    .await;
    entrance.test.check_books().await;
}
