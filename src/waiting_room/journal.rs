//! Keeps the journal: whoever admits writes what the watch tells into Postgres, behind the line's back.
//!
//! What is remembered between two writes is how each key that changed stands now. So the journal lags without
//! bound of time while Postgres is away, and with a bound of memory: each key once. A new leader first writes everything that
//! is newer than what the journal says it has.
//!
//! One transaction holds all that had changed at one moment, so that the cap holds in what is restored from it. To take that
//! moment costs nothing, and what was taken is gone through a slice at a time, without the lock of the lines: a hundred
//! thousand changes make the journal late, and nobody else.

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

use super::line::{Change, Changes, End, Key, Memory, SLICE};
use super::place::{Entry, Standing};
use crate::ids::{ConcertId, UserId};
use crate::store;
use crate::store::queue_journal::{self, ACTIVE, ENDED, JournalRow, SILENT, WAITING};

/// Rows of one statement: so few that making it keeps nobody waiting.
const STATEMENT: usize = 1_000;
/// The longest that one write may take: after a long time without Postgres it has hundreds of statements.
const WRITE_TIMEOUT: Duration = Duration::from_secs(60);
/// Rows of ended places deleted per minute and process.
const CLEARED: i64 = 20_000;

/// Traces remembered to be cleared away; what is beyond is found by the tidying on the minute.
const MAX_TRACES: usize = 1_000_000;

/// The trace that a deletion has left in the bucket: whose key, and the revision.
pub type Trace = (ConcertId, UserId, u64);

/// The journal in Postgres.
#[derive(Debug)]
pub struct Journal {
    pool: PgPool,
    /// Held by who writes.
    draft: Mutex<Draft>,
    /// How many changes were taken over and are not in the journal yet.
    lag: AtomicUsize,
    /// Ends that are in the journal, so that their traces in the bucket can go; and since when.
    traces: StdMutex<VecDeque<(Instant, Trace)>>,
}

/// What is to be written next. It outlives a write that fails or is broken off.
#[derive(Debug, Default)]
struct Draft {
    /// Whether all that is newer than the journal's position is written, in here, or among the changes to come.
    is_caught_up: bool,
    /// The changes of the last moment, until they are among the pending ones.
    taken: Changes,
    /// All of it, by key.
    pending: BTreeMap<Key, Change>,
}

impl Journal {
    /// In this database.
    pub fn new(pool: PgPool) -> Self {
        Self { pool, draft: Mutex::default(), lag: AtomicUsize::new(0), traces: StdMutex::default() }
    }

    /// Where it is kept.
    pub fn pool(&self) -> &PgPool {
        &self.pool
    }

    /// This instance leads from now on: what the watch tells is to be written.
    pub async fn begin(&self, memory: &Memory) {
        *self.draft.lock().await = Draft::default();
        self.note_lag(0);
        memory.collect_changes();
    }

    /// This instance leads no more.
    pub fn end(&self, memory: &Memory) {
        memory.collect_no_changes();
        self.note_lag(0);
    }

    /// How many changes were taken over and are not in the journal yet.
    pub fn lag(&self) -> usize {
        self.lag.load(Ordering::Relaxed)
    }

    /// Writes what has changed, in one transaction, so that the journal is always what the bucket was at one moment;
    /// answers up to which revision of the bucket it is complete.
    pub async fn write(&self, memory: &Memory, now: DateTime<Utc>) -> store::Result<u64> {
        let mut draft = self.draft.lock().await;
        let draft = &mut *draft;
        if !draft.is_caught_up {
            let position = store::bounded(queue_journal::position(&self.pool)).await?;
            let pending = &mut draft.pending;
            let keep = |key, change| {
                pending.insert(key, change);
            };
            memory.newer_than(position.cast_unsigned(), keep).await;
            draft.is_caught_up = true;
        }
        // What a write that was broken off had taken is older than what is taken now.
        draft.sort_in().await;
        draft.taken = memory.take_changes();
        self.note_lag(draft.pending.len() + draft.taken.changed.len());
        draft.sort_in().await;
        self.note_lag(draft.pending.len());
        let written = store::bounded_by(WRITE_TIMEOUT, self.write_pending(draft, now)).await?;
        self.note_lag(0);
        draft.clear(&self.traces).await;
        Ok(written)
    }

