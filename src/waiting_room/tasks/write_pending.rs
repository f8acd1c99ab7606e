//! Writes pending changes to the bucket, each in the background and again until it succeeds.

use std::collections::{HashSet, VecDeque};
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::time::Instant;

use super::super::gate::{Key, NextWrite, PendingWrite};
use super::super::place::{Condition, Entry, PlaceStatus, Record, WriteError};
use super::super::room_state::RoomState;
use crate::bus::subjects;
use crate::ids::{ConcertId, UserId};
use crate::telemetry::CONCERT_LABELS;

const MAX_CONCURRENT_WRITES: usize = 64;
/// The pause after a conflict or before an admission is seen: the watch shows it within milliseconds.
const CONFLICT_RETRY: Duration = Duration::from_millis(20);
/// The pause after a write without an answer.
const FAILURE_RETRY: Duration = Duration::from_millis(500);
/// How long the watch may take to show a write.
const WATCH_TIMEOUT: Duration = Duration::from_secs(2);
/// How long the writes that are due may take at shutdown.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(1);

/// A write that was tried, and the pause before the next try; `None` if it is done.
type Tried = (Key, PendingWrite, Option<Duration>);

/// Runs until the process stops. Then tries every write that is due once more.
pub async fn run(room: &RoomState) {
    let mut under_way = FuturesUnordered::new();
    let mut keys = HashSet::new();
    let (mut due, mut later) = (VecDeque::new(), None);
    let mut reload = true;
    loop {
        if reload || due.is_empty() {
            let (all, next) = room.gate.pending.due(Instant::now());
            (due, later) = (all.into(), next);
        }
        // No write waits for another one, because a payment is answered only once its end is written.
        while under_way.len() < MAX_CONCURRENT_WRITES
            && let Some((key, write)) = due.pop_front()
        {
            if keys.insert(key) {
                under_way.push(attempt(room, key, write));
            }
        }
        reload = false;
        tokio::select! {
            () = room.stop.cancelled() => break,
            () = room.gate.pending.wake.notified() => reload = true,
            Some(tried) = under_way.next() => {
                keys.remove(&tried.0);
                finish(room, &tried);
            }
            () = sleep_until(later) => reload = true,
        }
    }
    drop(under_way);
    let (due, _) = room.gate.pending.due(Instant::now());
    let last =
        futures::stream::iter(due).for_each_concurrent(MAX_CONCURRENT_WRITES, |(key, write)| async move {
            finish(room, &attempt(room, key, write).await);
        });
    let _ = tokio::time::timeout(SHUTDOWN_GRACE, last).await;
}

async fn sleep_until(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time).await,
        None => std::future::pending().await,
    }
}

async fn attempt(room: &RoomState, key: Key, write: PendingWrite) -> Tried {
    (key, write, write_once(room, key, &write).await)
}

fn finish(room: &RoomState, (key, write, pause): &Tried) {
    match pause {
        Some(pause) => room.gate.pending.postpone(*key, write, *pause),
        None => room.gate.pending.finish(*key, write),
    }
}

/// Tries the next write of a place. Returns the pause before the next try; `None` if everything is written.
async fn write_once(room: &RoomState, (concert, user): Key, write: &PendingWrite) -> Option<Duration> {
    let view = room.memory.view(concert, user);
    let next = write.next_write(&view, room.memory.known());
    let ends_silence = matches!(next, NextWrite::Status(_, PlaceStatus::Waiting));
    let written = match next {
        NextWrite::Nothing => return None,
        NextWrite::NotSeenYet if write.age() < WATCH_TIMEOUT => return Some(CONFLICT_RETRY),
        NextWrite::NotSeenYet => return Some(FAILURE_RETRY),
        _ if !room.nats.is_connected() => return Some(FAILURE_RETRY),
        NextWrite::Status(entry, status) => {
            put(room, concert, user, Condition::Revision(entry.revision), &Entry { status, ..entry }).await
        }
        NextWrite::Restore(condition, entry, since) => {
            match room.admission.journal.has_paid(concert, user, since).await {
                Ok(true) => {
                    room.memory.end_locally(concert, user, entry.place, room.now());
                    return None;
                }
                Ok(false) => put(room, concert, user, condition, &entry).await,
                Err(error) => Err(WriteError::Unknown(error.to_string())),
            }
        }
        NextWrite::Delete { condition, in_line } => {
            room.nats.bucket.delete(&subjects::queue_place(concert, user), condition, in_line).await
        }
    };
    match written {
        Ok(revision) if room.memory.wait_for(revision, WATCH_TIMEOUT).await => {
            if ends_silence {
                metrics::counter!("boxoffice_queue_returned_total", "concert" => CONCERT_LABELS.of(concert))
                    .increment(1);
            }
            None
        }
        Ok(_) | Err(WriteError::Conflict | WriteError::Busy) => Some(CONFLICT_RETRY),
        Err(error) => {
            tracing::warn!(%error, %concert, %user, "writing a place to the bucket failed; the write is retried");
            Some(FAILURE_RETRY)
        }
    }
}

async fn put(
    room: &RoomState,
    concert: ConcertId,
    user: UserId,
    condition: Condition,
    entry: &Entry,
) -> Result<u64, WriteError> {
    let record = Record::with_status(user, concert, entry, entry.status);
    let ttl = record.key_ttl(room.now());
    let key = subjects::queue_place(concert, user);
    room.nats.bucket.write(&key, condition, record.to_bytes(), Some(ttl)).await
}
