//! Keeps the journal: whoever admits writes what the watch tells into Postgres, behind the line's back.
//!
//! What is remembered between two writes is which keys changed, not what was told of them. So the journal lags without
//! bound of time while Postgres is away, and with a bound of memory: each key once. A new leader first writes everything that
//! is newer than what the journal says it has.

use chrono::{DateTime, Utc};
use sqlx::PgPool;
use tokio::sync::Mutex;

use super::line::{Change, End, Memory};
use super::place::{Entry, Standing};
use crate::ids::{ConcertId, UserId};
use crate::store;
use crate::store::queue_journal::{self, ACTIVE, ENDED, JournalRow, SILENT, WAITING};

/// Rows of one statement.
const STATEMENT: usize = 10_000;
/// Rows of ended places deleted per minute and process.
const CLEARED: i64 = 20_000;

/// The journal in Postgres.
#[derive(Debug)]
pub struct Journal {
    pool: PgPool,
    /// Held by who writes; whether all that is newer than the journal's position is written or marked as changed.
    caught_up: Mutex<bool>,
}

impl Journal {
    /// In this database.
    pub fn new(pool: PgPool) -> Self {
        Self { pool, caught_up: Mutex::new(false) }
    }

    /// Where it is kept.
    pub fn pool(&self) -> &PgPool {
        &self.pool
    }

    /// This instance leads from now on: what the watch tells is to be written.
    pub async fn begin(&self, memory: &Memory) {
        let mut caught_up = self.caught_up.lock().await;
        *caught_up = false;
        memory.collect_changes();
    }

    /// This instance leads no more.
    pub fn end(&self, memory: &Memory) {
        memory.collect_no_changes();
    }

    /// Writes what has changed, in one transaction, so that the journal is always what the bucket was at one moment;
    /// answers up to which revision of the bucket it is complete.
    pub async fn write(&self, memory: &Memory, now: DateTime<Utc>) -> store::Result<u64> {
        let mut caught_up = self.caught_up.lock().await;
        // Also if this is broken off: what was taken by then is found again by its revision.
        if !std::mem::replace(&mut *caught_up, false) {
            let position = queue_journal::position(&self.pool).await?;
            memory.collect_newer_than(position.cast_unsigned());
        }
        let changes = memory.take_changes();
        let rows = rows(&changes.changed, changes.told, now);
        let written = self.write_rows(&rows, changes.journalled).await;
        *caught_up = written.is_ok();
        if written.is_err() {
            memory.remember_changes(changes.changed.iter().map(|change| change.key));
        }
        written
    }

    async fn write_rows(&self, rows: &[JournalRow], journalled: u64) -> store::Result<u64> {
        let mut transaction = self.pool.begin().await?;
        for some in rows.chunks(STATEMENT) {
            queue_journal::write(&mut transaction, some).await?;
        }
        let position = queue_journal::advance(&mut transaction, journalled.cast_signed()).await?;
        transaction.commit().await?;
        Ok(position.cast_unsigned())
    }

    /// Whether this user has paid for seats of that concert since then.
    pub async fn has_paid(
        &self,
        concert: ConcertId,
        user: UserId,
        since: DateTime<Utc>,
    ) -> store::Result<bool> {
        Ok(!queue_journal::paid(&self.pool, &[(concert, user, since)]).await?.is_empty())
    }

    /// Deletes the rows of places that ended before `before`.
    pub async fn forget_ends(&self, before: DateTime<Utc>) {
        if let Err(error) = queue_journal::delete_ended(&self.pool, before, CLEARED).await {
            tracing::debug!(%error, "old rows of the journal stay for now");
        }
    }
}

/// The rows of these changes, by key. What lies nowhere any more has ended by `told`, seen at `now`.
fn rows(changed: &[Change], told: u64, now: DateTime<Utc>) -> Vec<JournalRow> {
    let mut rows: Vec<JournalRow> = changed
        .iter()
        .map(|change| match (change.entry, change.end) {
            (Some(entry), _) => living(change, &entry),
            (None, end) => ended(change, end.unwrap_or(End::unseen(told, now)), told),
        })
        .collect();
    rows.sort_unstable_by_key(|row| (row.concert_id, row.user_id));
    rows
}

fn living(change: &Change, entry: &Entry) -> JournalRow {
    let (concert_id, user_id) = change.key;
    let row = JournalRow {
        concert_id,
        user_id,
        place: entry.place.cast_signed(),
        version: entry.revision.cast_signed(),
        status: WAITING.to_owned(),
        issued_at: Some(entry.issued_at),
        grace_until: None,
        activated_at: None,
        expires_at: None,
        used: false,
        ended_at: None,
    };
    match entry.standing {
        Standing::Waiting => row,
        Standing::Silent { grace_until } => {
            JournalRow { status: SILENT.to_owned(), grace_until: Some(grace_until), ..row }
        }
        Standing::Active { activated_at, expires_at, used } => JournalRow {
            status: ACTIVE.to_owned(),
            activated_at: Some(activated_at),
            expires_at: Some(expires_at),
            used,
            ..row
        },
    }
}

/// An end that is known and was not seen written is as new as all that was told.
fn ended(change: &Change, end: End, told: u64) -> JournalRow {
    let (concert_id, user_id) = change.key;
    let version = if end.written() > 0 { end.written() } else { told };
    JournalRow {
        concert_id,
        user_id,
        place: end.up_to.cast_signed(),
        version: version.cast_signed(),
        status: ENDED.to_owned(),
        issued_at: None,
        grace_until: None,
        activated_at: None,
        expires_at: None,
        used: false,
        ended_at: Some(end.since),
    }
}

/// A living row as an entry, not yet seen in the present bucket; nothing if it cannot be read.
pub fn entry(row: &JournalRow) -> Option<Entry> {
    let standing = match (row.status.as_str(), row.activated_at, row.expires_at) {
        (ACTIVE, Some(activated_at), Some(expires_at)) => {
            Standing::Active { activated_at, expires_at, used: row.used }
        }
        (SILENT, ..) => Standing::Silent { grace_until: row.grace_until? },
        (WAITING, ..) => Standing::Waiting,
        _ => return None,
    };
    let (revision, place) = (row.version.cast_unsigned(), row.place.cast_unsigned());
    Some(Entry { revision, place, issued_at: row.issued_at?, standing })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_read_as_it_was_written() {
        let key = (crate::ids::new(), crate::ids::new());
        let at = DateTime::from_timestamp(1_900_000_000, 0).unwrap();
        let active = Standing::Active { activated_at: at, expires_at: at, used: true };
        for standing in [Standing::Waiting, Standing::Silent { grace_until: at }, active] {
            let written = Entry { revision: 9, place: 7, issued_at: at, standing };
            let change = Change { key, entry: Some(written), end: None };
            let rows = rows(&[change], 20, at);
            assert_eq!(entry(&rows[0]), Some(written));
        }
    }

    #[test]
    fn what_lies_nowhere_any_more_has_ended_by_now() {
        let key = (crate::ids::new(), crate::ids::new());
        let at = DateTime::from_timestamp(1_900_000_000, 0).unwrap();
        let rows = rows(&[Change { key, entry: None, end: None }], 20, at);
        assert_eq!((rows[0].status.as_str(), rows[0].place, rows[0].version), (ENDED, 20, 20));
        assert_eq!((rows[0].ended_at, entry(&rows[0])), (Some(at), None));
    }
}
