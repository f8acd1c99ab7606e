//! Restores the line after NATS has lost it: the leader writes it into the new bucket, from the journal.
//!
//! # Protocol
//!
//! [`Step`] names the steps; they run in this order. A failure starts again at the first one: each step is safe to repeat.
//!
//! 1. `FlushJournal`: the leader writes what it still knows of the lost bucket to the journal. The position of the journal
//!    then lies before the first revision of the new bucket; otherwise the new bucket was made by a process that did not
//!    know the old one, and is emptied.
//! 2. `CopyPlaces`: it writes every place of the journal that has not ended into the new bucket, in the order of the line.
//!    Each write is a compare-and-set on its own key: see [`Decision`] for a key that has changed in the new bucket.
//! 3. `WriteMarker`: it writes the key `restored` under the fence of its lease. Every instance that sees the marker knows
//!    that a place of an earlier bucket which it has not seen in this one has ended.
//!
//! No user is admitted before the marker is written. Joins go on: the revisions of a new bucket continue after the lost
//! one, so users who join meanwhile stand behind all restored places.

use std::collections::HashSet;
use std::time::Duration;

use bytes::Bytes;
use futures::future::join_all;
use tokio::time::Instant;

use super::super::gate::Key;
use super::super::journal;
use super::super::place::{Condition, Entry, PlaceStatus, Record, Stored, WriteError, answer_to};
use super::super::room_state::RoomState;
use super::super::tasks::bucket_records::RestoredRecord;
use super::leader::Leader;
use super::lease::LeaseLost;
use crate::bus::{incarnation, subjects};
use crate::ids::{ConcertId, UserId};
use crate::store::queue_journal::{self, JournalRow};

/// Rows of the journal read at once.
const PAGE_SIZE: i64 = 20_000;
const MAX_CONCURRENT_WRITES: usize = 500;
/// How often one key is tried that changes at the same time.
const MAX_TRIES: u32 = 20;
/// The pause after Postgres or NATS did not answer.
const RETRY_INTERVAL: Duration = Duration::from_millis(300);
/// The pause while an earlier write is under way.
const BUSY_RETRY: Duration = Duration::from_millis(5);
/// How long the watch may take to show a write.
const WATCH_TIMEOUT: Duration = Duration::from_secs(10);

/// The next step of a restoration.
#[derive(Clone, Copy, Debug)]
enum Step {
    FlushJournal,
    CopyPlaces {
        /// The revision of earlier buckets up to which the journal is complete.
        journalled: u64,
        /// The last place of the page before.
        after: i64,
        places: u64,
    },
    WriteMarker {
        journalled: u64,
        places: u64,
    },
    Done {
        places: u64,
    },
}

/// Why a restoration failed.
enum Failure {
    LeaseLost(LeaseLost),
    /// Postgres or NATS did not answer.
    Unavailable(String),
}

impl From<sqlx::Error> for Failure {
    fn from(error: sqlx::Error) -> Self {
        Self::Unavailable(error.to_string())
    }
}

impl From<LeaseLost> for Failure {
    fn from(lost: LeaseLost) -> Self {
        Self::LeaseLost(lost)
    }
}

/// Restores the line as the leader, and retries until it is restored or the lease is lost.
pub async fn restore(room: &RoomState, leader: &mut Leader) -> Result<(), LeaseLost> {
    while !room.memory.epoch().is_restored() {
        leader.prepare(room).await?;
        match restore_once(room, leader).await {
            Ok(()) => (),
            Err(Failure::LeaseLost(lost)) => return Err(lost),
            Err(Failure::Unavailable(reason)) => {
                tracing::warn!(reason, "restoring the line failed; no user is admitted until it succeeds");
                tokio::time::sleep(RETRY_INTERVAL).await;
            }
        }
    }
    Ok(())
}

