//! The journal: the leader writes every change of the lines to Postgres, in the background.
//!
//! Between two writes it keeps the current state of each key that changed. So while Postgres is away the journal lags
//! without a limit of time, but its memory is limited to one change per key. A new leader first writes everything that
//! is newer than the journal.
//!
//! One transaction has all changes up to one moment, so that the cap also holds in a line that is restored from it.
//! Taking the changes is a constant-time swap, and they are processed in chunks without the lock of the lines: a
//! hundred thousand changes delay the journal, but no request.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex as StdMutex, PoisonError};
use std::time::Duration;

use chrono::{DateTime, Utc};
use indexmap::IndexMap;
use sqlx::PgPool;
use tokio::sync::Mutex;
use tokio::task::yield_now;
use tokio::time::Instant;

use super::line::{Change, Changes, Key, Memory, SCAN_CHUNK, Tombstone};
use super::place::{Entry, PlaceStatus};
use crate::ids::{ConcertId, UserId};
use crate::store;
use crate::store::queue_journal::{self, ACTIVE, ENDED, JournalRow, SILENT, WAITING};

/// Building one statement must not block other tasks for long.
const ROWS_PER_STATEMENT: usize = 1_000;
/// After a long time without Postgres one write has hundreds of statements.
const WRITE_TIMEOUT: Duration = Duration::from_secs(60);
/// Rows of ended places that one process deletes per minute.
const MAX_PURGED: i64 = 20_000;

/// Limit of the delete markers to remove that are kept in memory. The job on the minute finds the others.
const MAX_MARKERS: usize = 1_000_000;

/// A delete marker in the bucket: its key and revision.
pub type DeleteMarker = (ConcertId, UserId, u64);

#[derive(Debug)]
pub struct Journal {
    pool: PgPool,
    /// The writer holds this lock.
    batch: Mutex<JournalBatch>,
    lag: AtomicUsize,
    /// Delete markers whose ends are in the journal, each with the time of that. They can be removed from the bucket.
    markers: StdMutex<VecDeque<(Instant, DeleteMarker)>>,
}

/// The next write. It is kept if the write fails or is interrupted.
#[derive(Debug, Default)]
struct JournalBatch {
    /// Whether everything that is newer than the journal is in here, or will come as a logged change.
    is_caught_up: bool,
    /// The last changes that were taken, until they are merged into `pending`.
    taken: Changes,
    /// All changes to write, by key.
    pending: BTreeMap<Key, Change>,
}

impl Journal {
    pub fn new(pool: PgPool) -> Self {
        Self { pool, batch: Mutex::default(), lag: AtomicUsize::new(0), markers: StdMutex::default() }
    }

    pub fn pool(&self) -> &PgPool {
        &self.pool
    }

    /// Starts to collect changes, when this instance becomes the leader.
    pub async fn begin(&self, memory: &Memory) {
        *self.batch.lock().await = JournalBatch::default();
        self.set_lag(0);
        memory.collect_changes();
    }

    /// Stops collecting changes.
    pub fn end(&self, memory: &Memory) {
        memory.collect_no_changes();
        self.set_lag(0);
    }

    /// How many changes were taken and are not in the journal yet.
    pub fn lag(&self) -> usize {
        self.lag.load(Ordering::Relaxed)
    }

    /// Writes all changes in one transaction, so that the journal always equals the bucket at one moment. Returns the
    /// revision of the bucket up to which it is complete.
    pub async fn write(&self, memory: &Memory, now: DateTime<Utc>) -> store::Result<u64> {
        let mut batch = self.batch.lock().await;
        let batch = &mut *batch;
        if !batch.is_caught_up {
            let position = store::bounded(queue_journal::position(&self.pool)).await?;
            let pending = &mut batch.pending;
            let keep = |key, change| {
                pending.insert(key, change);
            };
            memory.newer_than(position.cast_unsigned(), keep).await;
            batch.is_caught_up = true;
        }
        // Changes of an interrupted write are older than those that are taken now.
        batch.merge_taken().await;
        batch.taken = memory.take_changes();
        self.set_lag(batch.pending.len() + batch.taken.changed.len());
        batch.merge_taken().await;
        self.set_lag(batch.pending.len());
        let written = store::bounded_by(WRITE_TIMEOUT, self.write_pending(batch, now)).await?;
        self.set_lag(0);
        batch.clear(&self.markers).await;
        Ok(written)
    }

