//! What a connection sets for its session, and whether the server keeps sessions apart.
//!
//! Settings are set by a statement and not as startup parameters: `PgBouncer` refuses a connection with parameters that it
//! does not know. This costs one round trip per new connection.

use std::time::Duration;

use sqlx::postgres::PgPool;
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, PgConnection, Row};
use tokio::time::{Instant, sleep};

use super::Result;

/// For every connection. The wait for a lock has a bound on the server's side, shorter than that of a request.
pub const SETTINGS: &str = "
    set jit = off;
    set lock_timeout = '4s';
    set idle_in_transaction_session_timeout = '30s'";

/// For the connections of steps, beside [`SETTINGS`]: see [`super::open_for_steps`]. A statement has a bound on the server's
/// side, a little shorter than [`super::WORK_TIMEOUT`].
pub const STEPS_SETTINGS: &str = "
    set statement_timeout = '9s';
    set plan_cache_mode = force_generic_plan;
    set enable_seqscan = off;
    set enable_hashjoin = off;
    set enable_mergejoin = off";

/// What to do where [`are_kept`] says no.
pub const NOT_KEPT: &str = "DATABASE_URL leads through a connection pooler that does not keep sessions, such as \
    PgBouncer with pool_mode = transaction or statement; set pool_mode = session for this database, or name Postgres \
    itself in DATABASE_URL (docs/operations.md, \"PgBouncer\")";

/// The first half of the key of the lock that [`are_kept`] takes; the other half is random.
const PROBE_LOCK: i32 = 0x0b0f_f1ce;
/// How long the server may take to end a session whose client has gone.
const SESSION_END_TIMEOUT: Duration = Duration::from_secs(5);
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// Whether each connection of this pool has a session of its own on the server, from its first statement to its end. A
/// pooler may give each transaction another session; then settings reach other clients, and the names of prepared
/// statements collide.
///
/// A first connection takes a lock that belongs to its session, sees that it has it, and ends. A second one looks
/// whether the lock ends with it. Both are opened for this and run simple queries only, so nothing but that lock
/// can be left in a shared session.
pub async fn are_kept(pool: &PgPool) -> Result<bool> {
    let options = pool.connect_options();
    let key: i32 = rand::random_range(0..i32::MAX);
    let mut first: PgConnection = options.connect().await?;
    let lock = format!("select pg_advisory_lock({PROBE_LOCK}, {key})");
    sqlx::raw_sql(AssertSqlSafe(lock)).execute(&mut first).await?;
    let is_own = holder(&mut first, key).await? == Some(Holder::SameSession);
    first.close().await?;
    if !is_own {
        return Ok(false);
    }
    let mut second: PgConnection = options.connect().await?;
    let deadline = Instant::now() + SESSION_END_TIMEOUT;
    let is_kept = loop {
        match holder(&mut second, key).await? {
            None => break true,
            Some(Holder::SameSession) => {
                let unlock = format!("select pg_advisory_unlock({PROBE_LOCK}, {key})");
                sqlx::raw_sql(AssertSqlSafe(unlock)).execute(&mut second).await?;
                break false;
            }
            Some(Holder::OtherSession) if Instant::now() > deadline => break false,
            Some(Holder::OtherSession) => sleep(POLL_INTERVAL).await,
        }
    };
    second.close().await?;
    Ok(is_kept)
}

/// Which session has the lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Holder {
    SameSession,
    OtherSession,
}

async fn holder(conn: &mut PgConnection, key: i32) -> Result<Option<Holder>> {
    let sql = format!(
        "select pid = pg_backend_pid() from pg_locks
         where locktype = 'advisory' and classid = {PROBE_LOCK} and objid = {key} and objsubid = 2 and granted"
    );
    let row = sqlx::raw_sql(AssertSqlSafe(sql)).fetch_optional(conn).await?;
    let is_same = row.map(|row| row.try_get::<bool, _>(0)).transpose()?;
    Ok(is_same.map(|is_same| if is_same { Holder::SameSession } else { Holder::OtherSession }))
}
