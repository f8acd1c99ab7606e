//! Points over HTTP, and requests that are sent again.

use boxoffice::store::api_keys::Role;
use futures::future::join_all;
use serde_json::json;

use super::common::app::until;
use super::common::http::{Caller, Entrance};

const CHARGES: &str = "/v1/points/charges";

#[tokio::test]
async fn charge_adds_to_balance_and_ledger() {
    let entrance = Entrance::start().await;
    let user = entrance.user(0).await;
    assert_eq!(entrance.get("/v1/points", &user).await.good(200), &json!({ "balance": 0 }));
    let mut entries = Vec::new();
    for (at, amount) in [10, 20, 30].into_iter().enumerate() {
        let user = user.with("idempotency-key", &format!("charge-{at}"));
        let reply = entrance.post(CHARGES, &user, json!({ "amount": amount })).await;
        entries.push(reply.good(201)["entry_id"].clone());
    }
    assert_eq!(entrance.get("/v1/points", &user).await.good(200), &json!({ "balance": 60 }));

    let first = entrance.get("/v1/points/entries?limit=2", &user).await.good(200).clone();
    let ids: Vec<_> = first["items"].as_array().unwrap().iter().map(|entry| entry["id"].clone()).collect();
    assert_eq!(ids, [entries[2].clone(), entries[1].clone()], "newest first");
    let newest = &first["items"][0];
    assert_eq!(
        (&newest["kind"], &newest["amount"], &newest["balance"]),
        (&"charge".into(), &30.into(), &60.into())
    );
    assert!(newest["reservation_id"].is_null() && newest["created_at"].is_string());
    let path = format!("/v1/points/entries?limit=2&cursor={}", first["next_cursor"].as_str().unwrap());
    let second = entrance.get(&path, &user).await.good(200).clone();
    assert_eq!((&second["items"][0]["id"], &second["next_cursor"]), (&entries[0], &json!(null)));
}

#[tokio::test]
async fn amounts_have_bounds() {
    let entrance = Entrance::start().await;
    let user = entrance.user(0).await.with("idempotency-key", "k");
    for amount in [json!(0), json!(-1), json!(10_000_001), json!(1.5), json!("5"), json!(null), json!(1e30)] {
        let reply = entrance.post(CHARGES, &user, json!({ "amount": amount })).await;
        assert_eq!(reply.pointers(), ["/amount"], "{amount}");
    }
    assert_eq!(entrance.post(CHARGES, &user, json!({})).await.pointers(), [""]);
    let reply = entrance.post(CHARGES, &user, json!({ "amount": 1, "user_id": user.id })).await;
    assert_eq!(reply.pointers(), ["/user_id"], "only cashiers charge for others");
    entrance.post(CHARGES, &user, json!({ "amount": 10_000_000 })).await.good(201);

    let cashier = entrance.key(Role::Cashier).await.with("idempotency-key", "k");
    assert_eq!(entrance.post(CHARGES, &cashier, json!({ "amount": 1 })).await.pointers(), ["/user_id"]);
}

#[tokio::test]
async fn a_balance_has_a_limit() {
    let entrance = Entrance::start().await;
    let user = entrance.user(999_999_999_999).await;
    let charge = async |key: &str, amount: i64| {
        entrance.post(CHARGES, &user.with("idempotency-key", key), json!({ "amount": amount })).await
    };
    charge("one", 2).await.is(422, "balance_limit");
    charge("one", 1).await.good(201);
    charge("two", 1).await.is(422, "balance_limit");
    assert_eq!(entrance.test.balance(user.id).await, 1_000_000_000_000);
}

#[tokio::test]
async fn a_charge_that_is_sent_again_charges_once() {
    let entrance = Entrance::start().await;
    let user = entrance.user(0).await;
    entrance.post(CHARGES, &user, json!({ "amount": 5 })).await.is(422, "idempotency_key_required");
    let keyed = user.with("idempotency-key", "once");
    let first = entrance.post(CHARGES, &keyed, json!({ "amount": 5 })).await;
    assert!(!first.headers.contains_key("idempotent-replayed"));
    let again = entrance.post(CHARGES, &keyed, json!({ "amount": 5 })).await;
    assert_eq!(again.good(201), first.good(201));
    assert_eq!(again.headers["idempotent-replayed"], "true");
    entrance.post(CHARGES, &keyed, json!({ "amount": 6 })).await.is(422, "idempotency_key_reused");
    assert_eq!(entrance.test.balance(user.id).await, 5);

    let other = entrance.user(0).await.with("idempotency-key", "once");
    entrance.post(CHARGES, &other, json!({ "amount": 6 })).await.good(201);
    let long = user.with("idempotency-key", &"k".repeat(256));
    let reply = entrance.post(CHARGES, &long, json!({ "amount": 5 })).await;
    assert_eq!(reply.pointers(), ["/Idempotency-Key"]);
}

