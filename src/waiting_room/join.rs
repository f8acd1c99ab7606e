//! Takes a place: one key for each concert and user, written by compare-and-set. Two simultaneous requests, or a
//! repeated write whose answer was lost, end in the same place.
//!
//! A user who left the line and joins again at once waits for the leader's next renewal, a second at most. An
//! admission of the old place may be under way and would overwrite the new one. After the renewal the server refuses
//! it, see [`super::admission`].

use std::time::Duration;

use tokio::time::Instant;

use super::admission::lease::LEASE_TTL;
use super::place::{Claims, Condition, Entry, PlaceStatus, ReadError, Record, Stored, WriteError};
use super::queue_token::{Phase, QueueToken};
use super::room_state::{RoomError, RoomState};
use super::tasks::bucket_watch;
use crate::bus::{incarnation, subjects};
use crate::ids::{ConcertId, UserId};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Joined {
    /// Whether the place is new (201) or existed before (200).
    pub created: bool,
    pub token: QueueToken,
}

/// After this time the waiting room counts as unavailable.
const JOIN_TIMEOUT: Duration = Duration::from_secs(4);
/// How long to wait until the watch shows the new place.
const WATCH_TIMEOUT: Duration = Duration::from_secs(1);
/// How long to wait for an admission that is likely to come at once.
const ADMISSION_TIMEOUT: Duration = Duration::from_millis(50);
/// With a longer line no user is admitted at once.
const MAX_SHORT_LINE: usize = 32;
/// How long the owner of a lost place waits for the restoration of the line, and then for the write of the place.
const RESTORATION_TIMEOUT: Duration = Duration::from_secs(3);
const RETURN_TIMEOUT: Duration = Duration::from_millis(500);
/// The pause while an earlier write is under way.
const BUSY_RETRY: Duration = Duration::from_millis(5);

/// Takes a place at the end of the line, or returns the existing one.
pub async fn join(room: &RoomState, user: UserId, concert: ConcertId) -> Result<Joined, RoomError> {
    if !room.nats.is_connected() {
        return Err(RoomError::Unavailable);
    }
    let joining = async {
        let sale = room.sales.fresh(concert).await.map_err(|error| {
            tracing::warn!(%error, "the sale could not be read");
            RoomError::Unavailable
        })?;
        let sale = sale.ok_or(RoomError::NotFound)?;
        let (created, entry) = match sale.phase {
            Phase::Closed => (false, find(room, user, concert).await?.ok_or(RoomError::QueueClosed)?),
            Phase::SoldOut => (false, find(room, user, concert).await?.ok_or(RoomError::SoldOut)?),
            _ => take(room, user, concert).await?,
        };
        room.memory.wait_for(entry.revision, WATCH_TIMEOUT).await;
        if created && sale.phase == Phase::Open {
            wait_for_admission(room, user, concert, sale.settings.max_active).await;
        }
        Ok(Joined { created, token: room.look_at(user, concert, &entry) })
    };
    tokio::time::timeout(JOIN_TIMEOUT, joining).await.unwrap_or(Err(RoomError::Unavailable))
}

/// Writes a new place unless there is one.
async fn take(room: &RoomState, user: UserId, concert: ConcertId) -> Result<(bool, Entry), RoomError> {
    let key = subjects::queue_place(concert, user);
    let now = room.now();
    let lost = lost(room, user, concert);
    let record = match &lost {
        Some(entry) => Record::with_status(user, concert, entry, PlaceStatus::Waiting),
        None => Record::joining(user, concert, now),
    };
    let mut expected = 0;
    loop {
        let life = record.key_ttl(now);
        let written =
            room.nats.bucket.write(&key, Condition::Revision(expected), record.to_bytes(), Some(life)).await;
        match written {
            Ok(revision) => {
                let (place, issued_at) = lost.map_or((revision, now), |lost| (lost.place, lost.issued_at));
                let entry = Entry { revision, place, issued_at, status: PlaceStatus::Waiting };
                return Ok((lost.is_none(), entry));
            }
            Err(WriteError::Missing) => {
                room.nats.bucket.ensure(room.memory.seen()).await.map_err(|error| unavailable(&error))?;
                bucket_watch::announce_new_bucket(room).await;
            }
            Err(WriteError::Busy) => tokio::time::sleep(BUSY_RETRY).await,
            Err(WriteError::Conflict | WriteError::Unknown(_)) => (),
        }
        expected = match room.nats.bucket.read(&key).await.map_err(|error| unavailable(&error))? {
            Stored::Nothing => 0,
            Stored::Deleted { revision, left_the_line } => {
                if left_the_line {
                    wait_for_leader(room, revision).await;
                }
                revision
            }
            Stored::Value { revision, bytes } => match Record::read(&bytes, revision) {
                // This also finds the user's own first write if its answer was lost.
                Some(entry) if is_alive(room, user, concert, &entry) => {
                    return Ok((bytes == record.to_bytes(), entry));
                }
                // The owner left, and the deletion is under way. A place that may be admitted must never be
                // overwritten.
                Some(entry) if entry.status.is_in_line() => {
                    let _ = room.nats.bucket.delete(&key, Condition::Revision(revision), true).await;
                    continue;
                }
                _ => revision,
            },
        };
    }
}