    async fn write_pending(&self, draft: &Draft, now: DateTime<Utc>) -> store::Result<u64> {
        let mut transaction = self.pool.begin().await?;
        let mut from = Bound::Unbounded;
        loop {
            let some = draft.pending.range((from, Bound::Unbounded)).take(STATEMENT);
            let rows: Vec<JournalRow> =
                some.map(|(key, change)| row(*key, change, draft.taken.told, now)).collect();
            let Some(last) = rows.last() else { break };
            from = Bound::Excluded((last.concert_id, last.user_id));
            queue_journal::write(&mut transaction, &rows).await?;
        }
        let position = queue_journal::advance(&mut transaction, draft.taken.journalled.cast_signed()).await?;
        transaction.commit().await?;
        Ok(position.cast_unsigned())
    }

    fn note_lag(&self, lag: usize) {
        self.lag.store(lag, Ordering::Relaxed);
    }

    /// Up to `most` traces of ends that were journalled at least `age` ago. They are not told again.
    pub fn take_traces(&self, age: Duration, most: usize) -> Vec<Trace> {
        let mut traces = self.traces.lock().unwrap_or_else(PoisonError::into_inner);
        let is_old = |(since, _): &mut (Instant, Trace)| since.elapsed() >= age;
        std::iter::from_fn(|| traces.pop_front_if(is_old)).map(|(_, trace)| trace).take(most).collect()
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

impl Draft {
    /// Sorts the changes of the last moment in among the pending ones.
    async fn sort_in(&mut self) {
        while !self.taken.changed.is_empty() {
            for (key, change) in std::iter::from_fn(|| self.taken.changed.pop()).take(SLICE) {
                self.pending.insert(key, change);
            }
            yield_now().await;
        }
        // The room that it took is given back.
        self.taken.changed = IndexMap::new();
    }

    /// All of it is written: the traces of ends may go.
    async fn clear(&mut self, traces: &StdMutex<VecDeque<(Instant, Trace)>>) {
        while !self.pending.is_empty() {
            let written = std::iter::from_fn(|| self.pending.pop_first()).take(SLICE);
            let found: Vec<_> = written.filter_map(|(key, change)| trace(key, &change)).collect();
            remember(traces, found);
            yield_now().await;
        }
    }
}

fn remember(traces: &StdMutex<VecDeque<(Instant, Trace)>>, found: Vec<Trace>) {
    let now = Instant::now();
    let mut traces = traces.lock().unwrap_or_else(PoisonError::into_inner);
    let room = MAX_TRACES.saturating_sub(traces.len());
    traces.extend(found.into_iter().take(room).map(|trace| (now, trace)));
}

/// What the end of a place has left in the bucket.
fn trace((concert, user): Key, change: &Change) -> Option<Trace> {
    let end = change.end.filter(|end| change.entry.is_none() && end.written() > 0)?;
    Some((concert, user, end.written()))
}

/// A change as a row. What lies nowhere any more has ended by `told`, seen at `now`.
fn row(key: Key, change: &Change, told: u64, now: DateTime<Utc>) -> JournalRow {
    match (change.entry, change.end) {
        (Some(entry), _) => living(key, &entry),
        (None, end) => ended(key, end.unwrap_or(End::unseen(told, now)), told),
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
fn ended((concert_id, user_id): Key, end: End, told: u64) -> JournalRow {
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
    let entry = Entry { revision, place, issued_at: row.issued_at?, standing };
    entry.is_possible().then_some(entry)
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
            let change = Change { entry: Some(written), end: None };
            assert_eq!(entry(&row(key, &change, 20, at)), Some(written));
        }
    }

    #[test]
    fn rows_that_no_place_can_have_are_left_out() {
        let key = (crate::ids::new(), crate::ids::new());
        let at = DateTime::from_timestamp(1_900_000_000, 0).unwrap();
        let written = Entry { revision: 9, place: 7, issued_at: at, standing: Standing::Waiting };
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
    fn what_lies_nowhere_any_more_has_ended_by_now() {
        let key = (crate::ids::new(), crate::ids::new());
        let at = DateTime::from_timestamp(1_900_000_000, 0).unwrap();
        let row = row(key, &Change::default(), 20, at);
        assert_eq!((row.status.as_str(), row.place, row.version), (ENDED, 20, 20));
        assert_eq!((row.ended_at, entry(&row)), (Some(at), None));
    }
}
