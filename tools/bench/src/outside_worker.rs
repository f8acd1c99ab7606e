//! The service of the scenario `outside`: a process of its own that reserves seats, takes money and writes tickets.

use std::process::Stdio;

use anyhow::Context;
use saga_worker::{CancellationToken, Nats, Outcome, StepRequest, Worker};
use sqlx::PgConnection;
use sqlx::postgres::PgPoolOptions;
use tokio::process::{Child, Command};

use crate::store::shop;

/// The first argument of a process of this program that is the service.
pub const WORK: &str = "work";
const CONNECTIONS: u32 = 32;

/// Starts the process. It ends with this one.
pub(super) fn spawn(database: &str, nats: &str) -> anyhow::Result<Child> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args([WORK, database, nats]).stdin(Stdio::null()).kill_on_drop(true);
    command.spawn().context("the worker cannot be started")
}

/// Serves the steps until the process is ended.
///
/// # Errors
/// When Postgres or NATS cannot be reached.
pub async fn run(database: &str, nats: &str) -> anyhow::Result<()> {
    let pool = PgPoolOptions::new()
        .max_connections(CONNECTIONS)
        .test_before_acquire(false)
        .connect(database)
        .await?;
    let nats = Nats::new(saga_worker::connect(nats).await?);
    Worker::new("shop", pool)
        .command("shop.reserve", |conn, request| Box::pin(reserve(conn, request)))
        .command("shop.release", |conn, request| Box::pin(release(conn, request)))
        .command("shop.pay", |conn, request| Box::pin(pay(conn, request)))
        .command("shop.refund", |conn, request| Box::pin(refund(conn, request)))
        .command("shop.confirm", |conn, request| Box::pin(confirm(conn, request)))
        .run(&nats, &CancellationToken::new())
        .await?;
    Ok(())
}

fn field(request: StepRequest<'_>, name: &str) -> anyhow::Result<i64> {
    request.command.context[name].as_i64().with_context(|| format!("the input has no {name}"))
}

async fn reserve(conn: &mut PgConnection, request: StepRequest<'_>) -> anyhow::Result<Outcome> {
    let is_held = shop::reserve(conn, field(request, "user")?, field(request, "seat")?).await?;
    Ok(if is_held { Outcome::done() } else { Outcome::rejected("taken") })
}

async fn release(conn: &mut PgConnection, request: StepRequest<'_>) -> anyhow::Result<Outcome> {
    shop::release(conn, field(request, "user")?, field(request, "seat")?).await?;
    Ok(Outcome::done())
}

async fn pay(conn: &mut PgConnection, request: StepRequest<'_>) -> anyhow::Result<Outcome> {
    let (user, price) = (field(request, "user")?, field(request, "price")?);
    let is_paid = shop::pay(conn, request.command.saga_id, user, price).await?;
    Ok(if is_paid { Outcome::done() } else { Outcome::rejected("insufficient_balance") })
}

async fn refund(conn: &mut PgConnection, request: StepRequest<'_>) -> anyhow::Result<Outcome> {
    shop::refund(conn, request.command.saga_id).await?;
    Ok(Outcome::done())
}

async fn confirm(conn: &mut PgConnection, request: StepRequest<'_>) -> anyhow::Result<Outcome> {
    let (seat, user) = (field(request, "seat")?, field(request, "user")?);
    let is_sold = shop::confirm(conn, request.command.saga_id, user, seat).await?;
    Ok(if is_sold { Outcome::done() } else { Outcome::rejected("not_held") })
}