async fn restore_once(room: &RoomState, leader: &mut Leader) -> Result<(), Failure> {
    let started = Instant::now();
    let mut step = Step::FlushJournal;
    loop {
        step = match step {
            Step::FlushJournal => {
                Step::CopyPlaces { journalled: flush_journal(room).await?, after: 0, places: 0 }
            }
            Step::CopyPlaces { journalled, after, places } => {
                // Places that were taken in the new bucket are there already.
                let first = incarnation::first_revision(room.memory.epoch().incarnation).cast_signed();
                let pool = room.admission.journal.pool();
                let page = queue_journal::living(pool, after, first, PAGE_SIZE).await?;
                match page.last() {
                    Some(last) => {
                        let copied = copy_page(room, leader, &page).await?;
                        Step::CopyPlaces { journalled, after: last.place, places: places + copied }
                    }
                    None => Step::WriteMarker { journalled, places },
                }
            }
            Step::WriteMarker { journalled, places } => {
                write_marker(room, leader, &RestoredRecord { journalled, places }).await?;
                Step::Done { places }
            }
            Step::Done { places } => {
                metrics::counter!("boxoffice_queue_restorations_total").increment(1);
                let took_ms = started.elapsed().as_millis() as u64;
                tracing::info!(places, took_ms, "the line is restored");
                return Ok(());
            }
        };
    }
}

/// Writes the journal, and checks that it ends before the new bucket begins. Returns the position of the journal.
async fn flush_journal(room: &RoomState) -> Result<u64, Failure> {
    let journalled = room.admission.journal.write(&room.memory, room.now()).await?;
    if journalled < incarnation::first_revision(room.memory.epoch().incarnation) {
        return Ok(journalled);
    }
    // Another process made the bucket within the same second, or with a clock that lags.
    let emptied = room.nats.bucket.reset_after(journalled, room.clock.now()).await;
    emptied.map_err(|error| Failure::Unavailable(error.to_string()))?;
    room.wakeups.recheck_watch.notify_one();
    Err(LeaseLost("the bucket was older than the journal".to_owned()).into())
}

/// Copies one page. Returns how many of its places are in the bucket then.
async fn copy_page(room: &RoomState, leader: &mut Leader, page: &[JournalRow]) -> Result<u64, Failure> {
    let entries: Vec<(Key, Entry)> = page
        .iter()
        .filter_map(|row| Some(((row.concert_id, row.user_id), without_silence(journal::entry(row)?))))
        .collect();
    let ended = find_ended(room, &entries).await?;
    let all = entries.len();
    let missing: Vec<(Key, Entry)> =
        entries.into_iter().filter(|(key, entry)| !is_copied(room, *key, entry)).collect();
    let (mut places, mut last) = ((all - missing.len()) as u64, 0);
    for some in missing.chunks(MAX_CONCURRENT_WRITES) {
        leader.prepare(room).await?;
        let written = write_all(room, some, &ended).await?;
        places += written.iter().flatten().count() as u64;
        last = written.into_iter().flatten().max().unwrap_or(last);
    }
    if room.memory.wait_for(last, WATCH_TIMEOUT).await {
        Ok(places)
    } else {
        Err(Failure::Unavailable("the watch does not show the restored places".to_owned()))
    }
}

/// A silent place waits again: no heartbeats could arrive while NATS was away.
fn without_silence(entry: Entry) -> Entry {
    let status = if entry.status.is_in_line() { PlaceStatus::Waiting } else { entry.status };
    Entry { status, ..entry }
}

