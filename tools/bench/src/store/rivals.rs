//! The tables on which ways of concurrency control are held against each other, and what each way asks of them.
//!
//! They are made for a benchmark and dropped after it; no migration knows of them. The macros, which hold a query against
//! the schema when it is compiled, can therefore not be used; `tests/contention.rs` runs every query that is here. The
//! tables have the names, columns and indexes of the schema's own (with a version beside) and stand before them on the
//! search path, so that the store's own functions for batches work on them as they are. They lack the CHECKs and foreign
//! keys: only the way itself keeps a balance from going below zero, and what it gets wrong can be found.

use chrono::{DateTime, TimeDelta, Utc};
use sqlx::postgres::{PgPool, PgPoolOptions};
use sqlx::{AssertSqlSafe, PgConnection, PgExecutor, Row as _};
use uuid::Uuid;

use boxoffice::store::points::BALANCE_LIMIT;
use boxoffice::store::{self, Result, session};

/// The performance of all seats.
pub const PERFORMANCE: Uuid = Uuid::from_u128(1);
/// How long a seat is held.
const HOLD: TimeDelta = TimeDelta::minutes(5);
/// The class of the advisory locks, beside the number of the row.
const LOCK_CLASS: i32 = 20_113;

/// What is to be done with a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Deed {
    /// A free seat becomes a held one.
    Hold,
    /// Points are added to an account.
    Charge,
    /// Points are taken from an account that has them.
    Use,
}

/// One thing that one caller wants.
#[derive(Clone, Copy, Debug)]
pub struct Request {
    /// Who holds the seat from then on, or the ledger entry.
    pub id: Uuid,
    pub deed: Deed,
    /// The number of the seat or account.
    pub place: i32,
    /// Points; a seat counts one.
    pub amount: i64,
    pub at: DateTime<Utc>,
}

/// What a row has to give: its points, or one if it is a seat and free; and how often it was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    pub stock: i64,
    pub version: i64,
}

/// What the ledger and the accounts say in the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Books {
    /// Entries.
    pub entries: i64,
    /// Points that were added, and taken.
    pub charged: i64,
    pub used: i64,
    /// Accounts whose balance is not what they began with and the sum of their entries, or is or was below zero.
    pub broken: i64,
}

impl Deed {
    /// As the ledger calls it.
    pub fn kind(self) -> &'static str {
        if self == Self::Use { "use" } else { "charge" }
    }
}

impl Request {
    /// Points as they change the balance.
    fn signed(&self) -> i64 {
        if self.deed == Deed::Use { -self.amount } else { self.amount }
    }

    /// Until when the seat is held.
    pub fn until(&self) -> DateTime<Utc> {
        self.at + HOLD
    }
}

/// The owner of an account, by its number.
pub fn user(place: i32) -> Uuid {
    Uuid::from_u128(u128::from(place.unsigned_abs()))
}

/// Makes the tables, empty, in place of what a run that was killed has left.
pub async fn make(pool: &PgPool) -> Result<()> {
    let sql = "
        drop schema if exists rivals cascade;
        create schema rivals;
        create table rivals.seats (
            like seats including defaults including indexes, version bigint not null default 0
        ) with (fillfactor = 50);
        create table rivals.accounts (
            like accounts including defaults including indexes, version bigint not null default 0
        ) with (fillfactor = 70);
        create table rivals.ledger_entries (
            like ledger_entries including defaults including indexes including identity
        );
        create table rivals.performances (like performances including defaults including indexes);
        insert into rivals.performances (id, concert_id, venue, starts_at, duration_minutes, sale_opens_at,
                                         sale_closes_at, seats_total)
        values ('00000000-0000-0000-0000-000000000001', '00000000-0000-0000-0000-000000000001', 'Bench Hall',
                now(), 90, now() - interval '1 day', now() + interval '1 day', 1)";
    sqlx::raw_sql(sql).execute(pool).await.map(drop)
}

