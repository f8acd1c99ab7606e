//! Statements of the benchmark on its own database.
//!
//! Some of it is about an extension that the schema does not need, so none of these queries is held against the schema
//! when it is compiled; `tools/bench/tests/scenarios.rs` runs every one of them.

use chrono::{DateTime, TimeDelta, Utc};
use serde::Serialize;
use sqlx::postgres::types::PgInterval;
use sqlx::{PgExecutor, PgPool, Row};
use uuid::Uuid;

use boxoffice::store::Result;

/// Users who get their points in one statement.
const ENDOWED_AT_ONCE: usize = 10_000;

/// A kind of statement, and how often it was executed.
#[derive(Clone, Debug, Serialize)]
pub struct Statement {
    pub calls: i64,
    pub query: String,
}

/// What Postgres has counted since its start.
#[derive(Clone, Copy, Debug)]
pub struct Counters {
    /// Transactions that were committed; each process reports its own within a second.
    pub commits: i64,
    /// How often the log was forced to disk.
    pub syncs: i64,
    /// Bytes of the log.
    pub wal_bytes: i64,
    /// Whole pages among them: of each page the first change after a checkpoint.
    pub wal_pages: i64,
}

/// A hold that ran out.
#[derive(Clone, Copy, Debug)]
pub struct RanOut {
    pub id: Uuid,
    /// When it was due.
    pub due: DateTime<Utc>,
    /// When the engine had its alarm in hand, by the history.
    pub rung: DateTime<Utc>,
}

/// The version of the server.
pub async fn version(db: impl PgExecutor<'_>) -> Result<String> {
    sqlx::query_scalar("show server_version").fetch_one(db).await
}

/// Whether the server counts statements.
pub async fn counts_statements(db: impl PgExecutor<'_>) -> Result<bool> {
    let sql = "select current_setting('shared_preload_libraries') like '%pg_stat_statements%'";
    sqlx::query_scalar(sql).fetch_one(db).await
}

/// Makes the server count statements from its next start on.
pub async fn load_statement_counter(db: impl PgExecutor<'_>) -> Result<()> {
    let sql = "alter system set shared_preload_libraries = 'pg_stat_statements'";
    sqlx::query(sql).execute(db).await.map(drop)
}

/// Begins to count statements from nothing.
pub async fn reset_statements(pool: &PgPool) -> Result<()> {
    sqlx::query("create extension if not exists pg_stat_statements").execute(pool).await?;
    sqlx::query("select pg_stat_statements_reset()").execute(pool).await.map(drop)
}

/// What was executed since then, most often first, without the questions about it.
pub async fn statements(db: impl PgExecutor<'_>) -> Result<Vec<Statement>> {
    let sql = "select calls, query from pg_stat_statements
               where query not like '%pg_stat_statements%' order by calls desc, query";
    let rows = sqlx::query(sql).fetch_all(db).await?;
    rows.iter()
        .map(|row| Ok(Statement { calls: row.try_get("calls")?, query: row.try_get("query")? }))
        .collect()
}

/// What the server has counted by now.
pub async fn counters(db: impl PgExecutor<'_>) -> Result<Counters> {
    let sql = "
        select d.xact_commit, w.wal_sync, w.wal_bytes::bigint, w.wal_fpi
        from pg_stat_database d, pg_stat_wal w where d.datname = current_database()";
    let row = sqlx::query(sql).fetch_one(db).await?;
    Ok(Counters {
        commits: row.try_get(0)?,
        syncs: row.try_get(1)?,
        wal_bytes: row.try_get(2)?,
        wal_pages: row.try_get(3)?,
    })
}

/// Gives these users points, each as a charge in the ledger, in one statement.
pub async fn endow(pool: &PgPool, users: &[Uuid], points: i64) -> Result<()> {
    let sql = "
        with accounts as (
            insert into accounts (user_id, balance) select id, $2 from unnest($1::uuid[]) as new (id) returning user_id
        )
        insert into ledger_entries (id, user_id, kind, amount, balance, created_at)
        select gen_random_uuid(), user_id, 'charge', $2, $2, now() from accounts";
    for some in users.chunks(ENDOWED_AT_ONCE) {
        sqlx::query(sql).bind(some).bind(points).execute(pool).await?;
    }
    Ok(())
}