/// Sends all writes in the order of the line, then waits for the answers. Returns the revision of each place that is there.
async fn write_all(
    room: &RoomState,
    entries: &[(Key, Entry)],
    ended: &HashSet<Key>,
) -> Result<Vec<Option<u64>>, Failure> {
    let mut sent = Vec::with_capacity(entries.len());
    for (key, entry) in entries {
        let ((concert, user), entry) = (*key, *entry);
        let is_over = ended.contains(key);
        // A key that exists in the new bucket needs a decision of its own.
        let view = room.memory.view(concert, user);
        let is_new = view.entry.is_none_or(|known| !is_in_new_bucket(room, &known));
        let first = if is_new && !is_over {
            let record = Record::with_status(user, concert, &entry, entry.status);
            let ttl = record.key_ttl(room.now());
            let at = subjects::queue_place(concert, user);
            room.nats.bucket.send(&at, Condition::Revision(0), record.to_bytes(), Some(ttl)).await
        } else {
            Err(WriteError::Conflict)
        };
        sent.push((concert, user, entry, is_over, first));
    }
    let answers = sent.into_iter().map(|(concert, user, entry, is_over, first)| async move {
        match answer_to(first).await {
            Ok(revision) => Ok(Some(revision)),
            Err(WriteError::Missing) => Err(Failure::Unavailable("the bucket is missing".to_owned())),
            Err(_) if is_over => mark_ended(room, concert, user).await.map(|()| None),
            Err(_) => write_one(room, concert, user, &entry).await,
        }
    });
    join_all(answers).await.into_iter().collect()
}

/// Writes a place whose key has changed in the new bucket.
async fn write_one(
    room: &RoomState,
    concert: ConcertId,
    user: UserId,
    entry: &Entry,
) -> Result<Option<u64>, Failure> {
    let key = subjects::queue_place(concert, user);
    let record = Record::with_status(user, concert, entry, entry.status);
    for _ in 0..MAX_TRIES {
        let stored =
            room.nats.bucket.read(&key).await.map_err(|error| Failure::Unavailable(error.to_string()))?;
        let expected = match decide(entry, &stored) {
            Decision::Write(expected) => expected,
            Decision::AlreadyThere(revision) => return Ok(Some(revision)),
            Decision::Leave => return Ok(None),
        };
        let ttl = record.key_ttl(room.now());
        match room.nats.bucket.write(&key, Condition::Revision(expected), record.to_bytes(), Some(ttl)).await
        {
            Ok(revision) => return Ok(Some(revision)),
            Err(WriteError::Missing) => return Err(Failure::Unavailable("the bucket is missing".to_owned())),
            Err(WriteError::Conflict | WriteError::Busy | WriteError::Unknown(_)) => (),
        }
    }
    Err(Failure::Unavailable(format!("the place of {user} cannot be written")))
}

/// What to do with a place of the journal, by what its key holds in the new bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Decision {
    /// Write it, if the key still has this revision.
    Write(u64),
    /// It is there, at this revision.
    AlreadyThere(u64),
    /// Nothing: it ended in the new bucket, or the user has an older place there.
    Leave,
}

fn decide(entry: &Entry, stored: &Stored) -> Decision {
    match stored {
        Stored::Nothing => Decision::Write(0),
        Stored::Deleted { .. } => Decision::Leave,
        Stored::Value { revision, bytes } => match Record::read(bytes, *revision) {
            // The user joined again, at an instance that did not know the old place.
            Some(newer) if newer.place > entry.place => Decision::Write(*revision),
            Some(older) if older.place < entry.place => Decision::Leave,
            // The user joined again, at an instance that knew the old place. It writes the place as waiting.
            Some(same) if same.status.is_in_line() && !entry.status.is_in_line() => {
                Decision::Write(*revision)
            }
            Some(_) => Decision::AlreadyThere(*revision),
            None => Decision::Write(*revision),
        },
    }
}

/// Places that have ended although the journal does not say so: they expired, this instance knows of their end, or their
/// owner has paid since the admission.
async fn find_ended(room: &RoomState, entries: &[(Key, Entry)]) -> Result<HashSet<Key>, Failure> {
    let now = room.now();
    let sessions: Vec<_> = entries
        .iter()
        .filter_map(|((concert, user), entry)| match entry.status {
            PlaceStatus::Active { activated_at, .. } => Some((*concert, *user, activated_at)),
            PlaceStatus::Waiting | PlaceStatus::Silent { .. } => None,
        })
        .collect();
    let paid = queue_journal::paid(room.admission.journal.pool(), &sessions).await?;
    let over = entries.iter().filter(|((concert, user), entry)| {
        entry.is_over(now) || room.memory.view(*concert, *user).is_over(entry.place)
    });
    Ok(over.map(|(key, _)| *key).chain(paid).collect())
}