/// Takes them away.
pub async fn discard(pool: &PgPool) -> Result<()> {
    sqlx::query("drop schema if exists rivals cascade").execute(pool).await.map(drop)
}

/// So many connections with the settings of those that the workers have, on which these tables stand before the schema's
/// own. None is asked whether it is well before it is used: that would cost each way one more round trip.
pub fn open(url: &str, connections: u32) -> Result<PgPool> {
    // Only its address is wanted: it never makes a connection.
    let workers = store::open_for_steps(url, connections)?;
    let settings =
        format!("{};{}; set search_path = rivals, public", session::SETTINGS, session::STEPS_SETTINGS);
    let pool = PgPoolOptions::new().max_connections(connections).test_before_acquire(false);
    let pool = pool.after_connect(move |conn, _| {
        let settings = AssertSqlSafe(settings.clone());
        Box::pin(async move { sqlx::raw_sql(settings).execute(conn).await.map(drop) })
    });
    Ok(pool.connect_lazy_with((*workers.connect_options()).clone()))
}

/// So many seats, all free.
pub async fn seat(pool: &PgPool, seats: i32) -> Result<()> {
    sqlx::query("truncate seats").execute(pool).await?;
    let sql = "insert into seats (performance_id, number, section, price)
               select $1, number, 'A', 100 from generate_series(1, $2) as number";
    sqlx::query(sql).bind(PERFORMANCE).bind(seats).execute(pool).await?;
    sqlx::query("analyze seats").execute(pool).await.map(drop)
}

/// So many accounts with so many points each, and an empty ledger.
pub async fn endow(pool: &PgPool, accounts: i32, points: i64) -> Result<()> {
    sqlx::query("truncate accounts, ledger_entries").execute(pool).await?;
    let users: Vec<Uuid> = (1..=accounts).map(user).collect();
    let sql = "insert into accounts (user_id, balance) select owner, $2 from unnest($1::uuid[]) as owner";
    sqlx::query(sql).bind(&users).bind(points).execute(pool).await?;
    sqlx::query("analyze accounts").execute(pool).await.map(drop)
}

/// Does what is asked for if it can be done, in one statement. Says whether it was.
pub async fn at_once(conn: &mut PgConnection, request: &Request) -> Result<bool> {
    let written = match request.deed {
        Deed::Hold => {
            let sql = "update seats set status = 'held', holder = $3, expires_at = $4, claimable_at = $4
                       where performance_id = $1 and number = $2 and status = 'free'";
            let update = sqlx::query(sql).bind(PERFORMANCE).bind(request.place).bind(request.id);
            update.bind(request.until()).execute(conn).await?
        }
        Deed::Charge | Deed::Use => {
            let sql = "
                with account as (
                    update accounts set balance = balance + $3, updated_at = $5
                    where user_id = $2 and balance + $3 between 0 and $6
                    returning balance
                )
                insert into ledger_entries (id, user_id, kind, amount, balance, reservation_id, created_at)
                select $1, $2, $4, abs($3), balance, $1, $5 from account";
            let update = sqlx::query(sql).bind(request.id).bind(user(request.place)).bind(request.signed());
            let update = update.bind(request.deed.kind()).bind(request.at).bind(BALANCE_LIMIT);
            update.execute(conn).await?
        }
    };
    Ok(written.rows_affected() == 1)
}

/// The advisory lock of a row, until the end of the transaction. A statement of its own: one that also read the row would
/// read what was there before it had the lock.
pub async fn lock(conn: &mut PgConnection, request: &Request) -> Result<()> {
    let lock = sqlx::query("select pg_advisory_xact_lock($1, $2)").bind(LOCK_CLASS).bind(request.place);
    lock.execute(conn).await.map(drop)
}

