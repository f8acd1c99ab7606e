//! The fence in Postgres.
//!
//! The database is the service's own. So these queries are not checked against the engine's schema when they are compiled; the
//! repository's `tests/worker_sdk.rs` runs every one of them.

use std::time::Duration;

use chrono::{DateTime, Utc};
use saga_core::Outcome;
use sqlx::postgres::types::PgInterval;
use sqlx::types::Json;
use sqlx::{Connection, PgConnection, PgPool, Postgres, Result, Row, Transaction};
use uuid::Uuid;

use crate::database::{FenceDatabase, Locked};
use crate::fence::Record;

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

impl FenceDatabase for Postgres {
    /// The process of the server that serves the session.
    type Session = i32;

    async fn prepare(pool: &PgPool) -> Result<()> {
        let mut tx = pool.begin().await?;
        sqlx::raw_sql(TABLE).execute(&mut *tx).await?;
        tx.commit().await
    }

    async fn begin(conn: &mut PgConnection) -> Result<Transaction<'_, Postgres>> {
        conn.begin().await
    }

    async fn lock(
        conn: &mut PgConnection,
        saga: Uuid,
        step: &str,
        deadline: Option<DateTime<Utc>>,
        keep: Duration,
    ) -> Result<Locked<i32>> {
        // What is returned is computed after the wait for the lock.
        let sql = "
            insert into saga_outcomes as known (saga, step, keep_until)
            values ($1, $2, greatest(clock_timestamp(), $3) + $4)
            on conflict (saga, step) do update set keep_until = greatest(known.keep_until, excluded.keep_until)
            returning visit, undone, outcome, clock_timestamp() as now, pg_backend_pid() as session";
        let keep = PgInterval::try_from(keep).map_err(sqlx::Error::Encode)?;
        let query = sqlx::query(sql).bind(saga).bind(step).bind(deadline).bind(keep);
        let row = query.fetch_one(conn).await?;
        let outcome: Option<Json<Outcome>> = row.try_get("outcome")?;
        let record = Record {
            visit: row.try_get("visit")?,
            undone: row.try_get("undone")?,
            outcome: outcome.map(|Json(outcome)| outcome),
        };
        Ok(Locked { record, now: row.try_get("now")?, session: row.try_get("session")? })
    }

    async fn save(conn: &mut PgConnection, saga: Uuid, step: &str, record: &Record) -> Result<()> {
        let sql =
            "update saga_outcomes set visit = $3, undone = $4, outcome = $5 where saga = $1 and step = $2";
        let query = sqlx::query(sql).bind(saga).bind(step).bind(record.visit).bind(record.undone);
        query.bind(record.outcome.as_ref().map(Json)).execute(conn).await.map(drop)
    }

    async fn purge(pool: &PgPool, limit: u32) -> Result<u64> {
        let sql = "
            delete from saga_outcomes where (saga, step) in (
                select saga, step from saga_outcomes where keep_until < clock_timestamp()
                limit $1 for update skip locked)";
        Ok(sqlx::query(sql).bind(i64::from(limit)).execute(pool).await?.rows_affected())
    }

    async fn end_session(pool: &PgPool, session: i32) -> Result<()> {
        sqlx::query("select pg_terminate_backend($1)").bind(session).execute(pool).await.map(drop)
    }

    fn is_unavailable(error: &sqlx::Error) -> bool {
        use sqlx::Error as E;
        match error {
            E::Database(error) => !error.code().is_some_and(|code| fails_again(&code)),
            E::RowNotFound | E::Configuration(_) | E::InvalidArgument(_) | E::InvalidSavePointStatement => {
                false
            }
            E::Encode(_) => false,
            _ => true,
        }
    }
}

/// Whether work that met this SQLSTATE fails again whenever it is tried.
fn fails_again(sqlstate: &str) -> bool {
    match sqlstate {
        // A right, a table, a column, a function or a type is missing: an operator or a migration can add it.
        "42501" | "42P01" | "42703" | "42883" | "42704" | "42P10" | "42804" => false,
        // Behind a pooler, another client has prepared a statement under the same name.
        "42P05" => false,
        // A value cannot be stored or computed (22), a constraint is broken (23), a statement is wrong (42).
        _ => ["22", "23", "42"].iter().any(|class| sqlstate.starts_with(class)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sqlstates_follow_the_cases_of_all_sdks() {
        let all = include_str!("../../../sdk/fence-cases.json");
        let all: serde_json::Value = serde_json::from_str(all).unwrap();
        for (meaning, expected) in [("the work is at fault", true), ("the database is away", false)] {
            let codes = all["sqlstates"][meaning].as_array().unwrap();
            assert!(!codes.is_empty(), "{meaning}");
            for code in codes {
                assert_eq!(fails_again(code.as_str().unwrap()), expected, "{code}");
            }
        }
    }

    #[test]
    fn lost_connection_is_unavailable_missing_row_is_not() {
        assert!(Postgres::is_unavailable(&sqlx::Error::PoolTimedOut));
        assert!(!Postgres::is_unavailable(&sqlx::Error::RowNotFound));
    }
}