/// Writes a delete marker for an ended place, so that every instance and the journal see the end.
async fn mark_ended(room: &RoomState, concert: ConcertId, user: UserId) -> Result<(), Failure> {
    let key = subjects::queue_place(concert, user);
    match room.nats.bucket.delete(&key, Condition::Revision(0), false).await {
        // The user joined again, or the marker exists.
        Ok(_) | Err(WriteError::Conflict) => Ok(()),
        Err(error) => Err(Failure::Unavailable(error.to_string())),
    }
}

/// Writes the marker under the fence of the lease, and waits until the watch shows it.
async fn write_marker(
    room: &RoomState,
    leader: &mut Leader,
    restored: &RestoredRecord,
) -> Result<(), Failure> {
    let record = Bytes::from(serde_json::to_vec(restored).unwrap_or_default());
    for _ in 0..MAX_TRIES {
        leader.prepare(room).await?;
        let fence = Condition::Lease(leader.lease.revision);
        match room.nats.bucket.write(subjects::QUEUE_RESTORED, fence, record.clone(), None).await {
            Ok(revision) if room.memory.wait_for(revision, WATCH_TIMEOUT).await => return Ok(()),
            Ok(_) => return Err(Failure::Unavailable("the watch does not show the marker".to_owned())),
            Err(WriteError::Conflict) => return Err(LeaseLost("another instance leads".to_owned()).into()),
            Err(WriteError::Busy) => tokio::time::sleep(BUSY_RETRY).await,
            Err(error) => return Err(Failure::Unavailable(error.to_string())),
        }
    }
    Err(Failure::Unavailable("the marker cannot be written".to_owned()))
}

/// Whether the new bucket has this place already, because an earlier try wrote it.
fn is_copied(room: &RoomState, (concert, user): Key, entry: &Entry) -> bool {
    let known = room.memory.view(concert, user).entry.filter(|known| is_in_new_bucket(room, known));
    known.is_some_and(|known| {
        known.place == entry.place && (entry.status.is_in_line() || !known.status.is_in_line())
    })
}

fn is_in_new_bucket(room: &RoomState, entry: &Entry) -> bool {
    incarnation::of(entry.revision) == room.memory.epoch().incarnation
}

#[cfg(test)]
mod tests {
    use chrono::{DateTime, Utc};

    use super::*;

    fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_900_000_000 + seconds, 0).unwrap()
    }

    fn entry(place: u64, status: PlaceStatus) -> Entry {
        Entry { revision: place, place, issued_at: at(0), status }
    }

    fn stored(place: u64, status: PlaceStatus) -> Stored {
        let record = Record::with_status(UserId::nil(), ConcertId::nil(), &entry(place, status), status);
        Stored::Value { revision: 50, bytes: record.to_bytes() }
    }

    #[test]
    fn older_place_wins_and_new_end_stands() {
        let active = PlaceStatus::Active { activated_at: at(1), expires_at: at(60), used: true };
        let (waiter, buyer) = (entry(7, PlaceStatus::Waiting), entry(7, active));
        assert_eq!(decide(&waiter, &Stored::Nothing), Decision::Write(0));
        let gone = Stored::Deleted { revision: 50, left_the_line: true };
        assert_eq!(decide(&waiter, &gone), Decision::Leave);
        for old in [waiter, buyer] {
            assert_eq!(decide(&old, &stored(40, PlaceStatus::Waiting)), Decision::Write(50), "joined again");
            assert_eq!(decide(&old, &stored(5, PlaceStatus::Waiting)), Decision::Leave);
        }
        assert_eq!(decide(&waiter, &stored(7, PlaceStatus::Waiting)), Decision::AlreadyThere(50));
        assert_eq!(decide(&waiter, &stored(7, active)), Decision::AlreadyThere(50));
        assert_eq!(decide(&buyer, &stored(7, active)), Decision::AlreadyThere(50));
        assert_eq!(decide(&buyer, &stored(7, PlaceStatus::Waiting)), Decision::Write(50), "it was admitted");
    }
}