    async fn write_pending(&self, batch: &JournalBatch, now: DateTime<Utc>) -> store::Result<u64> {
        let mut transaction = self.pool.begin().await?;
        let mut from = Bound::Unbounded;
        loop {
            let some = batch.pending.range((from, Bound::Unbounded)).take(ROWS_PER_STATEMENT);
            let rows: Vec<JournalRow> =
                some.map(|(key, change)| row(*key, change, batch.taken.last_seen, now)).collect();
            let Some(last) = rows.last() else { break };
            from = Bound::Excluded((last.concert_id, last.user_id));
            queue_journal::write(&mut transaction, &rows).await?;
        }
        let position = queue_journal::advance(&mut transaction, batch.taken.journalled.cast_signed()).await?;
        transaction.commit().await?;
        Ok(position.cast_unsigned())
    }

    fn set_lag(&self, lag: usize) {
        self.lag.store(lag, Ordering::Relaxed);
    }

    /// Takes up to `most` delete markers whose ends were journalled at least `age` ago.
    pub fn take_markers(&self, age: Duration, most: usize) -> Vec<DeleteMarker> {
        let mut markers = self.markers.lock().unwrap_or_else(PoisonError::into_inner);
        let is_old = |(since, _): &mut (Instant, DeleteMarker)| since.elapsed() >= age;
        std::iter::from_fn(|| markers.pop_front_if(is_old)).map(|(_, marker)| marker).take(most).collect()
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
    pub async fn purge_ends(&self, before: DateTime<Utc>) {
        if let Err(error) = queue_journal::delete_ended(&self.pool, before, MAX_PURGED).await {
            tracing::debug!(%error, "deleting old rows of the journal failed; they are deleted in the next minute");
        }
    }
}

impl JournalBatch {
    /// Merges the taken changes into the pending ones.
    async fn merge_taken(&mut self) {
        while !self.taken.changed.is_empty() {
            for (key, change) in std::iter::from_fn(|| self.taken.changed.pop()).take(SCAN_CHUNK) {
                self.pending.insert(key, change);
            }
            yield_now().await;
        }
        // Frees the memory.
        self.taken.changed = IndexMap::new();
    }

