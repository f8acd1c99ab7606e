//! The fence in SQLite. One process at a time writes to a database, so the lock of a record is the lock of the whole database.

use std::time::Duration;

use chrono::{DateTime, Utc};
use saga_core::Outcome;
use sqlx::sqlite::{SqliteConnection, SqlitePool};
use sqlx::types::Json;
use sqlx::{Connection, Result, Row, Sqlite, Transaction};
use uuid::Uuid;

use crate::database::{FenceDatabase, Locked};
use crate::fence::Record;

/// The table. Times are milliseconds since 1970.
const TABLE: &str = "
    create table if not exists saga_outcomes (
        saga text not null,
        step text not null,
        visit integer not null default 0,
        undone integer not null default 0,
        outcome text,
        keep_until integer not null,
        primary key (saga, step)
    ) strict;
    create index if not exists saga_outcomes_keep_until on saga_outcomes (keep_until);
";

impl FenceDatabase for Sqlite {
    /// A session ends with its connection.
    type Session = ();

    async fn prepare(pool: &SqlitePool) -> Result<()> {
        sqlx::raw_sql(TABLE).execute(pool).await.map(drop)
    }

    /// Takes the lock for writing at once. A transaction that reads first could not write after another one has written.
    async fn begin(conn: &mut SqliteConnection) -> Result<Transaction<'_, Sqlite>> {
        conn.begin_with("begin immediate").await
    }

    async fn lock(
        conn: &mut SqliteConnection,
        saga: Uuid,
        step: &str,
        deadline: Option<DateTime<Utc>>,
        keep: Duration,
    ) -> Result<Locked<()>> {
        let sql = "
            insert into saga_outcomes (saga, step, keep_until) values ($1, $2, max($3, $4) + $5)
            on conflict (saga, step) do update set keep_until = max(keep_until, excluded.keep_until)
            returning visit, undone, outcome";
        let now = now(conn).await?;
        let until = deadline.map_or(now, |deadline| deadline.timestamp_millis());
        let keep = i64::try_from(keep.as_millis()).map_err(|error| sqlx::Error::Encode(error.into()))?;
        let query = sqlx::query(sql).bind(saga.to_string()).bind(step).bind(now).bind(until).bind(keep);
        let row = query.fetch_one(conn).await?;
        let outcome: Option<Json<Outcome>> = row.try_get("outcome")?;
        let record = Record {
            visit: row.try_get("visit")?,
            undone: row.try_get("undone")?,
            outcome: outcome.map(|Json(outcome)| outcome),
        };
        let now = DateTime::from_timestamp_millis(now).unwrap_or_default();
        Ok(Locked { record, now, session: () })
    }

    async fn save(conn: &mut SqliteConnection, saga: Uuid, step: &str, record: &Record) -> Result<()> {
        let sql =
            "update saga_outcomes set visit = $3, undone = $4, outcome = $5 where saga = $1 and step = $2";
        let query = sqlx::query(sql).bind(saga.to_string()).bind(step).bind(record.visit).bind(record.undone);
        query.bind(record.outcome.as_ref().map(Json)).execute(conn).await.map(drop)
    }

    async fn purge(pool: &SqlitePool, limit: u32) -> Result<u64> {
        let sql = "
            delete from saga_outcomes where rowid in (
                select rowid from saga_outcomes where keep_until < unixepoch('subsec') * 1000 limit $1)";
        Ok(sqlx::query(sql).bind(i64::from(limit)).execute(pool).await?.rows_affected())
    }

    async fn end_session(_pool: &SqlitePool, _session: ()) -> Result<()> {
        Ok(())
    }

    fn is_unavailable(error: &sqlx::Error) -> bool {
        use sqlx::Error as E;
        match error {
            E::Database(error) => error.code().is_some_and(|code| is_busy_or_broken(&code)),
            E::RowNotFound | E::Configuration(_) | E::InvalidArgument(_) | E::InvalidSavePointStatement => {
                false
            }
            E::Encode(_) => false,
            _ => true,
        }
    }
}

