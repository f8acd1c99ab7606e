//! The outcomes that a service elsewhere remembers: its fence, a table in its own database.
//!
//! That database is not the engine's, so these queries are not held against the engine's schema when they are compiled;
//! `tests/elsewhere.rs` runs every one of them against the table that [`prepare`] makes.

use std::time::Duration;

use chrono::{DateTime, Utc};
use sqlx::postgres::types::PgInterval;
use sqlx::types::Json;
use sqlx::{PgConnection, PgPool, Row};
use uuid::Uuid;

use super::Result;
use crate::saga::Outcome;

/// The table, in whatever schema comes first on the search path. Made once; two processes may do so at once.
const TABLE: &str = "
    select pg_advisory_xact_lock(7236279817263);
    create table if not exists saga_outcomes (
        saga uuid not null,
        step text not null,
        visit int not null default 0,
        undone int not null default 0,
        outcome jsonb,
        keep_until timestamptz not null,
        primary key (saga, step)
    );
    create index if not exists saga_outcomes_keep_until on saga_outcomes (keep_until);
    comment on table saga_outcomes is 'What this service said to each step of a saga: the fence of its effects.';
    comment on column saga_outcomes.visit is 'The latest visit that was begun.';
    comment on column saga_outcomes.undone is 'Every do up to this visit is refused: it was undone, or never ran.';
    comment on column saga_outcomes.outcome is 'Done or rejected at that visit; null while it is not known.';
    comment on column saga_outcomes.keep_until is 'Nobody can ask again after it.';
";

/// What is remembered of one step of one saga.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Remembered {
    /// The latest visit that was begun; 0 if none was.
    pub visit: i32,
    /// Every `do` up to this visit is refused.
    pub undone: i32,
    /// What was said to that visit, if it was `done` or `rejected`.
    pub outcome: Option<Outcome>,
}

/// Makes the table if it is not there.
pub async fn prepare(pool: &PgPool) -> Result<()> {
    let mut tx = pool.begin().await?;
    sqlx::raw_sql(TABLE).execute(&mut *tx).await?;
    tx.commit().await
}

/// Locks what is remembered of a step, as the first statement of a transaction; it is kept for `keep` from now on, and
/// so long after the deadline if there is one. Also answers the database's clock, read after the lock.
pub async fn lock(
    conn: &mut PgConnection,
    saga: Uuid,
    step: &str,
    deadline: Option<DateTime<Utc>>,
    keep: Duration,
) -> Result<(Remembered, DateTime<Utc>)> {
    let sql = "
        insert into saga_outcomes as known (saga, step, keep_until)
        values ($1, $2, greatest(clock_timestamp(), $3) + $4)
        on conflict (saga, step) do update set keep_until = greatest(known.keep_until, excluded.keep_until)
        returning visit, undone, outcome";
    let keep = PgInterval::try_from(keep).map_err(sqlx::Error::Encode)?;
    let row = sqlx::query(sql).bind(saga).bind(step).bind(deadline).bind(keep).fetch_one(&mut *conn).await?;
    let outcome: Option<Json<Outcome>> = row.try_get("outcome")?;
    let remembered = Remembered {
        visit: row.try_get("visit")?,
        undone: row.try_get("undone")?,
        outcome: outcome.map(|Json(outcome)| outcome),
    };
    Ok((remembered, super::now(conn).await?))
}

/// Writes what is to be remembered of a step, which is locked.
pub async fn save(conn: &mut PgConnection, saga: Uuid, step: &str, known: &Remembered) -> Result<()> {
    sqlx::query(
        "update saga_outcomes set visit = $3, undone = $4, outcome = $5 where saga = $1 and step = $2",
    )
    .bind(saga)
    .bind(step)
    .bind(known.visit)
    .bind(known.undone)
    .bind(known.outcome.as_ref().map(Json))
    .execute(conn)
    .await?;
    Ok(())
}

/// The session of a connection, by which [`end_session`] ends it.
pub async fn session(conn: &mut PgConnection) -> Result<i32> {
    sqlx::query_scalar("select pg_backend_pid()").fetch_one(conn).await
}

/// Ends a session of the same user, with the transaction that is open in it.
pub async fn end_session(pool: &PgPool, session: i32) -> Result<()> {
    sqlx::query("select pg_terminate_backend($1)").bind(session).execute(pool).await.map(drop)
}

/// Forgets up to `limit` steps that nobody can ask about any more, and says how many.
pub async fn purge(pool: &PgPool, limit: i64) -> Result<u64> {
    let sql = "
        delete from saga_outcomes where (saga, step) in (
            select saga, step from saga_outcomes where keep_until < clock_timestamp() limit $1 for update skip locked)";
    Ok(sqlx::query(sql).bind(limit).execute(pool).await?.rows_affected())
}
