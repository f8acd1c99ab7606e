//! The service of [`super::outside`]: a process of its own that reserves seats, takes money and writes tickets.

use std::process::Stdio;

use anyhow::Context;
use saga_worker::{CancellationToken, Nats, Outcome, StepRequest, Worker};
use sqlx::PgConnection;
use sqlx::postgres::PgPoolOptions;
use tokio::process::{Child, Command};

/// The first argument of a process of this program that is the service.
pub const WORK: &str = "work";
/// Buyers, numbered from 1.
pub(super) const USERS: i64 = 1_000;
const CONNECTIONS: u32 = 32;

/// The tables of the service.
pub(super) const TABLES: &str = "
    create table seats (id bigint primary key, status text not null, holder bigint);
    create table accounts (id bigint primary key, balance bigint not null);
    create table ledger (saga uuid primary key, user_id bigint not null, amount bigint not null);
    create table tickets (seat_id bigint primary key, saga uuid not null, user_id bigint not null);
    insert into accounts select n, 1000000000 from generate_series(1, 1000) as n";

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
    let sql = "update seats set status = 'held', holder = $1 where id = $2 and status = 'free'";
    let held =
        sqlx::query(sql).bind(field(request, "user")?).bind(field(request, "seat")?).execute(conn).await?;
    Ok(if held.rows_affected() == 1 { Outcome::done() } else { Outcome::rejected("taken") })
}

async fn release(conn: &mut PgConnection, request: StepRequest<'_>) -> anyhow::Result<Outcome> {
    let sql =
        "update seats set status = 'free', holder = null where id = $1 and holder = $2 and status = 'held'";
    sqlx::query(sql).bind(field(request, "seat")?).bind(field(request, "user")?).execute(conn).await?;
    Ok(Outcome::done())
}

async fn pay(conn: &mut PgConnection, request: StepRequest<'_>) -> anyhow::Result<Outcome> {
    let (user, price) = (field(request, "user")?, field(request, "price")?);
    let sql = "update accounts set balance = balance - $2 where id = $1 and balance >= $2";
    if sqlx::query(sql).bind(user).bind(price).execute(&mut *conn).await?.rows_affected() == 0 {
        return Ok(Outcome::rejected("insufficient_balance"));
    }
    let sql = "insert into ledger (saga, user_id, amount) values ($1, $2, $3)";
    sqlx::query(sql).bind(request.command.saga_id).bind(user).bind(price).execute(conn).await?;
    Ok(Outcome::done())
}

async fn refund(conn: &mut PgConnection, request: StepRequest<'_>) -> anyhow::Result<Outcome> {
    let sql = "with gone as (delete from ledger where saga = $1 returning user_id, amount)
               update accounts set balance = balance + amount from gone where id = user_id";
    sqlx::query(sql).bind(request.command.saga_id).execute(conn).await?;
    Ok(Outcome::done())
}

async fn confirm(conn: &mut PgConnection, request: StepRequest<'_>) -> anyhow::Result<Outcome> {
    let (seat, user) = (field(request, "seat")?, field(request, "user")?);
    let sql = "update seats set status = 'sold' where id = $1 and holder = $2 and status = 'held'";
    if sqlx::query(sql).bind(seat).bind(user).execute(&mut *conn).await?.rows_affected() == 0 {
        return Ok(Outcome::rejected("not_held"));
    }
    let sql = "insert into tickets (seat_id, saga, user_id) values ($1, $2, $3)";
    sqlx::query(sql).bind(seat).bind(request.command.saga_id).bind(user).execute(conn).await?;
    Ok(Outcome::done())
}