/// The clock of the machine, read by SQLite: milliseconds since 1970.
async fn now(conn: &mut SqliteConnection) -> Result<i64> {
    sqlx::query_scalar("select cast(unixepoch('subsec') * 1000 as integer)").fetch_one(conn).await
}

/// Whether a result code of SQLite is about the file and not about the statement: busy (5), locked (6), out of memory (7), read-only (8),
/// interrupted (9), input or output (10), corrupt (11), full (13), cannot be opened (14). The low byte is the primary code.
fn is_busy_or_broken(code: &str) -> bool {
    code.parse::<u32>().is_ok_and(|code| matches!(code & 0xff, 5..=11 | 13 | 14))
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;
    use sqlx::sqlite::{SqliteConnectOptions, SqlitePoolOptions};

    use super::*;

    const KEEP: Duration = Duration::from_secs(3600);

    async fn database() -> (tempfile::TempDir, SqlitePool) {
        let dir = tempfile::tempdir().unwrap();
        let options =
            SqliteConnectOptions::new().filename(dir.path().join("fence.db")).create_if_missing(true);
        let pool = SqlitePoolOptions::new().max_connections(4).connect_with(options).await.unwrap();
        for _ in 0..2 {
            Sqlite::prepare(&pool).await.unwrap();
        }
        (dir, pool)
    }

    #[tokio::test]
    async fn record_is_kept_as_it_was_saved() {
        let (_dir, pool) = database().await;
        let (saga, record) = (
            Uuid::from_u128(1),
            Record { visit: 2, undone: 1, outcome: Some(Outcome::rejected("no_paper")) },
        );
        let mut conn = pool.acquire().await.unwrap();
        let mut tx = Sqlite::begin(&mut conn).await.unwrap();
        let fresh = Sqlite::lock(&mut tx, saga, "print", None, KEEP).await.unwrap();
        assert_eq!(fresh.record, Record::default());
        Sqlite::save(&mut tx, saga, "print", &record).await.unwrap();
        tx.commit().await.unwrap();
        let kept = Sqlite::lock(&mut conn, saga, "print", None, KEEP).await.unwrap();
        assert_eq!(kept.record, record);
    }

    #[tokio::test]
    async fn second_transaction_waits_for_the_first() {
        let (_dir, pool) = database().await;
        let (mut one, mut other) = (pool.acquire().await.unwrap(), pool.acquire().await.unwrap());
        let first = Sqlite::begin(&mut one).await.unwrap();
        let second = tokio::time::timeout(Duration::from_millis(200), Sqlite::begin(&mut other)).await;
        assert!(second.is_err(), "the first holds the lock");
        first.commit().await.unwrap();
        let mut third = pool.acquire().await.unwrap();
        Sqlite::begin(&mut third).await.unwrap();
    }

    #[tokio::test]
    async fn records_are_purged_after_their_time() {
        let (_dir, pool) = database().await;
        let mut conn = pool.acquire().await.unwrap();
        let later = Some(Utc::now() + TimeDelta::days(1));
        for (saga, deadline, keep) in [(1, None, Duration::ZERO), (2, None, KEEP), (3, later, Duration::ZERO)]
        {
            Sqlite::lock(&mut conn, Uuid::from_u128(saga), "print", deadline, keep).await.unwrap();
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert_eq!(Sqlite::purge(&pool, 10).await.unwrap(), 1);
        let kept: i64 =
            sqlx::query_scalar("select count(*) from saga_outcomes").fetch_one(&pool).await.unwrap();
        assert_eq!(kept, 2);
    }

    #[test]
    fn busy_is_unavailable_broken_constraint_is_not() {
        assert!(is_busy_or_broken("5") && is_busy_or_broken("517"), "busy, and busy with a snapshot");
        assert!(!is_busy_or_broken("1555") && !is_busy_or_broken("1"), "a constraint, a wrong statement");
        assert!(Sqlite::is_unavailable(&sqlx::Error::PoolTimedOut));
    }
}
