//! The records of the bucket that are not places, and the reading of every message.

use std::collections::BTreeMap;

use async_nats::jetstream::kv::{Entry, Operation};
use chrono::DateTime;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::super::line::BucketChange;
use super::super::place::Record;
use super::super::room_state::RoomState;
use super::super::sale::Throttle;
use crate::bus::subjects;
use crate::ids::{ConcertId, UserId};

/// The value of the lease's key.
#[derive(Debug, Serialize, Deserialize)]
pub struct LeaseRecord {
    /// The process that leads; `None` after the lease was given back.
    pub holder: Option<Uuid>,
    /// The throttles of all lines, as the leader has decided.
    #[serde(default, rename = "brakes", skip_serializing_if = "BTreeMap::is_empty")]
    pub throttles: BTreeMap<ConcertId, Throttle>,
}

impl LeaseRecord {
    /// Reads a record. A throttle that no leader can have written is dropped; the lease still counts.
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let mut record: Self = serde_json::from_slice(bytes).ok()?;
        record.throttles.retain(|concert, throttle| {
            let is_plausible = throttle.is_plausible();
            if !is_plausible {
                tracing::warn!(%concert, "the lease has a throttle out of range; the throttle is ignored");
            }
            is_plausible
        });
        Some(record)
    }
}

/// The value of the key that marks a restored bucket.
#[derive(Debug, Serialize, Deserialize)]
pub struct RestoredRecord {
    /// The revision of earlier buckets up to which the journal was complete.
    pub journalled: u64,
    /// How many places were written.
    pub places: u64,
}

/// The owner of a place's key. A key with another spelling of the same ids does not count, because writes about the place
/// use the canonical spelling.
fn owner(key: &str) -> Option<(ConcertId, UserId)> {
    let (concert, user) = key.split_once('.')?;
    let owner = (concert.parse().ok()?, user.parse().ok()?);
    (subjects::queue_place(owner.0, owner.1) == key).then_some(owner)
}

/// Reads a message of the bucket. A lease of another instance also updates the throttles.
pub fn read(room: &RoomState, entry: &Entry) -> BucketChange {
    let revision = entry.revision;
    if entry.key == subjects::QUEUE_LEASE {
        let lease = LeaseRecord::read(&entry.value);
        let holder = lease.as_ref().and_then(|lease| lease.holder);
        // This instance may have decided again since it wrote its own record.
        if let Some(lease) = lease.filter(|_| holder != Some(room.heartbeats.own)) {
            room.admission.throttles.apply(lease.throttles);
        }
        return BucketChange::Lease { revision, holder };
    }
    if entry.key == subjects::QUEUE_RESTORED {
        let restored = serde_json::from_slice::<RestoredRecord>(&entry.value).ok();
        return match restored {
            Some(restored) => BucketChange::Restored { revision, journalled: restored.journalled },
            None => BucketChange::Other { revision },
        };
    }
    let Some((concert, user)) = owner(&entry.key) else {
        return BucketChange::Other { revision };
    };
    let place = match entry.operation {
        Operation::Put => Record::read(&entry.value, revision),
        Operation::Delete | Operation::Purge => None,
    };
    match place {
        Some(entry) => BucketChange::Put { concert, user, entry },
        None => {
            if entry.operation == Operation::Put {
                // It counts as an end, so that the key is removed like a delete marker.
                tracing::warn!(%concert, %user, revision, "a record of the bucket is refused: not a place, or out of range");
                metrics::counter!("boxoffice_queue_records_refused_total").increment(1);
            }
            let at = DateTime::from_timestamp(entry.created.timestamp(), 0).unwrap_or_default();
            BucketChange::Deleted { concert, user, revision, at }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hostile::like;
    use crate::waiting_room::line::Lines;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    fn lease() -> Value {
        let brake = json!({
            "state": "falling", "rate": 420.0, "reason": "holds take 512 ms (p99)", "hold_p99_ms": 512, "backlog": 3,
        });
        json!({ "holder": Uuid::from_u128(1), "brakes": { Uuid::from_u128(2).to_string(): brake } })
    }

    proptest! {
        #[test]
        fn leases_are_read_or_refused(bytes in like(lease())) {
            if let Some(record) = LeaseRecord::read(&bytes) {
                for brake in record.throttles.values() {
                    prop_assert!(brake.is_plausible(), "{:?}", brake);
                }
                let written = serde_json::to_vec(&record).unwrap();
                let again = LeaseRecord::read(&written).unwrap();
                prop_assert_eq!((again.holder, again.throttles), (record.holder, record.throttles));
            }
        }

        #[test]
        fn restored_marks_are_read_or_refused(bytes in like(json!({ "journalled": 7, "places": 8 }))) {
            if let Ok(record) = serde_json::from_slice::<RestoredRecord>(&bytes) {
                let mut lines = Lines::new(std::time::Duration::from_secs(3));
                lines.apply(BucketChange::Restored { revision: 9, journalled: record.journalled }, None);
                lines.take_changes();
            }
        }
    }

    #[test]
    fn lease_with_a_bad_brake_keeps_its_holder() {
        let mut record = lease();
        assert_eq!(LeaseRecord::read(record.to_string().as_bytes()).unwrap().throttles.len(), 1);
        record["brakes"][Uuid::from_u128(2).to_string()]["rate"] = json!(1e300);
        let read = LeaseRecord::read(record.to_string().as_bytes()).unwrap();
        assert_eq!((read.holder, read.throttles.len()), (Some(Uuid::from_u128(1)), 0));
    }
}
