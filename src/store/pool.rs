//! Connections to Postgres: how they are made, when they are asked whether they are still good, and when they are given up.
//!
//! Each wait for the server has a bound on this side, for a server that is frozen, or a network that swallows packets, ends
//! no wait by itself. sqlx offers no hook for a socket's settings, so there is neither `TCP_USER_TIMEOUT` nor keepalive: the
//! bounds here and in [`super::bounded`] stand for both. A connection whose statement was cut off is closed unless the rest of
//! the answer comes at once.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection};
use tokio::sync::watch;

use super::servers::{self, Servers};
use super::{Result, bounded_by, session, sqlstate};

/// The longest wait for a connection. Shorter than the bound of a request, so that the answer can say what was waited for.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(4);
/// A connection that was idle for so long is asked whether it is still good.
const ASKED_AFTER: Duration = Duration::from_millis(500);
/// The longest wait for its answer; then another connection is made.
const PING_TIMEOUT: Duration = Duration::from_secs(1);
/// How long the rest of an answer that nobody waits for may take. Then the connection is closed.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(1);

/// Opens the pool. Connections are made when needed, so that a database that is away does not stop the start.
pub fn open(url: &str, connections: u32) -> Result<PgPool> {
    Ok(pool(Servers::parse(url)?.map(options), connections, session::SETTINGS.to_owned()))
}

/// Opens a pool for the few statements that every saga runs through. Each is planned once per connection, for any
/// number of rows; and since that may be while the tables are still empty or small, no plan reads a whole table, or a
/// whole index, where single entries would do.
pub fn open_for_steps(url: &str, connections: u32) -> Result<PgPool> {
    let settings = format!("{};{}", session::SETTINGS, session::STEPS_SETTINGS);
    Ok(pool(Servers::parse(url)?.map(options), connections, settings))
}

fn options(server: PgConnectOptions) -> PgConnectOptions {
    server
        .application_name("boxoffice")
        // PgBouncer refuses it, and it changes nothing: numbers are sent in binary.
        .extra_float_digits(None)
        .log_slow_statements(log::LevelFilter::Warn, Duration::from_secs(1))
}

/// `settings` are the statements that each new connection begins its session with.
fn pool(servers: Servers, connections: u32, settings: String) -> PgPool {
    let must_write = servers.must_write;
    let pool = PgPoolOptions::new()
        .max_connections(connections)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        // One that was used a moment ago is not asked whether it is still there: that is a round trip.
        .test_before_acquire(false)
        .after_connect(move |conn, _| {
            let settings = AssertSqlSafe(settings.clone());
            Box::pin(async move {
                sqlx::raw_sql(settings).execute(&mut *conn).await?;
                if must_write { servers::expect_writable(conn).await } else { Ok(()) }
            })
        })
        .before_acquire(|conn, found| {
            Box::pin(async move {
                if is_outdated(found.age) {
                    return Ok(false);
                }
                if found.idle_for >= ASKED_AFTER {
                    bounded_by(PING_TIMEOUT, conn.ping()).await?;
                }
                Ok(true)
            })
        })
        .after_release(|conn, found| {
            Box::pin(async move {
                // Nothing is waited for unless a statement was cut off. sqlx asks the server after this, without a bound.
                bounded_by(RELEASE_TIMEOUT, conn.flush()).await?;
                Ok(!is_outdated(found.age))
            })
        })
        .connect_lazy_with(servers.first());
    servers.follow(&pool);
    pool
}

/// Milliseconds of this process until which connections are outdated, plus one; 0 if none are.
static OUTDATED_UNTIL: AtomicU64 = AtomicU64::new(0);
static BEGIN: LazyLock<Instant> = LazyLock::new(Instant::now);
/// Rises whenever the server may be another one by now.
static TROUBLE: LazyLock<watch::Sender<u64>> = LazyLock::new(|| watch::Sender::new(0));

/// No connection that there is by now is used again. All pools of a process lead to the same database.
pub(super) fn outdate_connections() {
    let now = u64::try_from(BEGIN.elapsed().as_millis()).unwrap_or(u64::MAX - 1);
    OUTDATED_UNTIL.fetch_max(now + 1, Ordering::Relaxed);
}

fn is_outdated(age: Duration) -> bool {
    let until = OUTDATED_UNTIL.load(Ordering::Relaxed);
    let made_at = BEGIN.elapsed().saturating_sub(age);
    u128::from(until) > made_at.as_millis()
}

/// Draws the conclusions from an error for all connections: those that are of no use any more are given up, and where there
/// are several servers, the one that can be written is looked for.
pub(super) fn note(error: &sqlx::Error) {
    let is_trouble = match error {
        sqlx::Error::Database(error) => {
            let outdates = error.code().is_some_and(|code| sqlstate::outdates_connections(&code));
            if outdates {
                outdate_connections();
            }
            outdates
        }
        sqlx::Error::Io(_) | sqlx::Error::PoolTimedOut | sqlx::Error::Protocol(_) => true,
        _ => false,
    };
    if is_trouble {
        note_trouble();
    }
}

/// The server may be another one by now.
pub(super) fn note_trouble() {
    TROUBLE.send_modify(|times| *times += 1);
}

/// Hears of trouble from now on.
pub(super) fn trouble() -> watch::Receiver<u64> {
    TROUBLE.subscribe()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_made_before_the_error_are_outdated_and_later_ones_are_not() {
        LazyLock::force(&BEGIN);
        std::thread::sleep(Duration::from_millis(20));
        outdate_connections();
        assert!(is_outdated(Duration::from_millis(10)));
        std::thread::sleep(Duration::from_millis(5));
        assert!(!is_outdated(Duration::ZERO));
    }

    #[test]
    fn a_lost_connection_is_trouble_and_a_broken_constraint_is_not() {
        let mut heard = trouble();
        heard.mark_unchanged();
        note(&sqlx::Error::RowNotFound);
        let before = *heard.borrow();
        note(&sqlx::Error::PoolTimedOut);
        assert!(*heard.borrow() > before);
    }
}
