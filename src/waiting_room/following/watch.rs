//! Follows the bucket: everything that lies in it, then every change, into memory, for as long as the process runs.
//!
//! The client library's watch repairs most gaps by itself. What it does not tell is a bucket that was deleted and made
//! again, a deletion whose trace was gone before a reconnect, or silence where there is news. So the watch begins anew after
//! every reconnect, whenever the bucket is another one, and when it lags without moving; memory takes from a second
//! telling only what is newer, and drops what is not told of any more. A bucket that ends before what was seen of it has
//! lost writes: it is emptied, begins behind them, and is restored like a new one.

use std::collections::BTreeMap;
use std::time::Duration;

use async_nats::jetstream::kv::{Entry, Operation};
use async_nats::jetstream::stream::Info;
use chrono::{DateTime, Utc};
use futures::future::{BoxFuture, Fuse, FusedFuture};
use futures::{FutureExt, StreamExt};
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, MissedTickBehavior};
use uuid::Uuid;

use super::super::hall::Hall;
use super::super::line::News;
use super::super::place::{ReadError, Record};
use super::super::sale::Brake;
use crate::bus::{incarnation, subjects};
use crate::ids::{ConcertId, UserId};

/// Most messages applied under one lock.
const CHUNK: usize = 512;
/// How often the watch itself is watched.
const CHECK: Duration = Duration::from_millis(500);
/// A replay is complete once all that lay in the bucket at most this long ago has been told.
const LAG: Duration = Duration::from_millis(500);
/// The longest that news may be missing before the watch begins anew.
const PATIENCE: Duration = Duration::from_secs(3);
/// The pause before beginning anew, so that a server that refuses is not stormed.
const PAUSE: Duration = Duration::from_millis(100);

/// What the key of the lease holds.
#[derive(Debug, Serialize, Deserialize)]
pub struct LeaseRecord {
    /// The running process that admits; nobody, once it was given back.
    pub holder: Option<Uuid>,
    /// How fast lines with a brake may move, as the leader has decided.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub brakes: BTreeMap<ConcertId, Brake>,
}

impl LeaseRecord {
    /// Reads a record. A brake that no leader writes is left out; the lease counts all the same.
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let mut record: Self = serde_json::from_slice(bytes).ok()?;
        record.brakes.retain(|concert, brake| {
            let is_plausible = brake.is_plausible();
            if !is_plausible {
                tracing::warn!(%concert, "a brake in the record of the lease is refused: out of range");
            }
            is_plausible
        });
        Some(record)
    }
}

/// What the marker of a restored bucket holds.
#[derive(Debug, Serialize, Deserialize)]
pub struct RestoredRecord {
    /// Up to which revision of earlier buckets everything had been journalled.
    pub journalled: u64,
    /// How many places were written.
    pub places: u64,
}