/// The user's place in a lost bucket that is not restored yet. It is written again as waiting, because only the
/// journal has the admissions.
fn lost(room: &RoomState, user: UserId, concert: ConcertId) -> Option<Entry> {
    let epoch = room.memory.epoch();
    let known = room.memory.view(concert, user).entry?;
    let is_lost = !epoch.is_restored() && incarnation::of(known.revision) < epoch.incarnation;
    (is_lost && is_alive(room, user, concert, &known)).then_some(known)
}

/// Restores a place that NATS lost before it was journalled. Waits a limited time for the restoration of the line and
/// for the write.
pub async fn restore_place(room: &RoomState, claims: &Claims) {
    let epoch = || room.memory.epoch();
    if !epoch().is_undecided(claims.place) {
        return;
    }
    let mut seen = room.memory.subscribe();
    let is_restored = |_: &u64| epoch().is_restored();
    let _ = tokio::time::timeout(RESTORATION_TIMEOUT, seen.wait_for(is_restored)).await;
    room.check(claims);
    room.gate.pending.written(claims, RETURN_TIMEOUT).await;
}

/// The existing place, for a sale in which no new one is given.
async fn find(room: &RoomState, user: UserId, concert: ConcertId) -> Result<Option<Entry>, RoomError> {
    match room
        .nats
        .bucket
        .read(&subjects::queue_place(concert, user))
        .await
        .map_err(|error| unavailable(&error))?
    {
        Stored::Value { revision, bytes } => {
            Ok(Record::read(&bytes, revision).filter(|entry| is_alive(room, user, concert, entry)))
        }
        Stored::Deleted { .. } | Stored::Nothing => Ok(None),
    }
}

fn is_alive(room: &RoomState, user: UserId, concert: ConcertId, entry: &Entry) -> bool {
    let ended = room.memory.view(concert, user).is_over(entry.place);
    let claims = entry.claims(user, concert);
    let promised =
        room.gate.pending.session_end(&claims, claims.activated_at).is_some_and(|until| until > room.now());
    !ended && (promised || !entry.is_over(room.now()))
}

/// Waits until the leader must have seen `revision`, because it has renewed its lease since, or until no instance
/// leads.
async fn wait_for_leader(room: &RoomState, revision: u64) {
    let mut seen = room.memory.subscribe();
    let is_seen = |_: &u64| {
        let lease = room.memory.lines().lease();
        lease.revision > revision || lease.holder.is_none() || lease.since.elapsed() >= LEASE_TTL
    };
    let _ = tokio::time::timeout(LEASE_TTL, seen.wait_for(is_seen)).await;
}

/// Without a line an admission takes milliseconds, so the response can wait for it.
async fn wait_for_admission(room: &RoomState, user: UserId, concert: ConcertId, max_active: i32) {
    let is_likely = room.memory.lines().queue(concert).is_some_and(|queue| {
        queue.waiting() <= MAX_SHORT_LINE && queue.active() < usize::try_from(max_active).unwrap_or(0)
    });
    if !is_likely {
        return;
    }
    let deadline = Instant::now() + ADMISSION_TIMEOUT;
    let mut seen = room.memory.subscribe();
    let is_admitted = |_: &u64| {
        let entry = room.memory.view(concert, user).entry;
        entry.is_some_and(|entry| !entry.status.is_in_line())
    };
    let _ = tokio::time::timeout_at(deadline, seen.wait_for(is_admitted)).await;
}

fn unavailable(error: &ReadError) -> RoomError {
    tracing::warn!(%error, "a place could not be looked up");
    RoomError::Unavailable
}
