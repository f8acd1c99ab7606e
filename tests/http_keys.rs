//! Requests under an `Idempotency-Key`, hundreds at once: their keys are claimed and their answers saved in batches.

use std::sync::Arc;
use std::time::Duration;

use boxoffice::store::api_keys::Role;
use boxoffice::store::idempotency::{self, Asked, Claim, End, Ended, Known};
use boxoffice::{ids, store};
use futures::StreamExt;
use futures::future::join_all;
use futures::stream::FuturesUnordered;
use reqwest::Method;
use serde_json::{Value, json};
use sqlx::PgPool;
use uuid::Uuid;

use super::common::app::{add_performance, until};
use super::common::fresh_database;
use super::common::http::{Caller, Entrance, Reply};

const MANY: usize = 300;

/// A counter that sells many seats and waits long enough to answer every request with its outcome.
struct Counter {
    entrance: Entrance,
    cashier: Caller,
    performance: Uuid,
    buyer: Uuid,
}

impl Counter {
    async fn open() -> Self {
        let entrance = Entrance::with(&["--settle-ms", "30000"]).await;
        let cashier = entrance.key(Role::Cashier).await;
        let performance = add_performance(&entrance.test.app, entrance.test.concert, MANY as i32, 100).await;
        Self { entrance, cashier, performance, buyer: ids::new() }
    }

    async fn sell(&self, key: &str, seat: usize, buyer: Uuid) -> Reply {
        let body = json!({ "performance_id": self.performance, "seats": [seat], "user_id": buyer });
        self.entrance.post("/v1/reservations", &self.cashier.with("idempotency-key", key), body).await
    }

    async fn count(&self, what: &'static str) -> i64 {
        sqlx::query_scalar(what).fetch_one(&self.entrance.pool).await.unwrap()
    }

    async fn reservations(&self) -> i64 {
        self.count("select count(*) from reservations").await
    }
}

/// What is saved under the only key: the status of its answer, and whether its claim ended before its lock ran out.
async fn saved(pool: &PgPool) -> Option<(Option<i16>, bool)> {
    let query = "select status, locked_until - created_at < interval '4.5 s' from idempotency_keys";
    sqlx::query_as(query).fetch_optional(pool).await.unwrap()
}

/// Sends a request and hangs up after half a second, while a lock in the database still holds it up.
async fn hang_up(entrance: &Entrance, path: &str, caller: &Caller, body: &Value) {
    let request = entrance.request(Method::POST, path, caller).json(body);
    assert!(request.timeout(Duration::from_millis(500)).send().await.unwrap_err().is_timeout());
}

#[tokio::test]
async fn request_continues_after_a_client_disconnects() {
    const CHARGES: &str = "/v1/points/charges";
    let entrance = Entrance::start().await;
    let user = entrance.user(0).await.with("idempotency-key", "patient");
    let body = json!({ "amount": 5 });
    let mut lock = entrance.pool.begin().await.unwrap();
    sqlx::query("lock table accounts in exclusive mode").execute(&mut *lock).await.unwrap();
    hang_up(&entrance, CHARGES, &user, &body).await;
    entrance.post(CHARGES, &user, body.clone()).await.is(409, "request_in_progress");
    lock.rollback().await.unwrap();
    // The claim of a charge comes with its answer, so it has no lock.
    until(20, "the answer to be saved", || async { saved(&entrance.pool).await == Some((Some(201), true)) })
        .await;
    let again = entrance.post(CHARGES, &user, body).await;
    assert_eq!(
        (again.good(201)["balance"].as_i64(), &again.headers["idempotent-replayed"]),
        (Some(5), &"true".parse().unwrap())
    );
    assert_eq!(entrance.test.balance(user.id).await, 5);
}

#[tokio::test]
async fn claim_ends_when_its_client_disconnects() {
    let entrance = Entrance::with(&["--settle-ms", "1500"]).await;
    let user = entrance.admitted(0).await.with("idempotency-key", "patient");
    let body = json!({ "performance_id": entrance.test.performance, "seats": [1] });
    let mut lock = entrance.pool.begin().await.unwrap();
    sqlx::query("lock table seats in exclusive mode").execute(&mut *lock).await.unwrap();
    hang_up(&entrance, "/v1/reservations", &user, &body).await;
    until(20, "the claim to end", || async { saved(&entrance.pool).await == Some((None, true)) }).await;
    lock.rollback().await.unwrap();
    let again = entrance.post("/v1/reservations", &user, body).await;
    assert!([201, 202].contains(&again.status), "{again:?}");
    let reservations = "select count(*) from reservations";
    let count = sqlx::query_scalar::<_, i64>(reservations).fetch_one(&entrance.pool).await.unwrap();
    assert_eq!(count, 1);
}