#[tokio::test]
async fn of_many_requests_under_one_key_one_charges() {
    let entrance = Entrance::start().await;
    let user = entrance.user(0).await.with("idempotency-key", "storm");
    let replies = join_all((0..40).map(|_| entrance.post(CHARGES, &user, json!({ "amount": 5 })))).await;
    let mut bodies = Vec::new();
    for reply in &replies {
        if reply.status == 409 {
            reply.is(409, "request_in_progress");
        } else {
            bodies.push(reply.good(201).clone());
        }
    }
    bodies.dedup();
    assert_eq!(bodies.len(), 1, "one entry for all requests: {bodies:?}");
    assert_eq!(entrance.test.balance(user.id).await, 5);
}

#[tokio::test]
async fn abandoned_claim_is_taken_over_with_its_effect() {
    let entrance = Entrance::start().await;
    let user = entrance.user(0).await.with("idempotency-key", "crash");
    entrance.post(CHARGES, &user, json!({ "amount": 5 })).await.good(201);
    // As if the process had died after the charge, before its answer was saved, more than five seconds ago.
    let forget = "update idempotency_keys set status = null, body = null, locked_until = clock_timestamp()";
    sqlx::query(forget).execute(&entrance.pool).await.unwrap();
    let again = entrance.post(CHARGES, &user, json!({ "amount": 5 })).await;
    assert_eq!(again.good(201)["balance"], 5);
    assert_eq!(entrance.test.balance(user.id).await, 5);
    let saved = "select count(*) from idempotency_keys where status = 201";
    until(10, "the answer to be saved again", || async {
        sqlx::query_scalar::<_, i64>(saved).fetch_one(&entrance.pool).await.unwrap() == 1
    })
    .await;
    // As if it were still at work.
    let lock = "update idempotency_keys set status = null, body = null, locked_until = clock_timestamp() + interval '1 min'";
    sqlx::query(lock).execute(&entrance.pool).await.unwrap();
    entrance.post(CHARGES, &user, json!({ "amount": 5 })).await.is(409, "request_in_progress");
}

#[tokio::test]
async fn old_keys_are_forgotten() {
    let entrance = Entrance::start().await;
    let user = entrance.user(0).await.with("idempotency-key", "old");
    entrance.post(CHARGES, &user, json!({ "amount": 5 })).await.good(201);
    let pool = &entrance.pool;
    let now = chrono::Utc::now();
    assert_eq!(
        boxoffice::store::idempotency::purge(pool, now - chrono::TimeDelta::hours(1)).await.unwrap(),
        0
    );
    assert_eq!(
        boxoffice::store::idempotency::purge(pool, now + chrono::TimeDelta::hours(1)).await.unwrap(),
        1
    );
    entrance.post(CHARGES, &user, json!({ "amount": 7 })).await.good(201);
    assert_eq!(entrance.test.balance(user.id).await, 12);
}

#[tokio::test]
async fn many_charges_at_once_all_count() {
    let entrance = Entrance::start().await;
    let user = entrance.user(0).await;
    let charges = (0..100).map(|at| {
        let user = user.with("idempotency-key", &format!("charge-{at}"));
        let entrance = &entrance;
        async move { entrance.post(CHARGES, &user, json!({ "amount": 3 })).await.good(201).clone() }
    });
    join_all(charges).await;
    assert_eq!(entrance.test.balance(user.id).await, 300);
}

#[tokio::test]
async fn local_mode_makes_users_with_tokens() {
    let entrance = Entrance::start().await;
    let anonymous = Caller::anonymous().with("idempotency-key", "me");
    let made = entrance.post("/v1/users", &anonymous, json!({ "name": "Ada" })).await.good(201).clone();
    assert_eq!(made["name"], "Ada");
    let user =
        Caller::new(made["id"].as_str().unwrap().parse().unwrap(), made["access_token"].as_str().unwrap());
    entrance.get("/v1/points", &user).await.good(200);
    // The same key does not prove the same caller: the second request makes another user, and nothing was saved.
    let other = entrance.post("/v1/users", &anonymous, json!({ "name": "Ada" })).await.good(201).clone();
    assert_ne!(other["id"], made["id"]);
    assert_ne!(other["access_token"], made["access_token"]);
    let saved = "select count(*) from idempotency_keys where route like '%/users' or body::text like '%access_token%'";
    assert_eq!(sqlx::query_scalar::<_, i64>(saved).fetch_one(&entrance.pool).await.unwrap(), 0);
    for name in ["", &"x".repeat(101), "nul\u{0}"] {
        let reply = entrance.post("/v1/users", &Caller::anonymous(), json!({ "name": name })).await;
        assert_eq!(reply.pointers()[0], "/name", "{name:?}");
    }
}
