//! The worker of `worker.py` in Rust: it prints a badge for every reservation that was paid.
//!
//! ```text
//! cargo run --example badge_printer -- nats://127.0.0.1:4222 postgres://localhost/printer
//! ```
//!
//! The effect (a row in `badges`) and the fence live in one Postgres database, so that one transaction holds both.

use anyhow::Context;
use saga_worker::{CancellationToken, Nats, Outcome, StepRequest, Worker};
use serde_json::{Map, json};
use sqlx::{PgConnection, PgPool};

const TABLE: &str = "create table if not exists badges (saga uuid not null, badge text not null)";

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let usage = "usage: badge_printer NATS_URL DATABASE_URL";
    let (nats_url, database_url) = (arguments.next().context(usage)?, arguments.next().context(usage)?);
    let pool = PgPool::connect(&database_url).await?;
    sqlx::query(TABLE).execute(&pool).await?;
    let client = saga_worker::connect(&nats_url).await?;
    // Set if JetStream belongs to another account.
    let nats = match std::env::var("NATS_DOMAIN") {
        Ok(domain) => Nats::with_domain(client, &domain),
        Err(_) => Nats::new(client),
    };
    let stop = CancellationToken::new();
    let interrupted = stop.clone();
    tokio::spawn(async move {
        let _pressed = tokio::signal::ctrl_c().await;
        interrupted.cancel();
    });
    Ok(worker(pool).run(&nats, &stop).await?)
}

/// The service `badges` with its two commands.
pub fn worker(pool: PgPool) -> Worker<sqlx::Postgres> {
    Worker::new("badges", pool)
        .command("badges.print", |conn, request| Box::pin(print(conn, request)))
        .command("badges.shred", |conn, request| Box::pin(shred(conn, request)))
}

async fn print(conn: &mut PgConnection, request: StepRequest<'_>) -> anyhow::Result<Outcome> {
    let saga = request.command.saga_id;
    let badge = format!("B-{}", &saga.simple().to_string()[..8]);
    sqlx::query("insert into badges (saga, badge) values ($1, $2)")
        .bind(saga)
        .bind(&badge)
        .execute(conn)
        .await?;
    Ok(Outcome::Done { output: Map::from_iter([("badge".to_owned(), json!(badge))]) })
}

async fn shred(conn: &mut PgConnection, request: StepRequest<'_>) -> anyhow::Result<Outcome> {
    sqlx::query("delete from badges where saga = $1").bind(request.command.saga_id).execute(conn).await?;
    Ok(Outcome::done())
}