/// The one reservation in these replies; the other replies say that the request is being worked on.
#[track_caller]
fn only(replies: &[Reply]) -> &Value {
    let mut told = Vec::new();
    for reply in replies {
        match reply.status {
            409 => _ = reply.is(409, "request_in_progress"),
            _ => told.push(reply.good(201)),
        }
    }
    assert!(told.iter().all(|body| *body == told[0]), "{told:#?}");
    told.first().expect("one of them did the work")
}

#[tokio::test]
async fn concurrent_keys_have_one_effect_and_replay_answers() {
    let counter = Counter::open().await;
    let buyers: Vec<Uuid> = (0..MANY).map(|_| ids::new()).collect();
    let all = || {
        let sell = |(at, buyer): (usize, &Uuid)| {
            let (counter, buyer) = (&counter, *buyer);
            async move { counter.sell(&format!("order-{at}"), at + 1, buyer).await }
        };
        join_all(buyers.iter().enumerate().map(sell))
    };
    let first = all().await;
    for (at, reply) in first.iter().enumerate() {
        assert_eq!(reply.good(201)["seats"][0]["number"], json!(at + 1));
        assert!(!reply.headers.contains_key("idempotent-replayed"));
    }
    // Some of these come before the answers are written.
    for (again, first) in all().await.iter().zip(&first) {
        assert_eq!(again.good(201), &first.body);
        assert_eq!(again.headers["idempotent-replayed"], "true");
    }
    let saved = "select count(*) from idempotency_keys where status = 201 and body is not null";
    until(20, "all answers to be saved", || async { counter.count(saved).await == MANY as i64 }).await;
    for (again, first) in all().await.iter().zip(&first) {
        assert_eq!(again.good(201), &first.body);
        assert_eq!(again.headers["idempotent-replayed"], "true");
    }
    assert_eq!(counter.reservations().await, MANY as i64);
}

#[tokio::test]
async fn hundreds_of_repeats_have_one_effect() {
    let counter = Counter::open().await;
    let replies = join_all((0..MANY).map(|_| counter.sell("storm", 1, counter.buyer))).await;
    let sold = only(&replies).clone();
    assert_eq!(counter.reservations().await, 1);
    let again = counter.sell("storm", 1, counter.buyer).await;
    assert_eq!(again.good(201), &sold);
    assert_eq!(again.headers["idempotent-replayed"], "true");

    // With two bodies one of them has the key, and requests with the other are refused.
    let replies = join_all((0..MANY).map(|at| counter.sell("mixed", 2 + at % 2, counter.buyer))).await;
    let (even, odd): (Vec<_>, Vec<_>) = replies.into_iter().enumerate().partition(|(at, _)| at % 2 == 0);
    let reused = |replies: &[(usize, Reply)]| {
        let code = |reply: &Reply| reply.body["code"] == "idempotency_key_reused";
        replies.iter().all(|(_, reply)| code(reply) && reply.status == 422)
    };
    assert!(reused(&even) != reused(&odd), "one body wins: {even:#?} {odd:#?}");
    let winners: Vec<Reply> =
        if reused(&odd) { even } else { odd }.into_iter().map(|(_, reply)| reply).collect();
    only(&winners);
    assert_eq!(counter.reservations().await, 2);
}

#[tokio::test]
async fn answers_given_during_a_stop_are_saved() {
    let Counter { entrance, cashier, performance, .. } = Counter::open().await;
    let mut sales: FuturesUnordered<_> = (1..=MANY)
        .map(|seat| {
            let body = json!({ "performance_id": performance, "seats": [seat], "user_id": ids::new() });
            let caller = cashier.with("idempotency-key", &format!("late-{seat}"));
            let request = entrance.request(Method::POST, "/v1/reservations", &caller).json(&body);
            tokio::spawn(async move { request.send().await.is_ok_and(|reply| reply.status() == 201) })
        })
        .collect();
    let mut sold = i64::from(sales.next().await.unwrap().unwrap());
    let Entrance { test, .. } = entrance;
    test.app.stop().await;
    while let Some(one) = sales.next().await {
        sold += i64::from(one.unwrap());
    }
    let saved = "select count(*) from idempotency_keys where status = 201";
    let saved: i64 = sqlx::query_scalar(saved).fetch_one(&test.env.pool).await.unwrap();
    assert!(sold > 0 && saved >= sold, "{sold} were answered, {saved} are saved");
}

/// Under which key, with which body.
fn asked(key: &str, body: u8) -> Asked {
    let (caller, route) = ("somebody".to_owned(), "POST /v1/somewhere".to_owned());
    let claim = Claim { caller, route, key: key.to_owned(), fingerprint: vec![body] };
    Asked { claim: Arc::new(claim), fresh: ids::new() }
}

