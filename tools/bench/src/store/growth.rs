//! A database as it is after many finished bookings, and what a statement costs in it.
//!
//! Each booking is a copy, under ids of its own, of one that the service has made: so it leaves what a real one leaves,
//! in all columns that the tables have. None of these queries can be held against the schema when it is compiled;
//! `tests/growth.rs` runs every one of them.

use chrono::{DateTime, TimeDelta, Utc};
use serde::Serialize;
use sqlx::{AssertSqlSafe, PgConnection, PgExecutor, PgPool, Row};
use uuid::Uuid;

use boxoffice::store::{self, Result, retention};

/// Bookings to be made of one.
#[derive(Clone, Copy, Debug)]
pub struct Copies {
    /// The finished booking that they are copies of.
    pub pattern: Uuid,
    /// When the first of them was.
    pub from: DateTime<Utc>,
    /// From each to the next.
    pub step: TimeDelta,
    pub count: i64,
    /// Seats of each performance; the last one has some left that were never there.
    pub hall: i64,
}

/// What a kind of statement has cost so far.
#[derive(Clone, Debug, Serialize)]
pub struct StatementCost {
    pub query: String,
    pub calls: i64,
    /// Pages that were looked at, found in memory or read.
    pub pages: i64,
    /// Pages that were changed first by it.
    pub dirtied: i64,
    /// Bytes of the log, whole pages included.
    pub wal_bytes: i64,
}

/// Records of the log by what they do.
#[derive(Clone, Copy, Debug)]
pub struct LogWork {
    pub rows_inserted: i64,
    /// Updates that need no index entries.
    pub heap_only_updates: i64,
    /// Updates that need an entry in every index of their table.
    pub full_updates: i64,
    pub index_entries: i64,
    pub row_locks: i64,
}

/// What was written to the log between two moments.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct LogCost {
    pub records: i64,
    /// Bytes of records without whole pages.
    pub record_bytes: i64,
    /// Bytes of whole pages, which follow a checkpoint: one for each page that is changed for the first time after it.
    pub page_bytes: i64,
}

/// Columns, and what is written into them.
type Columns = &'static [(&'static str, &'static str)];

/// Tables that are copied: which rows of the pattern, and what is different in each copy.
/// No column of a condition has the name of a column of `seeds`.
const TABLES: [(&str, &str, Columns); 8] = [
    (
        "seats",
        "holder = $pattern",
        &[("performance_id", "s.performance"), ("number", "s.seat"), ("holder", "s.booking")],
    ),
    (
        "reservations",
        "id = $pattern",
        &[
            ("id", "s.booking"),
            ("user_id", "s.buyer"),
            ("performance_id", "s.performance"),
            ("seats", "array[s.seat]"),
            ("lines", "jsonb_set(t.lines, '{0,number}', to_jsonb(s.seat))"),
            ("expires_at", "s.at + interval '5 minutes'"),
            ("claimable_at", "s.at + interval '315 seconds'"),
            ("created_at", "s.at"),
            ("updated_at", "s.at"),
        ],
    ),
    (
        "sagas",
        "id = $pattern",
        &[
            ("id", "s.booking"),
            ("trace", "s.booking"),
            ("due_at", "null::timestamptz"),
            ("sent_at", "s.at"),
            ("entered_at", "s.at"),
            ("created_at", "s.at"),
            ("updated_at", "s.at"),
            ("finished_at", "s.at"),
        ],
    ),
    (
        "saga_history",
        "saga_id = $pattern",
        &[
            ("saga_id", "s.booking"),
            ("at", "s.at"),
            ("detail", "case when t.event = 0 then (t.detail::jsonb || s.ids)::text else t.detail end"),
        ],
    ),
    ("accounts", "user_id = $buyer", &[("user_id", "s.buyer"), ("updated_at", "s.at")]),
    (
        "ledger_entries",
        "user_id = $buyer and kind = 'charge'",
        &[("id", "s.charge"), ("user_id", "s.buyer"), ("created_at", "s.at")],
    ),
    (
        "ledger_entries",
        "reservation_id = $pattern",
        &[("id", "s.used"), ("user_id", "s.buyer"), ("reservation_id", "s.booking"), ("created_at", "s.at")],
    ),
    (
        "tickets",
        "reservation_id = $pattern",
        &[
            ("id", "s.ticket"),
            ("reservation_id", "s.booking"),
            ("performance_id", "s.performance"),
            ("seat", "s.seat"),
            ("code", "s.code"),
            ("issued_at", "s.at"),
        ],
    ),
];

