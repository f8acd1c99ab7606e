//! Workflows that have nothing to do with concerts: deployed, started, signalled and read from outside.

mod deploying;
mod messages;
mod parallel;
mod page;
mod processes;
mod running;

use boxoffice::bus::Bus;
use boxoffice::saga::Outcome;
use saga_worker::{StepRequest, Worker};
use serde_json::{Map, Value, json};
use sqlx::{PgConnection, PgPool};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::worker_sdk::nats;

/// A workflow with two steps, a wait between them, and a schema of its input.
pub const TRIP: &str = include_str!("trip.toml");

/// The booking of something can be refused by the input: `{"refuse": "flight"}`.
async fn book(what: &str, conn: &mut PgConnection, request: StepRequest<'_>) -> anyhow::Result<Outcome> {
    let context = &request.command.context;
    if context["refuse"] == what {
        return Ok(Outcome::rejected("sold_out"));
    }
    sqlx::query("insert into trips (saga, what) values ($1, $2)")
        .bind(request.command.saga_id)
        .bind(what)
        .execute(conn)
        .await?;
    let output = json!({ what: format!("{what} in {}", context["city"].as_str().unwrap_or("?")) });
    Ok(Outcome::Done { output: output.as_object().cloned().unwrap_or_default() })
}

async fn cancel(what: &str, conn: &mut PgConnection, request: StepRequest<'_>) -> anyhow::Result<Outcome> {
    sqlx::query("delete from trips where saga = $1 and what = $2")
        .bind(request.command.saga_id)
        .bind(what)
        .execute(conn)
        .await?;
    Ok(Outcome::done())
}

/// A worker that serves the workflow, with a table `trips` in this database.
pub async fn travel_agency(bus: &Bus, pool: &PgPool) -> DropGuard {
    sqlx::query("create table if not exists trips (saga uuid not null, what text not null)")
        .execute(pool)
        .await
        .unwrap();
    let stop = CancellationToken::new();
    let worker = Worker::new("travel", pool.clone())
        .command("travel.book_hotel", |conn, request| Box::pin(book("hotel", conn, request)))
        .command("travel.cancel_hotel", |conn, request| Box::pin(cancel("hotel", conn, request)))
        .command("travel.book_flight", |conn, request| Box::pin(book("flight", conn, request)))
        .command("travel.cancel_flight", |conn, request| Box::pin(cancel("flight", conn, request)));
    let running = worker.start(&nats(bus), &stop).await.unwrap();
    tokio::spawn(running.wait());
    stop.drop_guard()
}

/// How many bookings there are.
pub async fn bookings(pool: &PgPool) -> i64 {
    sqlx::query_scalar("select count(*) from trips").fetch_one(pool).await.unwrap()
}

/// A start with this input.
pub fn start(input: &Value) -> Value {
    json!({ "input": input })
}

fn map(value: &Value) -> Map<String, Value> {
    value.as_object().cloned().unwrap_or_default()
}