/// Runs until the process stops.
pub async fn run(hall: &Hall) {
    let mut bucket_made = None;
    loop {
        let told = tokio::select! {
            () = hall.stop.cancelled() => return,
            told = follow(hall, &mut bucket_made) => told,
        };
        match told {
            Ok(reason) => tracing::info!(reason, "the places in line are read anew"),
            Err(error) => tracing::warn!(%error, "the places in line cannot be followed, trying again"),
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// One watch, until there is a reason for another.
async fn follow(hall: &Hall, bucket_made: &mut Option<DateTime<Utc>>) -> Result<&'static str, ReadError> {
    let connects = hall.bus.connects();
    let start = match hall.bucket.info().await? {
        Some(info) => info,
        None => {
            hall.bucket.ensure(hall.memory.seen()).await?;
            hall.bucket
                .info()
                .await?
                .ok_or_else(|| ReadError::new("it was deleted just after it was made"))?
        }
    };
    let made = start.created;
    let is_another = bucket_made.is_some_and(|before| before != made);
    let (now, before) =
        (incarnation::of(start.state.last_sequence.saturating_add(1)), hall.memory.era().incarnation);
    if now < before || (now == before && (is_another || has_lost_its_end(hall, &start).await?)) {
        // Made by hand, or put back from a copy: its revisions would be taken for old ones. What it has is journalled.
        hall.bucket.begin_behind(hall.memory.seen(), hall.clock.now()).await?;
        tell_of_doubt(hall).await;
        return Ok("the bucket was older than what is known, and has been emptied");
    }
    *bucket_made = Some(made);
    if is_another {
        tracing::warn!("the bucket of places is a new one: the line is restored before it goes on");
    }
    hall.memory.begin_replay(now);
    hall.hear_anew();
    let mut progress = Progress::new(&start);
    let mut entries = hall.bucket.watch().await?.ready_chunks(CHUNK);
    if start.state.messages == 0 {
        progress.finish(hall);
    }
    let mut check = tokio::time::interval(CHECK);
    check.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // News are taken in while the server is asked how far the bucket is: payments and admissions wait to see theirs.
    let mut asked: Fuse<BoxFuture<'_, Option<Answer>>> = Fuse::terminated();
    loop {
        tokio::select! {
            chunk = entries.next() => match chunk {
                Some(chunk) => {
                    progress.apply(hall, chunk.into_iter().filter_map(Result::ok));
                    if progress.is_in_doubt() && asked.is_terminated() {
                        asked = ask(hall).boxed().fuse();
                    }
                }
                None => return Ok("the watch ended"),
            },
            told = &mut asked => {
                if let Some(reason) = told.and_then(|told| progress.check(hall, made, told)) {
                    return Ok(reason);
                }
            }
            () = hall.doubt.notified(), if asked.is_terminated() => asked = ask(hall).boxed().fuse(),
            _ = check.tick() => {
                if hall.bus.connects() != connects {
                    return Ok("the connection was made anew");
                }
                // While nobody is there nothing can be missed; whoever comes first raises the doubt.
                if progress.complete && hall.is_quiet() {
                    progress.moved = Instant::now();
                } else if asked.is_terminated() {
                    asked = ask(hall).boxed().fuse();
                }
            }
        }
    }
}

/// How the bucket stood at some moment after the question; nothing if it is missing.
struct Answer {
    asked: Instant,
    info: Option<Info>,
}

/// How the bucket stands; nothing if the server does not say so in time.
async fn ask(hall: &Hall) -> Option<Answer> {
    if !hall.is_connected() {
        return None;
    }
    let asked = Instant::now();
    let info = tokio::time::timeout(PATIENCE, hall.bucket.info()).await.ok()?.ok()?;
    Some(Answer { asked, info })
}

/// Whether the bucket ends before what has been seen of it: a server came up without its last writes. A new leader among
/// several servers may be behind for a moment.
async fn has_lost_its_end(hall: &Hall, start: &Info) -> Result<bool, ReadError> {
    if start.state.last_sequence >= hall.memory.seen() {
        return Ok(false);
    }
    if hall.bus.replicas > 1 {
        tokio::time::sleep(PATIENCE).await;
    }
    let now = hall.bucket.info().await?;
    Ok(now.is_some_and(|now| now.created == start.created && now.state.last_sequence < hall.memory.seen()))
}

/// The bucket was missing and has been made: every instance looks at its watch.
pub async fn tell_of_doubt(hall: &Hall) {
    hall.doubt.notify_one();
    if let Err(error) = hall.bus.notify(subjects::QUEUE_BUCKET, bytes::Bytes::new()).await {
        tracing::debug!(%error, "other instances find the new bucket when somebody comes to them");
    }
}

/// Passes on what other instances say of the bucket. Runs until the process stops.
pub async fn listen(hall: &Hall) {
    while !hall.stop.is_cancelled() {
        match hall.bus.client.subscribe(subjects::QUEUE_BUCKET).await {
            Ok(mut said) => {
                while let Some(Some(_)) = hall.stop.run_until_cancelled(said.next()).await {
                    hall.doubt.notify_one();
                }
            }
            Err(error) => tracing::debug!(%error, "a new bucket is found by looking only"),
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// How far one watch has come.
///
/// A replay shows only the last write of each key. What is written while it goes on comes at its end, and until then the
/// key is missing, or stands as it was. So the replay is not complete with the last revision from before it began, but with one
/// that was the last a moment ago.
struct Progress {
    complete: bool,
    /// The last revision there was when this watch began.
    at_start: u64,
    /// The last revision there was when the server was last asked, and when that was.
    last: u64,
    asked: Instant,
    /// The last revision that this watch has told.
    told: u64,
    moved: Instant,
}

impl Progress {
    fn new(start: &Info) -> Self {
        let (last, now) = (start.state.last_sequence, Instant::now());
        Self { complete: false, at_start: last, last, asked: now, told: 0, moved: now }
    }

    fn apply(&mut self, hall: &Hall, entries: impl Iterator<Item = Entry>) {
        let mut is_all = false;
        let news: Vec<News> = entries
            .map(|entry| {
                is_all |= entry.delta == 0;
                self.told = self.told.max(entry.revision);
                read(hall, &entry)
            })
            .collect();
        if news.is_empty() {
            return;
        }
        self.moved = Instant::now();
        hall.memory.apply(&news);
        for (concert, user, entry) in hall.memory.wrongly_silent(&news) {
            hall.promises.come_back((concert, user), entry.place, hall.now());
        }
        if is_all || (self.told >= self.last && self.asked.elapsed() < LAG) {
            self.finish(hall);
        }
        hall.turn.notify_one();
    }

    /// Whether all has been told that was there when the server was last asked, which is too long ago.
    fn is_in_doubt(&self) -> bool {
        !self.complete && self.told >= self.last
    }

    fn finish(&mut self, hall: &Hall) {
        if !self.complete {
            self.complete = true;
            hall.memory.end_replay();
            hall.reread.notify_one();
            hall.turn.notify_one();
        }
    }

    /// Whether the watch has to begin anew, and why, as the bucket was told to stand just now.
    fn check(&mut self, hall: &Hall, made: DateTime<Utc>, answer: Answer) -> Option<&'static str> {
        let Some(info) = answer.info else {
            return Some("the bucket is missing");
        };
        let last = info.state.last_sequence;
        let incarnation = incarnation::of(last.saturating_add(1));
        if info.created != made || incarnation != hall.memory.era().incarnation {
            return Some("the bucket is another one");
        }
        (self.last, self.asked) = (last, answer.asked);
        if self.told >= last && self.asked.elapsed() < LAG {
            self.finish(hall);
        }
        let up_to_date = self.complete && last <= hall.memory.seen().max(self.at_start);
        if up_to_date {
            self.moved = Instant::now();
        }
        (self.moved.elapsed() > PATIENCE).then_some("news are missing")
    }
}

/// Whose place a key holds. Another spelling of the same ids is not one of ours: what is written about it would lie elsewhere.
fn owner(key: &str) -> Option<(ConcertId, UserId)> {
    let (concert, user) = key.split_once('.')?;
    let owner = (concert.parse().ok()?, user.parse().ok()?);
    (subjects::queue_place(owner.0, owner.1) == key).then_some(owner)
}

/// Reads a message of the bucket.
fn read(hall: &Hall, entry: &Entry) -> News {
    let revision = entry.revision;
    if entry.key == subjects::QUEUE_LEASE {
        let lease = LeaseRecord::read(&entry.value);
        let holder = lease.as_ref().and_then(|lease| lease.holder);
        // What this instance has written it may have decided anew since.
        if let Some(lease) = lease.filter(|_| holder != Some(hall.hearing.own)) {
            hall.brakes.learn(lease.brakes);
        }
        return News::Lease { revision, holder };
    }
    if entry.key == subjects::QUEUE_RESTORED {
        let restored = serde_json::from_slice::<RestoredRecord>(&entry.value).ok();
        return match restored {
            Some(restored) => News::Restored { revision, journalled: restored.journalled },
            None => News::Other { revision },
        };
    }
    let Some((concert, user)) = owner(&entry.key) else {
        return News::Other { revision };
    };
    let place = match entry.operation {
        Operation::Put => Record::read(&entry.value, revision),
        Operation::Delete | Operation::Purge => None,
    };
    match place {
        Some(entry) => News::Put { concert, user, entry },
        None => {
            if entry.operation == Operation::Put {
                // It counts as an end, so that the key is cleared away like the trace of a deletion.
                tracing::warn!(%concert, %user, revision, "a record of the bucket is refused: not a place, or out of range");
                metrics::counter!("boxoffice_queue_records_refused_total").increment(1);
            }
            let at = DateTime::from_timestamp(entry.created.timestamp(), 0).unwrap_or_default();
            News::Gone { concert, user, revision, at }
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
                for brake in record.brakes.values() {
                    prop_assert!(brake.is_plausible(), "{:?}", brake);
                }
                let written = serde_json::to_vec(&record).unwrap();
                let again = LeaseRecord::read(&written).unwrap();
                prop_assert_eq!((again.holder, again.brakes), (record.holder, record.brakes));
            }
        }

        #[test]
        fn restored_marks_are_read_or_refused(bytes in like(json!({ "journalled": 7, "places": 8 }))) {
            if let Ok(record) = serde_json::from_slice::<RestoredRecord>(&bytes) {
                let mut lines = Lines::new(PATIENCE);
                lines.apply(News::Restored { revision: 9, journalled: record.journalled }, None);
                lines.take_changes();
            }
        }
    }

    #[test]
    fn lease_with_a_bad_brake_keeps_its_holder() {
        let mut record = lease();
        assert_eq!(LeaseRecord::read(record.to_string().as_bytes()).unwrap().brakes.len(), 1);
        record["brakes"][Uuid::from_u128(2).to_string()]["rate"] = json!(1e300);
        let read = LeaseRecord::read(record.to_string().as_bytes()).unwrap();
        assert_eq!((read.holder, read.brakes.len()), (Some(Uuid::from_u128(1)), 0));
    }
}
