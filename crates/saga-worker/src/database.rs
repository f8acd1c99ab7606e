//! What a database has to do for the fence.

use std::time::Duration;

use chrono::{DateTime, Utc};
use sqlx::{Database, Pool, Transaction};
use uuid::Uuid;

use crate::fence::Record;

/// The record of a step under its lock.
#[derive(Debug)]
pub struct Locked<S> {
    pub record: Record,
    /// The database's time after the lock.
    pub now: DateTime<Utc>,
    /// The session that has the lock.
    pub session: S,
}

/// A database that can keep the fence of a service, in the table `saga_outcomes`.
///
/// It is implemented for `sqlx::Postgres` and for `sqlx::Sqlite`, each behind the feature of its name.
pub trait FenceDatabase: Database {
    /// What names a session of the database, so that [`Self::end_session`] can end it.
    type Session: Copy + Send;

    /// Makes the table if it is not there. Two processes may do so at once.
    fn prepare(pool: &Pool<Self>) -> impl Future<Output = sqlx::Result<()>> + Send;

    /// Begins the transaction in which a command is handled.
    fn begin(conn: &mut Self::Connection)
    -> impl Future<Output = sqlx::Result<Transaction<'_, Self>>> + Send;

    /// Locks the record of a step until the end of the transaction, as its first statement. The record is kept for `keep` from now
    /// on, and for as long after the deadline if there is one.
    fn lock(
        conn: &mut Self::Connection,
        saga: Uuid,
        step: &str,
        deadline: Option<DateTime<Utc>>,
        keep: Duration,
    ) -> impl Future<Output = sqlx::Result<Locked<Self::Session>>> + Send;

    /// Writes the record of a step that is locked.
    fn save(
        conn: &mut Self::Connection,
        saga: Uuid,
        step: &str,
        record: &Record,
    ) -> impl Future<Output = sqlx::Result<()>> + Send;

    /// Deletes up to `limit` records that are kept no longer, and returns how many it has deleted.
    fn purge(pool: &Pool<Self>, limit: u32) -> impl Future<Output = sqlx::Result<u64>> + Send;

    /// Ends a session and the transaction that is open in it, where this takes more than to close its connection.
    fn end_session(
        pool: &Pool<Self>,
        session: Self::Session,
    ) -> impl Future<Output = sqlx::Result<()>> + Send;

    /// Whether an error says that the database cannot be used now. Then the same work may succeed later, and nothing is known of the
    /// step. Any other error is the work's own, and comes again for the same work.
    fn is_unavailable(error: &sqlx::Error) -> bool;
}