    /// Clears the batch after the write. The markers of its ends can be removed.
    async fn clear(&mut self, markers: &StdMutex<VecDeque<(Instant, DeleteMarker)>>) {
        while !self.pending.is_empty() {
            let written = std::iter::from_fn(|| self.pending.pop_first()).take(SCAN_CHUNK);
            let found: Vec<_> = written.filter_map(|(key, change)| delete_marker(key, &change)).collect();
            store_markers(markers, found);
            yield_now().await;
        }
    }
}

fn store_markers(markers: &StdMutex<VecDeque<(Instant, DeleteMarker)>>, found: Vec<DeleteMarker>) {
    let now = Instant::now();
    let mut markers = markers.lock().unwrap_or_else(PoisonError::into_inner);
    let capacity = MAX_MARKERS.saturating_sub(markers.len());
    markers.extend(found.into_iter().take(capacity).map(|marker| (now, marker)));
}

/// The delete marker that a place has left in the bucket.
fn delete_marker((concert, user): Key, change: &Change) -> Option<DeleteMarker> {
    let end = change.end.filter(|end| change.entry.is_none() && end.written() > 0)?;
    Some((concert, user, end.written()))
}

/// The row of a change. A place without a key and without a tombstone has ended by the revision `last_seen`, at `now`.
fn row(key: Key, change: &Change, last_seen: u64, now: DateTime<Utc>) -> JournalRow {
    match (change.entry, change.end) {
        (Some(entry), _) => living(key, &entry),
        (None, end) => ended(key, end.unwrap_or(Tombstone::unseen(last_seen, now)), last_seen),
    }
}

fn living((concert_id, user_id): Key, entry: &Entry) -> JournalRow {
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
    match entry.status {
        PlaceStatus::Waiting => row,
        PlaceStatus::Silent { grace_until } => {
            JournalRow { status: SILENT.to_owned(), grace_until: Some(grace_until), ..row }
        }
        PlaceStatus::Active { activated_at, expires_at, used } => JournalRow {
            status: ACTIVE.to_owned(),
            activated_at: Some(activated_at),
            expires_at: Some(expires_at),
            used,
            ..row
        },
    }
}

/// An end without a delete marker gets the last revision that was seen.
fn ended((concert_id, user_id): Key, end: Tombstone, last_seen: u64) -> JournalRow {
    let version = if end.written() > 0 { end.written() } else { last_seen };
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

/// The entry of a living row; `None` if the row is not a possible place. Its revision is not one of the present
/// bucket.
pub fn entry(row: &JournalRow) -> Option<Entry> {
    let status = match (row.status.as_str(), row.activated_at, row.expires_at) {
        (ACTIVE, Some(activated_at), Some(expires_at)) => {
            PlaceStatus::Active { activated_at, expires_at, used: row.used }
        }
        (SILENT, ..) => PlaceStatus::Silent { grace_until: row.grace_until? },
        (WAITING, ..) => PlaceStatus::Waiting,
        _ => return None,
    };
    let (revision, place) = (row.version.cast_unsigned(), row.place.cast_unsigned());
    let entry = Entry { revision, place, issued_at: row.issued_at?, status };
    entry.is_possible().then_some(entry)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_read_as_it_was_written() {
        let key = (crate::ids::new(), crate::ids::new());
        let at = DateTime::from_timestamp(1_900_000_000, 0).unwrap();
        let active = PlaceStatus::Active { activated_at: at, expires_at: at, used: true };
        for status in [PlaceStatus::Waiting, PlaceStatus::Silent { grace_until: at }, active] {
            let written = Entry { revision: 9, place: 7, issued_at: at, status };
            let change = Change { entry: Some(written), end: None };
            assert_eq!(entry(&row(key, &change, 20, at)), Some(written));
        }
    }

    #[test]
    fn impossible_rows_are_left_out() {
        let key = (crate::ids::new(), crate::ids::new());
        let at = DateTime::from_timestamp(1_900_000_000, 0).unwrap();
        let written = Entry { revision: 9, place: 7, issued_at: at, status: PlaceStatus::Waiting };
        let good = row(key, &Change { entry: Some(written), end: None }, 20, at);
        let far = Some(DateTime::<Utc>::MAX_UTC);
        for bad in [
            JournalRow { place: 0, ..good.clone() },
            JournalRow { place: -1, ..good.clone() },
            JournalRow { place: 10, ..good.clone() },
            JournalRow { version: -1, ..good.clone() },
            JournalRow { issued_at: far, ..good.clone() },
            JournalRow { issued_at: None, ..good.clone() },
            JournalRow { status: SILENT.to_owned(), grace_until: far, ..good },
            JournalRow { status: ACTIVE.to_owned(), activated_at: far, expires_at: far, ..good },
            JournalRow { status: "gone".to_owned(), ..good },
        ] {
            assert_eq!(entry(&bad), None, "{bad:?}");
        }
        assert_eq!(entry(&good), Some(written));
    }

    #[test]
    fn place_without_a_key_has_ended() {
        let key = (crate::ids::new(), crate::ids::new());
        let at = DateTime::from_timestamp(1_900_000_000, 0).unwrap();
        let row = row(key, &Change::default(), 20, at);
        assert_eq!((row.status.as_str(), row.place, row.version), (ENDED, 20, 20));
        assert_eq!((row.ended_at, entry(&row)), (Some(at), None));
    }
}
