//! Taking a place: one key per concert and user, written by compare-and-set, so that two instances asked at once, or a
//! publish whose answer was lost, end in the same place.
//!
//! A user who left the line and joins again at once has to wait for the leader's next renewal (a second at most): an admission
//! of the old place may be on its way, and would overwrite the new one. After the renewal it would be refused, see
//! [`super::admission`].

use std::time::Duration;

use tokio::time::Instant;

use super::admission::lease::LAPSE;
use super::following::watch;
use super::hall::{Hall, RoomError};
use super::place::{Claims, Entry, If, ReadError, Record, Standing, Stored, WriteError};
use super::status::{Phase, QueueToken};
use crate::bus::{incarnation, subjects};
use crate::ids::{ConcertId, UserId};

/// The answer to joining.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Joined {
    /// Whether the place is new (201) or was there before (200).
    pub created: bool,
    /// The place.
    pub token: QueueToken,
}

/// How long a join may take before the answer is that the waiting room cannot be reached.
const PATIENCE: Duration = Duration::from_secs(4);
/// How long the place just taken is waited for in this instance's memory.
const SIGHT: Duration = Duration::from_secs(1);
/// How long a join waits for an admission that is likely to come at once.
const ADMISSION: Duration = Duration::from_millis(50);
/// With more than these in line nobody is admitted at once.
const SHORT_LINE: usize = 32;
/// How long the owner of a lost place waits for the restoration of all others, and then for the return of that one.
const RESTORATION: Duration = Duration::from_secs(3);
const RETURN: Duration = Duration::from_millis(500);
/// The pause before asking again whether an earlier write has come through.
const BREATH: Duration = Duration::from_millis(5);

/// Takes a place at the end of the line, or finds the one there is.
pub async fn join(hall: &Hall, user: UserId, concert: ConcertId) -> Result<Joined, RoomError> {
    if !hall.is_connected() {
        return Err(RoomError::Unavailable);
    }
    let joining = async {
        let sale = hall.sales.fresh(concert).await.map_err(|error| {
            tracing::warn!(%error, "the sale could not be read");
            RoomError::Unavailable
        })?;
        let sale = sale.ok_or(RoomError::NotFound)?;
        let (created, entry) = match sale.phase {
            Phase::Closed => (false, find(hall, user, concert).await?.ok_or(RoomError::QueueClosed)?),
            Phase::SoldOut => (false, find(hall, user, concert).await?.ok_or(RoomError::SoldOut)?),
            _ => take(hall, user, concert).await?,
        };
        hall.memory.wait_for(entry.revision, SIGHT).await;
        if created && sale.phase == Phase::Open {
            wait_for_admission(hall, user, concert, sale.settings.max_active).await;
        }
        Ok(Joined { created, token: hall.look_at(user, concert, &entry) })
    };
    tokio::time::timeout(PATIENCE, joining).await.unwrap_or(Err(RoomError::Unavailable))
}

/// Writes a new place unless there is one.
async fn take(hall: &Hall, user: UserId, concert: ConcertId) -> Result<(bool, Entry), RoomError> {
    let key = subjects::queue_place(concert, user);
    let now = hall.now();
    let lost = lost(hall, user, concert);
    let record = match &lost {
        Some(entry) => Record::standing(user, concert, entry, Standing::Waiting),
        None => Record::joining(user, concert, now),
    };
    let mut expected = 0;
    loop {
        let life = record.key_life(now);
        let written = hall.bucket.write(&key, If::At(expected), record.to_bytes(), Some(life)).await;
        match written {
            Ok(revision) => {
                let (place, issued_at) = lost.map_or((revision, now), |lost| (lost.place, lost.issued_at));
                let entry = Entry { revision, place, issued_at, standing: Standing::Waiting };
                return Ok((lost.is_none(), entry));
            }
            Err(WriteError::Missing) => {
                hall.bucket.ensure(hall.memory.seen()).await.map_err(|error| unavailable(&error))?;
                watch::tell_of_doubt(hall).await;
            }
            Err(WriteError::Busy) => tokio::time::sleep(BREATH).await,
            Err(WriteError::Conflict | WriteError::Unknown(_)) => (),
        }
        expected = match hall.bucket.read(&key).await.map_err(|error| unavailable(&error))? {
            Stored::Nothing => 0,
            Stored::Deleted { revision, left_the_line } => {
                if left_the_line {
                    let_the_leader_see(hall, revision).await;
                }
                revision
            }
            Stored::Value { revision, bytes } => match Record::read(&bytes, revision) {
                // A first write whose answer was lost is found here as one's own.
                Some(entry) if is_alive(hall, user, concert, &entry) => {
                    return Ok((bytes == record.to_bytes(), entry));
                }
                // Its owner left, and the deletion is on its way: never overwrite a place that may be admitted.
                Some(entry) if entry.standing.is_in_line() => {
                    let _ = hall.bucket.delete(&key, If::At(revision), true).await;
                    continue;
                }
                _ => revision,
            },
        };
    }
}