fn ended(asked: &Asked, effect: Uuid, end: End) -> Ended {
    Ended { claim: Arc::clone(&asked.claim), effect, end }
}

async fn database() -> PgPool {
    store::open_for_steps(&fresh_database().await, 4).unwrap()
}

async fn known(pool: &PgPool, claim: &Claim) -> Option<Known> {
    idempotency::find(pool, &[claim]).await.unwrap().pop().unwrap()
}

/// As if five seconds had passed.
async fn time_passes(pool: &PgPool) {
    sqlx::query("update idempotency_keys set locked_until = clock_timestamp()").execute(pool).await.unwrap();
}

#[tokio::test]
async fn batch_claims_new_and_abandoned_keys() {
    let pool = database().await;
    let (one, other, same, body) = (asked("one", 1), asked("other", 1), asked("one", 1), asked("other", 2));
    let batch = [one.clone(), other.clone(), same.clone(), body.clone()];
    let claimed = idempotency::claim(&pool, &batch).await.unwrap();
    assert_eq!(claimed, [Some(one.fresh), Some(other.fresh), None, None], "of one key one request gets it");
    let claimed = idempotency::claim(&pool, &batch).await.unwrap();
    assert_eq!(claimed, [Some(one.fresh), Some(other.fresh), None, None], "a batch that is tried again");

    let new = asked("new", 1);
    let later = [asked("other", 1), same, body, new.clone(), asked("other", 1)];
    assert_eq!(idempotency::claim(&pool, &later[..3]).await.unwrap(), [None; 3], "they are locked");
    time_passes(&pool).await;
    let claimed = idempotency::claim(&pool, &later).await.unwrap();
    let others = [claimed[0], claimed[4]];
    assert!(others.contains(&Some(other.fresh)) && others.contains(&None), "one takes it over: {others:?}");
    assert_eq!(claimed[1..4], [Some(one.fresh), None, Some(new.fresh)], "with the effect of before");

    let save = ended(&one, one.fresh, End::Save(201, json!({ "id": 1 })));
    idempotency::end(&pool, &[save]).await.unwrap();
    time_passes(&pool).await;
    assert_eq!(idempotency::claim(&pool, std::slice::from_ref(&one)).await.unwrap(), [None]);
    let known = known(&pool, &one.claim).await.unwrap();
    assert_eq!((known.status, known.body), (Some(201), Some(json!({ "id": 1 }))));
}

#[tokio::test]
async fn busy_key_blocks_no_others() {
    let pool = database().await;
    let busy = asked("busy", 1);
    idempotency::claim(&pool, std::slice::from_ref(&busy)).await.unwrap();
    time_passes(&pool).await;
    let mut tx = pool.begin().await.unwrap();
    let save = ended(&busy, busy.fresh, End::Save(200, json!({})));
    idempotency::end(&mut *tx, &[save]).await.unwrap();
    let new = asked("new", 1);
    let batch = [asked("busy", 1), new.clone()];
    let claimed = tokio::time::timeout(Duration::from_secs(5), idempotency::claim(&pool, &batch)).await;
    assert_eq!(claimed.expect("the claim does not wait").unwrap(), [None, Some(new.fresh)]);
    tx.commit().await.unwrap();
}

#[tokio::test]
async fn batch_ends_each_claim_separately() {
    let pool = database().await;
    let all: Vec<Asked> = (0..6).map(|at| asked(&format!("key-{at}"), 1)).collect();
    idempotency::claim(&pool, &all).await.unwrap();
    let effect = |at: usize| all[at].fresh;
    let answer = || End::Save(409, json!({ "code": "seat_taken" }));
    let batch = [
        ended(&all[5], effect(5), End::Unlock),
        ended(&all[4], effect(4), End::Release),
        ended(&all[3], effect(3), answer()),
        // A request that took a claim over may end it at the same time.
        ended(&all[2], effect(2), End::Unlock),
        ended(&all[2], effect(2), answer()),
        ended(&all[2], effect(2), End::Release),
        // Not who holds it.
        ended(&all[1], ids::new(), answer()),
    ];
    idempotency::end(&pool, &batch).await.unwrap();
    for (at, status) in [(0, None), (1, None), (2, Some(409)), (3, Some(409)), (5, None)] {
        let known = known(&pool, &all[at].claim).await.unwrap();
        assert_eq!((known.status, known.body.is_some()), (status, status.is_some()), "{at}");
    }
    assert_eq!(known(&pool, &all[4].claim).await, None, "given up");
    let again: Vec<Asked> = (0..6).map(|at| asked(&format!("key-{at}"), 1)).collect();
    let claimed = idempotency::claim(&pool, &again).await.unwrap();
    let expected = [None, None, None, None, Some(again[4].fresh), Some(effect(5))];
    assert_eq!(claimed, expected, "what is locked, what is answered, what is new, what is open");
}
