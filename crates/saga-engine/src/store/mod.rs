//! All SQL of the engine, one file per noun; no other module writes any.
//!
//! Functions take what they run on first: `impl PgExecutor` where one statement stands for itself,
//! `&mut PgConnection` where the caller's transaction must hold around it, and [`write_batch::WriteBatch`] where they add a part to
//! the one statement that writes all that was decided together. Times are parameters: the one
//! clock that decides is read by [`now`] inside the transaction.

pub mod activity;
pub mod attributes;
pub mod definitions;
pub mod claims;
pub mod due;
pub mod history;
pub mod idempotency;
pub mod operations;
pub mod probe;
pub mod replay;
pub mod retention;
pub mod flights;
pub mod sagas;
pub mod schema;
pub mod versions;
mod pool;
mod servers;
pub mod session;
mod trouble;
#[cfg(test)]
mod sqlstate_laws;
pub mod sqlstate;
pub mod batch_tx;
pub mod write_batch;
pub mod codes;
pub mod members;
pub mod names;
pub mod tracked_rows;
pub mod concurrency_limit;

use std::time::Duration;

use chrono::{DateTime, Utc};
use sqlx::{PgExecutor, PgPool};

use crate::clock::Clock;

pub use batch_tx::Control;
pub use pool::{open, open_for_steps};
pub use probe::can_write;

/// What the database said no to, or could not be asked.
pub type Result<T> = std::result::Result<T, sqlx::Error>;

/// The longest that work in the background waits for the database, for all statements of one batch. Longer than the server's
/// own bounds, and than the bound of a request.
pub const WORK_TIMEOUT: Duration = Duration::from_secs(10);

/// The database's clock, now: in a transaction, after the locks, it is the time that decides.
pub async fn now(db: impl PgExecutor<'_>) -> Result<DateTime<Utc>> {
    sqlx::query_scalar!(r#"select clock_timestamp() as "now!""#).fetch_one(db).await
}

/// Corrects a clock by the database's; half of the round trip is taken as the way of the answer.
pub async fn correct_clock(pool: &PgPool, clock: &Clock) -> Result<()> {
    let mut conn = pool.acquire().await?;
    let before = clock.uncorrected();
    let database = now(&mut *conn).await?;
    let after = clock.uncorrected();
    clock.follow(database, before + (after - before) / 2);
    Ok(())
}

/// Waits no longer than `limit` for a database that may not answer at all. What is cut off may still be done by the
/// server, unless it is in a transaction that was not committed yet; its connection is closed (see `crates/saga-engine/src/store/pool.rs`).
pub async fn bounded_by<T>(limit: Duration, work: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::time::timeout(limit, work).await.unwrap_or_else(|_elapsed| {
        let text = format!("Postgres did not answer within {} ms", limit.as_millis());
        Err(sqlx::Error::Io(std::io::Error::new(std::io::ErrorKind::TimedOut, text)))
    })
}

/// Waits no longer than [`WORK_TIMEOUT`]: for work in the background, which no request bounds.
pub async fn bounded<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    bounded_by(WORK_TIMEOUT, work).await.inspect_err(trouble::note)
}

/// Whether trying again later may help: the error is not known to come again for the same work. Errors that speak of the
/// connection or of the server also have all connections renewed.
pub fn is_unavailable(error: &sqlx::Error) -> bool {
    use sqlx::Error as E;
    trouble::note(error);
    match error {
        E::Database(error) => !error.code().is_some_and(|code| sqlstate::fails_again(&code)),
        // The program is wrong, or a row that must be there is missing.
        E::RowNotFound | E::Configuration(_) | E::InvalidArgument(_) | E::InvalidSavePointStatement => false,
        // A value of this work cannot be sent.
        E::Encode(_) => false,
        // The connection or the pool; and what was read does not look as this release expects, which a migration explains
        // as well as a defect: another release may be able to do it.
        _ => true,
    }
}

/// Whether the error says that the connection was of no use any more: on a new one the same may succeed at once.
pub fn outdates_connections(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(|error| error.code());
    code.is_some_and(|code| sqlstate::outdates_connections(&code))
}

/// Whether the error ended a wait by its bound: to try again at once would only wait again.
pub fn ended_a_wait(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::PoolTimedOut => true,
        sqlx::Error::Io(error) => error.kind() == std::io::ErrorKind::TimedOut,
        sqlx::Error::Database(error) => error.code().is_some_and(|code| sqlstate::ends_a_wait(&code)),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_without_a_code_are_classified() {
        assert!(is_unavailable(&sqlx::Error::PoolTimedOut));
        assert!(is_unavailable(&sqlx::Error::PoolClosed));
        assert!(is_unavailable(&sqlx::Error::WorkerCrashed));
        assert!(is_unavailable(&sqlx::Error::ColumnNotFound("new".to_owned())));
        assert!(!is_unavailable(&sqlx::Error::RowNotFound));
        assert!(!is_unavailable(&sqlx::Error::Encode("too long".into())));
    }

    #[tokio::test(start_paused = true)]
    async fn work_in_the_background_ends_by_its_bound() {
        let begun = tokio::time::Instant::now();
        let ended = bounded(std::future::pending::<Result<()>>()).await.unwrap_err();
        assert_eq!(begun.elapsed(), WORK_TIMEOUT);
        assert!(is_unavailable(&ended) && ended_a_wait(&ended), "{ended}");
    }
}