/// The place that this user had in a bucket that was lost, as long as it has not been restored. It is written again as
/// a waiter's, whatever it was: only the journal knows who was admitted.
fn lost(hall: &Hall, user: UserId, concert: ConcertId) -> Option<Entry> {
    let era = hall.memory.era();
    let known = hall.memory.view(concert, user).entry?;
    let is_lost = !era.is_restored() && incarnation::of(known.revision) < era.incarnation;
    (is_lost && is_alive(hall, user, concert, &known)).then_some(known)
}

/// Brings back a place that NATS has lost before it was journalled, if this is one; waits for the restoration, and then
/// until it is written, but not for long.
pub async fn bring_back(hall: &Hall, claims: &Claims) {
    let era = || hall.memory.era();
    if !era().is_undecided(claims.place) {
        return;
    }
    let mut seen = hall.memory.subscribe();
    let is_restored = |_: &u64| era().is_restored();
    let _ = tokio::time::timeout(RESTORATION, seen.wait_for(is_restored)).await;
    hall.judge(claims);
    hall.promises.written(claims, RETURN).await;
}

/// The place there is, when no new one is given.
async fn find(hall: &Hall, user: UserId, concert: ConcertId) -> Result<Option<Entry>, RoomError> {
    match hall
        .bucket
        .read(&subjects::queue_place(concert, user))
        .await
        .map_err(|error| unavailable(&error))?
    {
        Stored::Value { revision, bytes } => {
            Ok(Record::read(&bytes, revision).filter(|entry| is_alive(hall, user, concert, entry)))
        }
        Stored::Deleted { .. } | Stored::Nothing => Ok(None),
    }
}

fn is_alive(hall: &Hall, user: UserId, concert: ConcertId, entry: &Entry) -> bool {
    let ended = hall.memory.view(concert, user).is_over(entry.place);
    let claims = entry.claims(user, concert);
    let promised = hall.promises.until(&claims, claims.activated_at).is_some_and(|until| until > hall.now());
    !ended && (promised || !entry.is_over(hall.now()))
}

/// Waits until whoever admits must have seen `revision`: a lease renewed after it; or there is nobody who admits.
async fn let_the_leader_see(hall: &Hall, revision: u64) {
    let mut seen = hall.memory.subscribe();
    let is_seen = |_: &u64| {
        let lease = hall.memory.lines().lease();
        lease.revision > revision || lease.holder.is_none() || lease.since.elapsed() >= LAPSE
    };
    let _ = tokio::time::timeout(LAPSE, seen.wait_for(is_seen)).await;
}

/// In a quiet concert an admission takes milliseconds: the answer is worth waiting for.
async fn wait_for_admission(hall: &Hall, user: UserId, concert: ConcertId, max_active: i32) {
    let is_likely = hall.memory.lines().queue(concert).is_some_and(|queue| {
        queue.waiting() <= SHORT_LINE && queue.active() < usize::try_from(max_active).unwrap_or(0)
    });
    if !is_likely {
        return;
    }
    let deadline = Instant::now() + ADMISSION;
    let mut seen = hall.memory.subscribe();
    let is_admitted = |_: &u64| {
        let entry = hall.memory.view(concert, user).entry;
        entry.is_some_and(|entry| !entry.standing.is_in_line())
    };
    let _ = tokio::time::timeout_at(deadline, seen.wait_for(is_admitted)).await;
}

fn unavailable(error: &ReadError) -> RoomError {
    tracing::warn!(%error, "a place could not be looked up");
    RoomError::Unavailable
}