/// How many seats are held.
pub async fn seats_held(db: impl PgExecutor<'_>) -> Result<i64> {
    sqlx::query_scalar("select count(*) from seats where status = 'held'").fetch_one(db).await
}

/// Lets every hold run out between `first` and `over` later, evenly, and answers when each will: in the reservation, its
/// seats and its saga. Their alarms are the caller's to set anew.
pub async fn bring_forward(
    pool: &PgPool,
    first: DateTime<Utc>,
    over: TimeDelta,
    grace: TimeDelta,
) -> Result<Vec<(Uuid, DateTime<Utc>)>> {
    let sql = r#"
        with due as (
            select id, $1 + $2 * ((row_number() over (order by id) - 1)::float8 / count(*) over ()) as at
            from reservations where status = 'held'
        ), holds as (
            update reservations r set expires_at = due.at, claimable_at = due.at + $3 from due where r.id = due.id
        ), places as (
            update seats s set expires_at = due.at, claimable_at = due.at + $3 from due where s.holder = due.id
        ), outputs as (
            update saga_history h set detail = (h.detail::jsonb || jsonb_build_object(
                'expires_at', to_char(due.at at time zone 'utc', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'),
                'claimable_at', to_char((due.at + $3) at time zone 'utc', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')))::text
            from due where h.saga_id = due.id and h.event = 1
        )
        update sagas g set due_at = due.at
        from due where g.id = due.id
        returning g.id, due.at
    "#;
    let rows =
        sqlx::query(sql).bind(first).bind(interval(over)).bind(interval(grace)).fetch_all(pool).await?;
    rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect()
}

/// Vacuums the tables that [`bring_forward`] has changed, as autovacuum would later.
pub async fn tidy(db: impl PgExecutor<'_>) -> Result<()> {
    sqlx::query("vacuum (analyze) reservations, seats, sagas").execute(db).await.map(drop)
}

/// Adds sagas that wait until `due`, so that measurements run beside many rows.
pub async fn add_waiting(db: impl PgExecutor<'_>, ids: &[Uuid], due: DateTime<Utc>) -> Result<()> {
    let sql = "
        with booking as (
            select code as definition from workflow_definitions where workflow = 'booking' and version = 1
        ), history as (
            insert into saga_history (saga_id, seq, at, visit, attempt, event, step, direction, detail)
            select id, seq, now(), 1, 0, seq - 1, 0, 0, case seq when 1 then '{}' else json_build_object('expires_at', $2)::text end
            from unnest($1::uuid[]) as new (id), generate_series(1, 2) as seq
        )
        insert into sagas (id, definition, status, step, direction, visit, attempt, resend_count, entered_at, sent_at, due_at, seq,
                           created_at, updated_at)
        select id, definition, saga_status('waiting'), saga_step(definition, 'await_payment'), 0, 1, 0, 0, now(), now(), $2, 2,
               now(), now()
        from unnest($1::uuid[]) as new (id), booking";
    sqlx::query(sql).bind(ids).bind(due).execute(db).await.map(drop)
}

/// The holds that ran out, with when they were due and when the engine knew.
pub async fn ran_out(db: impl PgExecutor<'_>) -> Result<Vec<RanOut>> {
    let sql = "
        select r.id, r.expires_at as due, h.at as rung
        from reservations r join saga_history h on h.saga_id = r.id and h.event = 6
        where r.status = 'expired'";
    let rows = sqlx::query(sql).fetch_all(db).await?;
    rows.iter()
        .map(|row| {
            Ok(RanOut { id: row.try_get("id")?, due: row.try_get("due")?, rung: row.try_get("rung")? })
        })
        .collect()
}

fn interval(length: TimeDelta) -> PgInterval {
    PgInterval { months: 0, days: 0, microseconds: length.num_microseconds().unwrap_or(i64::MAX) }
}
