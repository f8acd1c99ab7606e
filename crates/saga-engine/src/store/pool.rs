//! Connections to Postgres: how they are made, when they are asked whether they are still good, and when they are given up.
//!
//! Each wait for the server has a bound on this side, for a server that is frozen, or a network that swallows packets, ends
//! no wait by itself. sqlx offers no hook for a socket's settings, so there is neither `TCP_USER_TIMEOUT` nor keepalive: the
//! bounds here and in [`super::bounded`] stand for both. A connection whose statement was cut off is closed unless the rest of
//! the answer comes at once.

use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection};

use super::servers::{self, Servers};
use super::trouble::is_outdated;
use super::{Result, bounded_by, session};

/// The longest wait for a connection. Shorter than the bound of a request, so that the answer can say what was waited for.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(4);
/// A connection that was idle for so long is asked whether it is still good.
const ASKED_AFTER: Duration = Duration::from_millis(500);
/// The longest wait for its answer; then another connection is made.
const PING_TIMEOUT: Duration = Duration::from_secs(1);
/// How long the rest of an unread answer may take. Then the connection is closed.
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
