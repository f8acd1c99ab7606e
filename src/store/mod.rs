//! All SQL, one file per noun; no other module writes any.
//!
//! Functions take what they run on first: `impl PgExecutor` where one statement stands for itself,
//! `&mut PgConnection` where the caller's transaction must hold around it, and [`changes::Changes`] where they add a part to
//! the one statement that writes all that was decided together. Times are parameters: the one
//! clock that decides is read by [`now`] inside the transaction.

pub mod api_keys;
pub mod audit;
pub mod catalog;
pub mod growth;
pub mod idempotency;
pub mod operations;
pub mod outcomes;
pub mod rivals;
pub mod payments;
pub mod plans;
pub mod points;
pub mod probe;
pub mod pulse;
pub mod queue;
pub mod queue_journal;
pub mod rehearsal;
pub mod replay;
pub mod reservations;
pub mod retention;
pub mod saga_search;
pub mod sagas;
pub mod schema;
pub mod seats;
pub mod session;
pub mod settlements;
pub mod tickets;
pub mod users;
pub mod versions;
pub mod attempt;
pub mod changes;
pub mod cluster;
pub mod rows;
pub mod turns;

pub use schema::migrate;

use std::time::Duration;

use chrono::{DateTime, Utc};
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, PgExecutor};

pub use probe::can_write;

/// What the database said no to, or could not be asked.
pub type Result<T> = std::result::Result<T, sqlx::Error>;

/// A connection that nobody has used for so long is asked whether it is still there.
const ASKED_AFTER: Duration = Duration::from_millis(500);

/// Opens the pool. Connections are made when needed, so that a database that is away does not stop the start.
pub fn open(url: &str, connections: u32) -> Result<PgPool> {
    Ok(pool(options(url)?, connections, session::SETTINGS.to_owned()))
}

/// Opens a pool for the few statements that every saga runs through. Each is planned once per connection, for any
/// number of rows; and since that may be while the tables are still empty or small, no plan reads a whole table, or a
/// whole index, where single entries would do.
pub fn open_for_steps(url: &str, connections: u32) -> Result<PgPool> {
    Ok(pool(options(url)?, connections, format!("{};{}", session::SETTINGS, session::STEPS_SETTINGS)))
}

fn options(url: &str) -> Result<PgConnectOptions> {
    Ok(url
        .parse::<PgConnectOptions>()?
        .application_name("boxoffice")
        // PgBouncer refuses it, and it changes nothing: numbers are sent in binary.
        .extra_float_digits(None)
        .log_slow_statements(log::LevelFilter::Warn, Duration::from_secs(1)))
}

/// `settings` are the statements that each new connection begins its session with.
fn pool(options: PgConnectOptions, connections: u32, settings: String) -> PgPool {
    PgPoolOptions::new()
        .max_connections(connections)
        .acquire_timeout(Duration::from_secs(5))
        // One that was used a moment ago is not asked whether it is still there: that is a round trip.
        .test_before_acquire(false)
        .before_acquire(|conn, found| {
            Box::pin(async move {
                if found.idle_for >= ASKED_AFTER {
                    conn.ping().await?;
                }
                Ok(true)
            })
        })
        .after_connect(move |conn, _| {
            let settings = AssertSqlSafe(settings.clone());
            Box::pin(async move { sqlx::raw_sql(settings).execute(conn).await.map(drop) })
        })
        .connect_lazy_with(options)
}

/// The database's clock, now: in a transaction, after the locks, it is the time that decides.
pub async fn now(db: impl PgExecutor<'_>) -> Result<DateTime<Utc>> {
    sqlx::query_scalar!(r#"select clock_timestamp() as "now!""#).fetch_one(db).await
}

/// Waits no longer than `limit` for a database that may not answer at all. A statement that is cut off may still be
/// carried out by the server.
pub async fn bounded_by<T>(limit: Duration, work: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::time::timeout(limit, work).await.unwrap_or_else(|_elapsed| {
        let text = format!("Postgres did not answer within {} ms", limit.as_millis());
        Err(sqlx::Error::Io(std::io::Error::new(std::io::ErrorKind::TimedOut, text)))
    })
}

/// Whether the database was away or too busy, so that trying again later helps; else the error is a defect.
pub fn is_unavailable(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_)
        | sqlx::Error::Tls(_)
        | sqlx::Error::Protocol(_)
        | sqlx::Error::PoolTimedOut
        | sqlx::Error::PoolClosed
        | sqlx::Error::WorkerCrashed => true,
        sqlx::Error::Database(error) => error.code().is_some_and(|code| passes(&code)),
        _ => false,
    }
}

/// SQLSTATEs that pass: connection lost (08), resources short (53), shut down or starting (57P),
/// serialisation failure or deadlock (40), a lock not got in time (55P03), read-only after a switch-over (25006), cut
/// off in a transaction that stood still (25P03, 25P04): a process that was frozen, and goes on.
fn passes(sqlstate: &str) -> bool {
    ["08", "53", "57P", "40", "55P03", "25006", "25P03", "25P04"]
        .iter()
        .any(|class| sqlstate.starts_with(class))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_stops_passes_and_a_broken_constraint_does_not() {
        for sqlstate in ["08006", "53300", "57P01", "57P03", "40P01", "55P03", "25P03"] {
            assert!(passes(sqlstate), "{sqlstate}");
        }
        for sqlstate in ["23505", "23514", "42601", "57014", "22P02"] {
            assert!(!passes(sqlstate), "{sqlstate}");
        }
        assert!(is_unavailable(&sqlx::Error::PoolTimedOut));
        assert!(!is_unavailable(&sqlx::Error::RowNotFound));
    }
}