/// An id as the service makes them (UUID version 7), of any moment.
const ID_OF: &str = "
    create or replace function pg_temp.id_of(at timestamptz) returns uuid language sql volatile as $$
        select (lpad(to_hex((extract(epoch from at) * 1000)::bigint), 12, '0')
            || '7' || substr(chance, 1, 3) || '8' || substr(chance, 4, 15))::uuid
        from md5(random()::text) as chance
    $$";

/// Adds copies of a finished booking of one seat, by a user who has booked nothing else: each is bought by a user of
/// its own, at sold out performances of the same concert, whose sale is over.
pub async fn copy(pool: &PgPool, copies: Copies) -> Result<()> {
    let mut tx = pool.begin().await?;
    // What the copies refer to is there: the pattern's rows went through the same checks.
    run(&mut tx, "set local session_replication_role = replica").await?;
    run(&mut tx, ID_OF).await?;
    make_halls(&mut tx, copies).await?;
    make_seeds(&mut tx, copies).await?;
    let buyer: Uuid = sqlx::query_scalar("select user_id from reservations where id = $1")
        .bind(copies.pattern)
        .fetch_one(&mut *tx)
        .await?;
    for (table, which, changed) in TABLES {
        let which = which
            .replace("$pattern", &format!("'{}'", copies.pattern))
            .replace("$buyer", &format!("'{buyer}'"));
        copy_table(&mut tx, table, &which, changed).await?;
    }
    tx.commit().await
}

/// The user and the performance of a booking.
pub async fn buyer_of(pool: &PgPool, booking: Uuid) -> Result<(Uuid, Uuid)> {
    let sql = "select user_id, performance_id from reservations where id = $1";
    sqlx::query_as(sql).bind(booking).fetch_one(pool).await
}

async fn make_halls(conn: &mut PgConnection, copies: Copies) -> Result<()> {
    let places = format!("generate_series(0, {})", (copies.count - 1) / copies.hall);
    let halls = format!(
        "create temporary table halls on commit drop as
         select place, pg_temp.id_of('{}') as id from {places} as place",
        copies.from.to_rfc3339(),
    );
    run(conn, halls).await?;
    let which = format!("id = (select performance_id from reservations where id = '{}')", copies.pattern);
    let seats = copies.hall.to_string();
    let changed = [
        ("id", "s.id"),
        ("seats_total", &seats),
        ("sale_opens_at", "now() - interval '60 days'"),
        ("sale_closes_at", "now() - interval '1 minute'"),
    ];
    let (names, values) = columns(conn, "performances", &changed).await?;
    run(
        conn,
        format!(
            "insert into performances ({names}) select {values} from halls s, performances t where t.{which}"
        ),
    )
    .await
}

async fn make_seeds(conn: &mut PgConnection, copies: Copies) -> Result<()> {
    let seeds = format!(
        "create temporary table seeds on commit drop as
         select n, at, h.id as performance, (n % {hall})::int + 1 as seat, gen_random_uuid() as buyer,
             pg_temp.id_of(at) as booking, pg_temp.id_of(at) as charge, pg_temp.id_of(at) as used,
             pg_temp.id_of(at) as ticket,
             substr(translate(encode(sha256(uuid_send(gen_random_uuid())), 'base64'), '+/', 'xy'), 1, 20) as code, null::jsonb as ids
         from generate_series(0, {last}) as n
         join halls h on h.place = n / {hall}
         cross join lateral (select '{from}'::timestamptz + n * interval '{step} microseconds' as at) as moment",
        hall = copies.hall,
        last = copies.count - 1,
        from = copies.from.to_rfc3339(),
        step = copies.step.num_microseconds().unwrap_or(1),
    );
    run(conn, seeds).await?;
    run(
        conn,
        "update seeds set ids = jsonb_build_object('reservation_id', booking, 'user_id', buyer,
            'performance_id', performance, 'seats', jsonb_build_array(seat))",
    )
    .await?;
    run(conn, "analyze seeds").await
}

/// Copies the rows of the pattern once for each seed, in their order.
async fn copy_table(
    conn: &mut PgConnection,
    table: &str,
    which: &str,
    changed: &[(&str, &str)],
) -> Result<()> {
    let (names, values) = columns(conn, table, changed).await?;
    let copy = format!(
        "insert into {table} ({names})
         select {values} from seeds s cross join {table} t where {which} order by s.n"
    );
    run(conn, copy).await
}

/// The columns of a table that are written, and what is written into them.
async fn columns(conn: &mut PgConnection, table: &str, changed: &[(&str, &str)]) -> Result<(String, String)> {
    let sql = "
        select attname::text from pg_attribute
        where attrelid = $1::regclass and attnum > 0 and not attisdropped and attidentity = '' order by attnum";
    let names: Vec<String> = sqlx::query_scalar(sql).bind(table).fetch_all(conn).await?;
    let value = |name: &String| {
        let new = changed.iter().find(|(column, _)| column == name).map(|(_, value)| (*value).to_owned());
        new.unwrap_or(format!("t.{name}"))
    };
    let values: Vec<String> = names.iter().map(value).collect();
    Ok((names.join(", "), values.join(", ")))
}

