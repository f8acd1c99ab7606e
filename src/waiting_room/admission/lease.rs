//! The lease of the leader: a key of the bucket, renewed every second.
//!
//! No clocks of two machines are compared. An instance that wants the lease measures with its own monotonic clock how long
//! the key has not changed. Taking and renewing are compare-and-set. Every write of the leader names the lease's revision,
//! so the server refuses a leader that has lost its lease without noticing.

use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;
use uuid::Uuid;

use super::super::line::LeaseSeen;
use super::super::place::{Condition, Stored, WriteError};
use super::super::room_state::RoomState;
use super::super::tasks::bucket_records::LeaseRecord;
use crate::bus::subjects;

pub const RENEWAL_INTERVAL: Duration = Duration::from_secs(1);
/// How long a lease without a renewal is respected.
pub const LEASE_TTL: Duration = Duration::from_millis(3_500);
/// How long a renewal may take.
const RENEWAL_TIMEOUT: Duration = Duration::from_millis(1_500);
/// How often a follower checks whether the lease is free.
const CHECK_INTERVAL: Duration = Duration::from_millis(250);
/// The pause while an earlier write is under way.
const BUSY_RETRY: Duration = Duration::from_millis(5);

/// A lease that this process holds.
#[derive(Clone, Copy, Debug)]
pub struct Lease {
    holder: Uuid,
    /// Every write of the leader names this revision.
    pub revision: u64,
    renewed: Instant,
}

/// The lease is lost, or may be lost.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the lease of the admission is lost: {0}")]
pub struct LeaseLost(pub String);

/// Waits until the lease is needed and free, and takes it. It is needed while users are in a line or a bucket is not
/// restored. `holder` is the id of this process.
pub async fn acquire(room: &RoomState, holder: Uuid) -> Lease {
    let mut seen = room.memory.subscribe();
    loop {
        let lease = room.memory.lines().lease();
        let has_work = !room.memory.is_quiet() || !room.memory.epoch().is_restored();
        let needed = room.memory.is_complete() && room.nats.is_connected() && has_work;
        if needed && is_free(&lease, holder, Instant::now()) {
            match write(room, Some(holder), lease.revision).await {
                Ok(revision) => {
                    return Lease { holder, revision, renewed: Instant::now() };
                }
                Err(error) => tracing::debug!(%error, "another instance took the lease first"),
            }
        }
        let _ = tokio::time::timeout(CHECK_INTERVAL, seen.changed()).await;
    }
}

/// A lease is free if it was given back, if this process held it before, or if it has not changed for too long.
fn is_free(lease: &LeaseSeen, holder: Uuid, now: Instant) -> bool {
    match lease.holder {
        None => true,
        Some(other) => other == holder || now.saturating_duration_since(lease.since) >= LEASE_TTL,
    }
}

impl Lease {
    pub fn renewal(&self) -> Instant {
        self.renewed + RENEWAL_INTERVAL
    }

    /// Renews the lease. From then on the server refuses every write that names the earlier revision.
    pub async fn renew(&mut self, room: &RoomState) -> Result<(), LeaseLost> {
        let began = Instant::now();
        loop {
            match write(room, Some(self.holder), self.revision).await {
                Ok(revision) => {
                    self.revision = revision;
                    self.renewed = began;
                    return Ok(());
                }
                // On a cluster the last admission of this leader may still be under way.
                Err(WriteError::Busy) if began.elapsed() < RENEWAL_TIMEOUT => {
                    tokio::time::sleep(BUSY_RETRY).await
                }
                Err(error) => return Err(LeaseLost(error.to_string())),
            }
        }
    }

    /// Gives the lease back, so that another instance need not wait for its end.
    pub async fn give_back(self, room: &RoomState) {
        let mut given = write(room, None, self.revision).await;
        if given == Err(WriteError::Conflict)
            && let Some(revision) = own_revision(room, self.holder).await
        {
            // The process stopped between a renewal and its answer.
            given = write(room, None, revision).await;
        }
        if let Err(error) = given {
            tracing::debug!(%error, "giving the lease back failed; it ends by itself");
        }
    }
}

/// The lease's revision, if this process still holds it.
async fn own_revision(room: &RoomState, holder: Uuid) -> Option<u64> {
    let Ok(Stored::Value { revision, bytes }) = room.nats.bucket.read(subjects::QUEUE_LEASE).await else {
        return None;
    };
    let record = LeaseRecord::read(&bytes)?;
    (record.holder == Some(holder)).then_some(revision)
}

async fn write(room: &RoomState, holder: Option<Uuid>, expected: u64) -> Result<u64, WriteError> {
    if !room.nats.is_connected() {
        return Err(WriteError::Missing);
    }
    let record = LeaseRecord { holder, throttles: room.admission.throttles.all() };
    let record = serde_json::to_vec(&record).unwrap_or_default();
    let write = room.nats.bucket.write(
        subjects::QUEUE_LEASE,
        Condition::Revision(expected),
        Bytes::from(record),
        None,
    );
    match tokio::time::timeout(RENEWAL_TIMEOUT, write).await {
        Ok(written) => written,
        Err(_) => Err(WriteError::Unknown("it took too long".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn lease_ends_by_the_observers_clock() {
        let (me, other) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let lease = LeaseSeen { revision: 4, holder: Some(other), since: Instant::now() };
        assert!(!is_free(&lease, me, Instant::now()));
        assert!(is_free(&lease, other, Instant::now()), "held by this process before");
        tokio::time::advance(LEASE_TTL - Duration::from_millis(1)).await;
        assert!(!is_free(&lease, me, Instant::now()));
        tokio::time::advance(Duration::from_millis(1)).await;
        assert!(is_free(&lease, me, Instant::now()));
        assert!(is_free(&LeaseSeen { holder: None, ..lease }, me, lease.since), "given back");
    }
}
