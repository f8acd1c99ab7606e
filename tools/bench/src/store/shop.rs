//! The tables of a service elsewhere, in a database of its own: seats, accounts, a ledger and tickets.

use boxoffice::store::Result;
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use uuid::Uuid;

const DATABASE: &str = "shop";
/// Buyers, numbered from 1.
pub const USERS: i64 = 1_000;
const TABLES: &str = "
    create table seats (id bigint primary key, status text not null, holder bigint);
    create table accounts (id bigint primary key, balance bigint not null);
    create table ledger (saga uuid primary key, user_id bigint not null, amount bigint not null);
    create table tickets (seat_id bigint primary key, saga uuid not null, user_id bigint not null)";

/// Makes the database in the server of this superuser, with so many seats. Returns its address.
pub async fn create(superuser_url: &str, seats: u32) -> Result<String> {
    let mut conn = PgConnection::connect(superuser_url).await?;
    sqlx::raw_sql(AssertSqlSafe(format!("create database {DATABASE}"))).execute(&mut conn).await?;
    let server = superuser_url.rsplit_once('/').map_or(superuser_url, |(server, _)| server);
    let url = format!("{server}/{DATABASE}");
    let mut conn = PgConnection::connect(&url).await?;
    sqlx::raw_sql(TABLES).execute(&mut conn).await?;
    let sql = "insert into seats select n, 'free' from generate_series(1, $1) as n";
    sqlx::query(sql).bind(i64::from(seats)).execute(&mut conn).await?;
    let sql = "insert into accounts select n, 1000000000 from generate_series(1, $1) as n";
    sqlx::query(sql).bind(USERS).execute(&mut conn).await?;
    Ok(url)
}

/// What the tables have.
#[derive(Debug, PartialEq, sqlx::FromRow)]
pub struct Counts {
    pub sold: i64,
    pub held: i64,
    pub paid: i64,
    pub tickets: i64,
}

pub async fn counts(url: &str) -> Result<Counts> {
    let sql = "
        select (select count(*) from seats where status = 'sold') as sold,
               (select count(*) from seats where status = 'held') as held,
               (select count(*) from ledger) as paid, (select count(*) from tickets) as tickets";
    sqlx::query_as(sql).fetch_one(&mut PgConnection::connect(url).await?).await
}

/// Whether the seat was free.
pub async fn reserve(conn: &mut PgConnection, user: i64, seat: i64) -> Result<bool> {
    let sql = "update seats set status = 'held', holder = $1 where id = $2 and status = 'free'";
    Ok(sqlx::query(sql).bind(user).bind(seat).execute(conn).await?.rows_affected() == 1)
}

pub async fn release(conn: &mut PgConnection, user: i64, seat: i64) -> Result<()> {
    let sql = "
        update seats set status = 'free', holder = null where id = $1 and holder = $2 and status = 'held'";
    sqlx::query(sql).bind(seat).bind(user).execute(conn).await.map(drop)
}

/// Whether the user had the money.
pub async fn pay(conn: &mut PgConnection, saga: Uuid, user: i64, price: i64) -> Result<bool> {
    let sql = "update accounts set balance = balance - $2 where id = $1 and balance >= $2";
    if sqlx::query(sql).bind(user).bind(price).execute(&mut *conn).await?.rows_affected() == 0 {
        return Ok(false);
    }
    let sql = "insert into ledger (saga, user_id, amount) values ($1, $2, $3)";
    sqlx::query(sql).bind(saga).bind(user).bind(price).execute(conn).await?;
    Ok(true)
}

pub async fn refund(conn: &mut PgConnection, saga: Uuid) -> Result<()> {
    let sql = "
        with gone as (delete from ledger where saga = $1 returning user_id, amount)
        update accounts set balance = balance + amount from gone where id = user_id";
    sqlx::query(sql).bind(saga).execute(conn).await.map(drop)
}

/// Whether the user held the seat.
pub async fn confirm(conn: &mut PgConnection, saga: Uuid, user: i64, seat: i64) -> Result<bool> {
    let sql = "update seats set status = 'sold' where id = $1 and holder = $2 and status = 'held'";
    if sqlx::query(sql).bind(seat).bind(user).execute(&mut *conn).await?.rows_affected() == 0 {
        return Ok(false);
    }
    let sql = "insert into tickets (seat_id, saga, user_id) values ($1, $2, $3)";
    sqlx::query(sql).bind(seat).bind(saga).bind(user).execute(conn).await?;
    Ok(true)
}