/// Makes the parts of the history for the days up to now.
pub async fn make_days(pool: &PgPool, from: DateTime<Utc>) -> Result<()> {
    let known = retention::days(pool).await?;
    let until = store::now(pool).await?.date_naive();
    for day in from.date_naive().iter_days().take_while(|day| *day <= until) {
        if !known.contains(&day) {
            let mut tx = pool.begin().await?;
            retention::add_day(&mut tx, day).await?;
            tx.commit().await?;
        }
    }
    Ok(())
}

/// Tidies up as autovacuum would sooner or later, and begins a new checkpoint.
pub async fn settle(pool: &PgPool) -> Result<()> {
    sqlx::query("vacuum (analyze)").execute(pool).await?;
    sqlx::query("checkpoint").execute(pool).await.map(drop)
}

/// How many bytes the database has on disk.
pub async fn size(db: impl PgExecutor<'_>) -> Result<i64> {
    sqlx::query_scalar("select pg_database_size(current_database())").fetch_one(db).await
}

/// What each kind of statement has cost since the counters were reset, the dearest first.
pub async fn costs(db: impl PgExecutor<'_>) -> Result<Vec<StatementCost>> {
    let sql = "
        select query, calls, shared_blks_hit + shared_blks_read as pages, shared_blks_dirtied as dirtied,
               wal_bytes::bigint as wal_bytes
        from pg_stat_statements where query not like '%pg_stat%' order by pages desc, query";
    let rows = sqlx::query(sql).fetch_all(db).await?;
    let cost = |row: &sqlx::postgres::PgRow| {
        Ok(StatementCost {
            query: row.try_get("query")?,
            calls: row.try_get("calls")?,
            pages: row.try_get("pages")?,
            dirtied: row.try_get("dirtied")?,
            wal_bytes: row.try_get("wal_bytes")?,
        })
    };
    rows.iter().map(cost).collect()
}

/// Where the log ends now.
pub async fn log_end(db: impl PgExecutor<'_>) -> Result<String> {
    sqlx::query_scalar("select pg_current_wal_flush_lsn()::text").fetch_one(db).await
}

/// What was done to rows and indexes from one place of the log to another, in records.
pub async fn log_work(pool: &PgPool, from: &str, to: &str) -> Result<LogWork> {
    sqlx::query("create extension if not exists pg_walinspect").execute(pool).await?;
    let sql = "
        select coalesce(sum(count) filter (where kind like 'Heap/INSERT%'), 0)::bigint as rows_inserted,
               coalesce(sum(count) filter (where kind = 'Heap/HOT_UPDATE'), 0)::bigint as heap_only_updates,
               coalesce(sum(count) filter (where kind = 'Heap/UPDATE'), 0)::bigint as full_updates,
               coalesce(sum(count) filter (where kind like 'Btree/INSERT_%'), 0)::bigint as index_entries,
               coalesce(sum(count) filter (where kind like 'Heap%/LOCK'), 0)::bigint as row_locks
        from pg_get_wal_stats($1::pg_lsn, $2::pg_lsn, true) as stats (kind, count)";
    let row = sqlx::query(sql).bind(from).bind(to).fetch_one(pool).await?;
    Ok(LogWork {
        rows_inserted: row.try_get("rows_inserted")?,
        heap_only_updates: row.try_get("heap_only_updates")?,
        full_updates: row.try_get("full_updates")?,
        index_entries: row.try_get("index_entries")?,
        row_locks: row.try_get("row_locks")?,
    })
}

/// What was written to the log from one place in it to another.
pub async fn log_cost(pool: &PgPool, from: &str, to: &str) -> Result<LogCost> {
    sqlx::query("create extension if not exists pg_walinspect").execute(pool).await?;
    let sql = "
        select sum(count)::bigint, sum(record_size)::bigint, sum(fpi_size)::bigint
        from pg_get_wal_stats($1::pg_lsn, $2::pg_lsn)";
    let row = sqlx::query(sql).bind(from).bind(to).fetch_one(pool).await?;
    Ok(LogCost { records: row.try_get(0)?, record_bytes: row.try_get(1)?, page_bytes: row.try_get(2)? })
}

/// For statements that are put together here, of nothing that comes from outside.
async fn run(conn: &mut PgConnection, sql: impl Into<String>) -> Result<()> {
    sqlx::raw_sql(AssertSqlSafe(sql.into())).execute(conn).await.map(drop)
}
