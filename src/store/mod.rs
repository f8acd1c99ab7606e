//! All SQL, one file per noun; no other module writes any.
//!
//! Functions take what they run on first: `impl PgExecutor` where one statement stands for itself,
//! `&mut PgConnection` where the caller's transaction must hold around it. Times are parameters: the one
//! clock that decides is read by [`now`] inside the transaction.

pub mod audit;
pub mod catalog;
pub mod queue;
pub mod operations;
pub mod sagas;
pub mod tickets;
pub mod seats;
pub mod reservations;
pub mod payments;

use std::time::Duration;

use chrono::{DateTime, Utc};
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use sqlx::{ConnectOptions, PgExecutor};

/// What the database said no to, or could not be asked.
pub type Result<T> = std::result::Result<T, sqlx::Error>;

/// Opens the pool. Connections are made when needed, so that a database that is away does not stop the start.
pub fn open(url: &str, connections: u32) -> Result<PgPool> {
    let options = url
        .parse::<PgConnectOptions>()?
        .application_name("boxoffice")
        .options([
            ("jit", "off"),
            ("lock_timeout", "10s"),
            ("idle_in_transaction_session_timeout", "30s"),
        ])
        .log_slow_statements(log::LevelFilter::Warn, Duration::from_secs(1));
    Ok(PgPoolOptions::new()
        .max_connections(connections)
        .acquire_timeout(Duration::from_secs(5))
        .connect_lazy_with(options))
}

/// Brings the schema up to date; several processes may do so at once.
pub async fn migrate(pool: &PgPool) -> std::result::Result<(), sqlx::migrate::MigrateError> {
    sqlx::migrate!().run(pool).await
}

/// The database's clock, now: in a transaction, after the locks, it is the time that decides.
pub async fn now(db: impl PgExecutor<'_>) -> Result<DateTime<Utc>> {
    sqlx::query_scalar!(r#"select clock_timestamp() as "now!""#)
        .fetch_one(db)
        .await
}