/// A row as it is now, and locked until the end of the transaction if that is wanted.
pub async fn read(conn: &mut PgConnection, request: &Request, locked: bool) -> Result<Row> {
    let row = match (request.deed, locked) {
        (Deed::Hold, false) => {
            let sql = "select (status = 'free')::int::bigint as stock, version from seats
                       where performance_id = $1 and number = $2";
            sqlx::query(sql).bind(PERFORMANCE).bind(request.place)
        }
        (Deed::Hold, true) => {
            let sql = "select (status = 'free')::int::bigint as stock, version from seats
                       where performance_id = $1 and number = $2 for update";
            sqlx::query(sql).bind(PERFORMANCE).bind(request.place)
        }
        (Deed::Charge | Deed::Use, false) => {
            let sql = "select balance as stock, version from accounts where user_id = $1";
            sqlx::query(sql).bind(user(request.place))
        }
        (Deed::Charge | Deed::Use, true) => {
            let sql = "select balance as stock, version from accounts where user_id = $1 for update";
            sqlx::query(sql).bind(user(request.place))
        }
    };
    let row = row.fetch_one(conn).await?;
    Ok(Row { stock: row.try_get("stock")?, version: row.try_get("version")? })
}

/// Leaves `stock` in a row, with the ledger entry if it is an account: whatever is there now, or only over the first of
/// two `versions`, which becomes the second. Says whether it was written.
pub async fn write(
    conn: &mut PgConnection,
    request: &Request,
    stock: i64,
    versions: Option<(i64, i64)>,
) -> Result<bool> {
    let (from, to) = versions.unzip();
    let written = match request.deed {
        Deed::Hold => {
            let sql = "update seats set status = 'held', holder = $3, expires_at = $4, claimable_at = $4,
                                        version = coalesce($6, version)
                       where performance_id = $1 and number = $2 and ($5::bigint is null or version = $5)";
            let update = sqlx::query(sql).bind(PERFORMANCE).bind(request.place).bind(request.id);
            update.bind(request.until()).bind(from).bind(to).execute(conn).await?
        }
        Deed::Charge | Deed::Use => {
            let sql = "
                with account as (
                    update accounts set balance = $6, updated_at = $5, version = coalesce($8, version)
                    where user_id = $2 and ($7::bigint is null or version = $7)
                    returning balance
                )
                insert into ledger_entries (id, user_id, kind, amount, balance, reservation_id, created_at)
                select $1, $2, $4, $3, balance, $1, $5 from account";
            let update = sqlx::query(sql).bind(request.id).bind(user(request.place)).bind(request.amount);
            let update = update.bind(request.deed.kind()).bind(request.at).bind(stock);
            update.bind(from).bind(to).execute(conn).await?
        }
    };
    Ok(written.rows_affected() == 1)
}

/// The seats that are held, and by whom.
pub async fn holders(db: impl PgExecutor<'_>) -> Result<Vec<(i32, Uuid)>> {
    let rows = sqlx::query("select number, holder from seats where status <> 'free'").fetch_all(db).await?;
    rows.iter().map(|row| Ok((row.try_get("number")?, row.try_get("holder")?))).collect()
}

/// What accounts and ledger say, if every account began with so many points.
pub async fn books(db: impl PgExecutor<'_>, points: i64) -> Result<Books> {
    let sql = "
        with moved as (
            select user_id, count(*) as entries, min(balance) as lowest,
                   coalesce(sum(amount) filter (where kind = 'charge'), 0)::bigint as charged,
                   coalesce(sum(amount) filter (where kind = 'use'), 0)::bigint as used
            from ledger_entries group by user_id
        )
        select coalesce(sum(entries), 0)::bigint as entries, coalesce(sum(charged), 0)::bigint as charged,
               coalesce(sum(used), 0)::bigint as used,
               count(*) filter (where balance < 0 or lowest < 0
                   or balance <> $1 + coalesce(charged, 0) - coalesce(used, 0)) as broken
        from accounts left join moved using (user_id)";
    let row = sqlx::query(sql).bind(points).fetch_one(db).await?;
    Ok(Books {
        entries: row.try_get("entries")?,
        charged: row.try_get("charged")?,
        used: row.try_get("used")?,
        broken: row.try_get("broken")?,
    })
}
