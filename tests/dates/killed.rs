//! Processes that are killed amid the refunds of a cancelled date.

use boxoffice::http::auth::NewKey;
use boxoffice::store::api_keys::{self, Role};
use boxoffice::{audit, ids, store};
use chrono::{TimeDelta, Utc};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::common::Env;
use crate::common::app::until;
use crate::process::{Process, client};

const SOLD: usize = 60;

/// A key of this role, by its secret.
async fn key(env: &Env, role: Role) -> String {
    let NewKey { secret, hash } = NewKey::generate();
    api_keys::insert(&env.pool, ids::new(), role.as_str(), role, &hash).await.unwrap();
    secret
}

/// A date with paid reservations, sold at the counter.
async fn sell(env: &Env, process: &Process) -> (Uuid, Vec<Uuid>) {
    let concerts = store::catalog::list_concerts(&env.pool, None, 100, Utc::now()).await.unwrap();
    let (performance, concert) = (ids::new(), concerts[0].id);
    let date = store::catalog::Performance {
        id: performance,
        concert_id: concert,
        venue: "The Hall".to_owned(),
        starts_at: Utc::now() + TimeDelta::days(2),
        duration_minutes: 60,
        sale_opens_at: Utc::now() - TimeDelta::hours(1),
        sale_closes_at: Utc::now() + TimeDelta::days(1),
        seats_total: SOLD as i32,
    };
    let range = store::catalog::SeatRange { from: 1, to: SOLD as i32, section: "A".to_owned(), price: 100 };
    let mut conn = env.pool.acquire().await.unwrap();
    store::catalog::insert_performance(&mut conn, &date, &[range]).await.unwrap();
    let (cashier, client) = (key(env, Role::Cashier).await, client());
    let mut users = Vec::new();
    for seat in 1..=SOLD {
        let user = ids::new();
        store::points::charge(&env.pool, ids::new(), user, 100).await.unwrap().unwrap();
        let order = json!({ "performance_id": performance, "seats": [seat], "user_id": user, "pay": true });
        let request =
            client.post(format!("{}/v1/reservations", process.url)).bearer_auth(&cashier).json(&order);
        assert_eq!(request.send().await.unwrap().status(), 201);
        users.push(user);
    }
    (performance, users)
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_refunds_go_on_and_refund_each_once() {
    let env = Env::start().await;
    let data_dir = env.dir.display().to_string();
    let everything = [
        "serve",
        "--role",
        "api,orchestrator,worker,scheduler",
        "--local",
        "--data-dir",
        &data_dir,
        "--database-url",
        &env.database_url,
        "--nats-url",
        &env.nats_url,
    ];
    let first = Process::start(&everything).await;
    boxoffice::sample_concerts::load(&env.pool, Utc::now(), 1_000, 60_000).await.unwrap();
    let (performance, users) = sell(&env, &first).await;
    let admin = key(&env, Role::Admin).await;
    let order = json!({ "reason": "the roof leaks", "rate_per_second": 20 });
    let path = format!("{}/v1/admin/performances/{performance}/cancellation", first.admin_url);
    let answer = client().post(path).bearer_auth(&admin).json(&order).send().await.unwrap();
    assert_eq!(answer.status(), 202);
    let job: Value = answer.json().await.unwrap();
    let refunds = async || -> i64 {
        let sql = "select count(*) from ledger_entries where kind = 'refund'";
        sqlx::query_scalar(sql).fetch_one(&env.pool).await.unwrap()
    };
    until(30, "some refunds", || async { refunds().await >= 5 }).await;
    first.kill().await;
    assert!(refunds().await < SOLD as i64, "it was killed amid the refunds");
    let second = Process::start(&everything).await;
    let path = format!("{}/v1/ops/batches/{}", second.admin_url, job["id"].as_str().unwrap());
    let shown = async || -> Value {
        client().get(&path).bearer_auth(&admin).send().await.unwrap().json().await.unwrap()
    };
    until(90, "the other process to end the job", || async { shown().await["status"] == "completed" }).await;
    let ended = shown().await;
    assert_eq!(
        (&ended["total"], &ended["done"], &ended["failed"]),
        (&SOLD.into(), &SOLD.into(), &0.into()),
        "{ended}"
    );
    until(60, "every saga to end", || async {
        store::sagas::count_open(&env.pool).await.unwrap().is_empty()
    })
    .await;
    assert_eq!(refunds().await, SOLD as i64);
    for user in users {
        assert_eq!(store::points::balance(&env.pool, user).await.unwrap(), 100);
    }
    let report = audit::run(&env.pool).await.unwrap();
    assert!(report.is_good(true), "the audit found: {report:#?}");
}
