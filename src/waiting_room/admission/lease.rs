//! The lease under which one instance at a time admits: a key of the bucket, renewed every second.
//!
//! No clock is compared between machines: whoever wants the lease measures by its own monotonic clock how long it has not
//! seen the key change. Taking and renewing are compare-and-set, and every write of the leader names the lease's revision,
//! so that a leader that slept through the loss of its lease is refused by the server, not by its own good sense.

use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;
use uuid::Uuid;

use super::super::following::watch::LeaseRecord;
use super::super::hall::Hall;
use super::super::line::LeaseSeen;
use super::super::place::{If, Stored, WriteError};
use crate::bus::subjects;

/// How often the leader renews.
pub const RENEW_EVERY: Duration = Duration::from_secs(1);
/// How long a lease that nobody renews is respected.
pub const LAPSE: Duration = Duration::from_millis(3_500);
/// How long a renewal may take.
const ANSWER: Duration = Duration::from_millis(1_500);
/// How often a follower looks whether the lease is free, unless it is told.
const LOOK: Duration = Duration::from_millis(250);
/// The pause before asking again whether an earlier write has come through.
const BREATH: Duration = Duration::from_millis(5);

/// The lease, held.
#[derive(Clone, Copy, Debug)]
pub struct Lease {
    holder: Uuid,
    /// The revision that every write of the leader names.
    pub revision: u64,
    renewed: Instant,
}

/// The lease is lost, or may be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the lease of the admission is lost: {0}")]
pub struct Lost(pub String);

/// Waits until somebody is in line, or a new bucket is to be restored, and the lease is free, and takes it. `holder` is the id of this process.
pub async fn acquire(hall: &Hall, holder: Uuid) -> Lease {
    let mut seen = hall.memory.subscribe();
    loop {
        let lease = hall.memory.lines().lease();
        let is_called_for = !hall.is_quiet() || !hall.memory.era().is_restored();
        let needed = hall.memory.is_complete() && hall.is_connected() && is_called_for;
        if needed && is_free(&lease, holder, Instant::now()) {
            match write(hall, Some(holder), lease.revision).await {
                Ok(revision) => {
                    return Lease { holder, revision, renewed: Instant::now() };
                }
                Err(error) => tracing::debug!(%error, "another instance was quicker to take the admission"),
            }
        }
        let _ = tokio::time::timeout(LOOK, seen.changed()).await;
    }
}

/// A lease is free that nobody holds, that is one's own from before, or that has not changed for too long.
fn is_free(lease: &LeaseSeen, holder: Uuid, now: Instant) -> bool {
    match lease.holder {
        None => true,
        Some(other) => other == holder || now.saturating_duration_since(lease.since) >= LAPSE,
    }
}

impl Lease {
    /// When to renew.
    pub fn renewal(&self) -> Instant {
        self.renewed + RENEW_EVERY
    }

    /// Renews; every write that names the revision before is refused from then on.
    pub async fn renew(&mut self, hall: &Hall) -> Result<(), Lost> {
        let began = Instant::now();
        loop {
            match write(hall, Some(self.holder), self.revision).await {
                Ok(revision) => {
                    self.revision = revision;
                    self.renewed = began;
                    return Ok(());
                }
                // On a cluster: the trace of one's own last admission, for a moment.
                Err(WriteError::Busy) if began.elapsed() < ANSWER => tokio::time::sleep(BREATH).await,
                Err(error) => return Err(Lost(error.to_string())),
            }
        }
    }

    /// Gives the lease back, so that another instance need not wait until it lapses.
    pub async fn give_back(self, hall: &Hall) {
        let mut given = write(hall, None, self.revision).await;
        if given == Err(WriteError::Conflict)
            && let Some(revision) = own_revision(hall, self.holder).await
        {
            // The stop came between a renewal and its answer.
            given = write(hall, None, revision).await;
        }
        if let Err(error) = given {
            tracing::debug!(%error, "the admission was not given back; it lapses by itself");
        }
    }
}

/// The lease's revision, if this process still holds it.
async fn own_revision(hall: &Hall, holder: Uuid) -> Option<u64> {
    let Ok(Stored::Value { revision, bytes }) = hall.bucket.read(subjects::QUEUE_LEASE).await else {
        return None;
    };
    let record = LeaseRecord::read(&bytes)?;
    (record.holder == Some(holder)).then_some(revision)
}

async fn write(hall: &Hall, holder: Option<Uuid>, expected: u64) -> Result<u64, WriteError> {
    if !hall.is_connected() {
        return Err(WriteError::Missing);
    }
    let record = LeaseRecord { holder, brakes: hall.brakes.all() };
    let record = serde_json::to_vec(&record).unwrap_or_default();
    let write = hall.bucket.write(subjects::QUEUE_LEASE, If::At(expected), Bytes::from(record), None);
    match tokio::time::timeout(ANSWER, write).await {
        Ok(written) => written,
        Err(_) => Err(WriteError::Unknown("it took too long".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_lease_lapses_by_the_watchers_own_clock() {
        let (me, other) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let lease = LeaseSeen { revision: 4, holder: Some(other), since: Instant::now() };
        assert!(!is_free(&lease, me, Instant::now()));
        assert!(is_free(&lease, other, Instant::now()), "one's own from before");
        tokio::time::advance(LAPSE - Duration::from_millis(1)).await;
        assert!(!is_free(&lease, me, Instant::now()));
        tokio::time::advance(Duration::from_millis(1)).await;
        assert!(is_free(&lease, me, Instant::now()));
        assert!(is_free(&LeaseSeen { holder: None, ..lease }, me, lease.since), "given back");
    }
}
