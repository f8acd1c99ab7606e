//! One attempt to decide something: read, decide, write. A change of the same rows by another transaction is noticed at the
//! write, or locked out from the beginning.

use chrono::{DateTime, Utc};
use sqlx::pool::PoolConnection;
use sqlx::{PgConnection, PgPool, Postgres, Transaction};

use super::Result;
use super::write_batch::{WriteBatch, is_stale_read};
use crate::clock::Clock;

/// How transactions that change the same rows are kept apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Control {
    /// Nothing is locked before it is written. Rows that another transaction changed in between are read again, under locks.
    Optimistic,
    /// Locks come first: more round trips for each batch, and nothing is ever decided twice.
    Pessimistic,
}

/// Makes an attempt, without locks first if it is to be so; once more under locks if a row was not any more as it had been
/// read.
pub async fn with_lock_fallback<T, F>(control: Control, attempt: impl Fn(Control) -> F) -> Result<T>
where
    F: Future<Output = Result<T>>,
{
    match attempt(control).await {
        Err(error) if control == Control::Optimistic && is_stale_read(&error) => {
            metrics::counter!("boxoffice_batches_done_again_total").increment(1);
            attempt(Control::Pessimistic).await
        }
        decided => decided,
    }
}

/// Reads, then one write. A time that was read from the database's clock on the way decides about everything.
#[derive(Debug)]
pub struct BatchTx {
    connection: Connection,
    read_at: Option<DateTime<Utc>>,
}

#[derive(Debug)]
enum Connection {
    /// Each statement stands for itself.
    Optimistic(PoolConnection<Postgres>),
    /// The rows that were read are locked.
    Pessimistic(Transaction<'static, Postgres>),
}

impl BatchTx {
    /// Begins.
    pub async fn begin(pool: &PgPool, control: Control) -> Result<Self> {
        let connection = match control {
            Control::Optimistic => Connection::Optimistic(pool.acquire().await?),
            Control::Pessimistic => Connection::Pessimistic(pool.begin().await?),
        };
        Ok(Self { connection, read_at: None })
    }

    /// How other writers are kept apart in this attempt.
    pub fn control(&self) -> Control {
        match self.connection {
            Connection::Optimistic(_) => Control::Optimistic,
            Connection::Pessimistic(_) => Control::Pessimistic,
        }
    }

    /// Where to read.
    pub fn conn(&mut self) -> &mut PgConnection {
        match &mut self.connection {
            Connection::Optimistic(conn) => conn,
            Connection::Pessimistic(tx) => tx,
        }
    }

    /// The database's clock, if it was read.
    pub fn read_at(&self) -> Option<DateTime<Utc>> {
        self.read_at
    }

    /// Keeps the time of a read by the database's clock. The latest one counts.
    pub fn note_time(&mut self, read_at: DateTime<Utc>) {
        self.read_at = Some(read_at);
    }

    /// The time that decides: the database's where something was read or is locked, else this process's, which the statement
    /// compares with the database's when it writes.
    pub async fn time_to_decide(&mut self, clock: &Clock, changes: &mut WriteBatch) -> Result<DateTime<Utc>> {
        if let Some(now) = self.read_at {
            return Ok(now);
        }
        match self.control() {
            Control::Pessimistic => super::now(self.conn()).await,
            Control::Optimistic => {
                let now = clock.micros();
                changes.compare_clock(now);
                Ok(now)
            }
        }
    }

    /// Writes what was decided, all or nothing, and ends.
    ///
    /// # Errors
    /// In an optimistic attempt also that a row is not any more as it was read.
    pub async fn write(mut self, changes: WriteBatch) -> Result<()> {
        changes.write(self.conn()).await?;
        match self.connection {
            Connection::Optimistic(_) => Ok(()),
            Connection::Pessimistic(tx) => tx.commit().await,
        }
    }
}
