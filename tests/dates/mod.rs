//! Dates that change or are cancelled, over HTTP: beside a sale, and with processes that are killed.

mod cancelling;
mod changing;
mod killed;

use serde_json::{Value, json};
use uuid::Uuid;

use crate::common::app::until;
use crate::common::http::{Caller, Entrance};

/// Cancels a date and answers the job's id.
async fn cancel(entrance: &Entrance, admin: &Caller, performance: Uuid, rate: u32) -> String {
    let order = json!({ "reason": "the singer is ill", "rate_per_second": rate });
    let path = format!("/v1/admin/performances/{performance}/cancellation");
    let reply = entrance.post(&path, admin, order).await;
    let job = reply.good(202)["id"].as_str().unwrap().to_owned();
    assert_eq!(reply.headers["location"], format!("/v1/ops/batches/{job}"));
    job
}

async fn until_ended(entrance: &Entrance, admin: &Caller, job: &str) -> Value {
    let path = format!("/v1/ops/batches/{job}");
    until(90, "the job to end", || async {
        entrance.get(&path, admin).await.good(200)["status"] != "running"
    })
    .await;
    entrance.get(&path, admin).await.body
}

/// The ids of this user's ledger entries of a kind.
async fn entries(entrance: &Entrance, user: Uuid, kind: &str) -> i64 {
    let sql = "select count(*) from ledger_entries where user_id = $1 and kind = $2";
    sqlx::query_scalar(sql).bind(user).bind(kind).fetch_one(&entrance.pool).await.unwrap()
}
