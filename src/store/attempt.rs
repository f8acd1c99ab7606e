//! One attempt to decide something: read, decide, write. Whoever else changes the same rows is noticed when it is written, or
//! kept out from the beginning.

use sqlx::pool::PoolConnection;
use sqlx::{PgConnection, PgPool, Postgres, Transaction};

use super::Result;
use super::changes::{Changes, is_not_as_read};
use crate::config::Control;

/// Makes an attempt, without locks first if it is to be so; once more under locks if a row was not any more as it had been
/// read.
pub async fn decide<T, F>(control: Control, attempt: impl Fn(Control) -> F) -> Result<T>
where
    F: Future<Output = Result<T>>,
{
    match attempt(control).await {
        Err(error) if control == Control::Optimistic && is_not_as_read(&error) => {
            metrics::counter!("boxoffice_batches_done_again_total").increment(1);
            attempt(Control::Pessimistic).await
        }
        decided => decided,
    }
}

/// A connection, and what is held on it.
#[derive(Debug)]
pub enum Attempt {
    /// Nothing: each statement stands for itself.
    Optimistic(PoolConnection<Postgres>),
    /// The locks of what was read.
    Pessimistic(Transaction<'static, Postgres>),
}

impl Attempt {
    /// Begins.
    pub async fn begin(pool: &PgPool, control: Control) -> Result<Self> {
        Ok(match control {
            Control::Optimistic => Self::Optimistic(pool.acquire().await?),
            Control::Pessimistic => Self::Pessimistic(pool.begin().await?),
        })
    }

    /// How others are kept apart in this one.
    pub fn control(&self) -> Control {
        match self {
            Self::Optimistic(_) => Control::Optimistic,
            Self::Pessimistic(_) => Control::Pessimistic,
        }
    }

    /// Where to read.
    pub fn conn(&mut self) -> &mut PgConnection {
        match self {
            Self::Optimistic(conn) => conn,
            Self::Pessimistic(tx) => tx,
        }
    }

    /// Writes what was decided, all or nothing, and ends.
    ///
    /// # Errors
    /// In an optimistic attempt also that a row is not any more as it was read.
    pub async fn write(mut self, changes: Changes) -> Result<()> {
        changes.write(self.conn()).await?;
        match self {
            Self::Optimistic(_) => Ok(()),
            Self::Pessimistic(tx) => tx.commit().await,
        }
    }
}

/// The end of a statement that reads what is to be decided about: with these locks, or without.
pub(super) fn locking(control: Control, locks: &'static str) -> &'static str {
    match control {
        Control::Optimistic => "",
        Control::Pessimistic => locks,
    }
}
