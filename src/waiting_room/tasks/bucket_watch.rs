//! Follows the bucket of places: its content, then every change, into memory, as long as the process runs.
//!
//! The watch of the client library recovers from most gaps by itself. These cases it cannot see; [`Restart`] names each
//! of them, and the watch then starts again:
//!
//! - The connection was lost. A delete marker may have been removed before the reconnect.
//! - The bucket is missing, or was deleted and made again.
//! - The watch lags behind the bucket and shows nothing.
//! - The bucket ends before what this instance has seen, because a server lost its last writes, or because an operator
//!   restored an old copy. It is emptied, its revisions continue after the known ones, and the line is restored from the
//!   journal.
//!
//! From a repeated watch, memory takes only changes that are newer than it knows, and drops the places that the watch no
//! longer shows.

use std::fmt;
use std::time::Duration;

use async_nats::jetstream::kv::Entry;
use async_nats::jetstream::stream::Info;
use chrono::{DateTime, Utc};
use futures::future::{BoxFuture, Fuse, FusedFuture};
use futures::{FutureExt, StreamExt};
use tokio::time::{Instant, MissedTickBehavior};

use super::super::line::BucketChange;
use super::super::place::ReadError;
use super::super::room_state::RoomState;
use super::bucket_records::read;
use crate::bus::{incarnation, subjects};

/// Most messages applied under one lock.
const MAX_CHUNK: usize = 512;
const CHECK_INTERVAL: Duration = Duration::from_millis(500);
/// A replay is complete once it has shown everything that was in the bucket at most this long ago.
const REPLAY_LAG: Duration = Duration::from_millis(500);
/// How long the watch may lag, and how long the server may take to describe the bucket.
const WATCH_TIMEOUT: Duration = Duration::from_secs(3);
/// The pause before the watch starts again.
const RESTART_INTERVAL: Duration = Duration::from_millis(100);

/// Why the watch starts again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Restart {
    /// The client library ended the watch.
    WatchEnded,
    Reconnected,
    BucketMissing,
    /// The bucket was deleted and made again, or its revisions continue in another incarnation.
    BucketReplaced,
    /// The bucket was older than memory and has been emptied.
    BucketEmptied,
    /// The bucket has changes that the watch does not show.
    ChangesMissing,
}

impl fmt::Display for Restart {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::WatchEnded => "the watch ended",
            Self::Reconnected => "the connection was lost and made again",
            Self::BucketMissing => "the bucket is missing",
            Self::BucketReplaced => "the bucket was replaced",
            Self::BucketEmptied => "the bucket was older than memory and has been emptied",
            Self::ChangesMissing => "the watch does not show the latest changes",
        })
    }
}

/// Runs until the process stops.
pub async fn run(room: &RoomState) {
    let mut bucket_created = None;
    loop {
        let ended = tokio::select! {
            () = room.stop.cancelled() => return,
            ended = follow(room, &mut bucket_created) => ended,
        };
        match ended {
            Ok(reason) => tracing::info!(%reason, "the watch of the places starts again"),
            Err(error) => tracing::warn!(%error, "the watch of the places failed; it starts again"),
        }
        tokio::time::sleep(RESTART_INTERVAL).await;
    }
}

/// Follows one watch until it has to start again.
async fn follow(room: &RoomState, bucket_created: &mut Option<DateTime<Utc>>) -> Result<Restart, ReadError> {
    let connects = room.nats.bus.connects();
    let start = match room.nats.bucket.info().await? {
        Some(info) => info,
        None => {
            room.nats.bucket.ensure(room.memory.seen()).await?;
            room.nats
                .bucket
                .info()
                .await?
                .ok_or_else(|| ReadError::new("it was deleted just after it was made"))?
        }
    };
    let created = start.created;
    let is_replaced = bucket_created.is_some_and(|before| before != created);
    let now = incarnation::of(start.state.last_sequence.saturating_add(1));
    let before = room.memory.epoch().incarnation;
    if now < before || (now == before && (is_replaced || has_lost_writes(room, &start).await?)) {
        // Memory would take its new revisions for old ones. Its places are in the journal.
        room.nats.bucket.reset_after(room.memory.seen(), room.clock.now()).await?;
        announce_new_bucket(room).await;
        return Ok(Restart::BucketEmptied);
    }
    *bucket_created = Some(created);
    if is_replaced {
        tracing::warn!("the bucket of places is a new one; the line is restored before admission continues");
    }
    room.memory.begin_replay(now);
    room.mark_heartbeat_gap();
    let mut progress = Progress::new(&start);
    let mut entries = room.nats.bucket.watch().await?.ready_chunks(MAX_CHUNK);
    if start.state.messages == 0 {
        progress.finish(room);
    }
    let mut check = tokio::time::interval(CHECK_INTERVAL);
    check.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // Changes are applied while the server is asked for the state of the bucket, because payments and admissions wait for
    // their own changes.
    let mut info: Fuse<BoxFuture<'_, Option<BucketInfo>>> = Fuse::terminated();
    loop {
        tokio::select! {
            chunk = entries.next() => match chunk {
                Some(chunk) => {
                    progress.apply(room, chunk.into_iter().filter_map(Result::ok));
                    if progress.may_be_complete() && info.is_terminated() {
                        info = ask(room).boxed().fuse();
                    }
                }
                None => return Ok(Restart::WatchEnded),
            },
            answer = &mut info => {
                if let Some(reason) = answer.and_then(|answer| progress.check(room, created, answer)) {
                    return Ok(reason);
                }
            }
            () = room.wakeups.recheck_watch.notified(), if info.is_terminated() => info = ask(room).boxed().fuse(),
            _ = check.tick() => {
                if room.nats.bus.connects() != connects {
                    return Ok(Restart::Reconnected);
                }
                // An empty room misses nothing. The first user to come triggers the check.
                if progress.complete && room.memory.is_quiet() {
                    progress.moved = Instant::now();
                } else if info.is_terminated() {
                    info = ask(room).boxed().fuse();
                }
            }
        }
    }
}

/// The state of the bucket at some moment after `asked`; `info` is `None` if the bucket is missing.
struct BucketInfo {
    asked: Instant,
    info: Option<Info>,
}

/// `None` if the server does not answer in time.
async fn ask(room: &RoomState) -> Option<BucketInfo> {
    if !room.nats.is_connected() {
        return None;
    }
    let asked = Instant::now();
    let info = tokio::time::timeout(WATCH_TIMEOUT, room.nats.bucket.info()).await.ok()?.ok()?;
    Some(BucketInfo { asked, info })
}

/// Whether the bucket ends before what memory has seen, because a server restarted without its last writes. In a cluster a
/// new leader may lag for a moment, so the bucket is read twice.
async fn has_lost_writes(room: &RoomState, start: &Info) -> Result<bool, ReadError> {
    if start.state.last_sequence >= room.memory.seen() {
        return Ok(false);
    }
    if room.nats.bus.replicas > 1 {
        tokio::time::sleep(WATCH_TIMEOUT).await;
    }
    let now = room.nats.bucket.info().await?;
    Ok(now.is_some_and(|now| now.created == start.created && now.state.last_sequence < room.memory.seen()))
}

/// The bucket was missing and has been made again: makes every instance check its watch.
pub async fn announce_new_bucket(room: &RoomState) {
    room.wakeups.recheck_watch.notify_one();
    room.nats.wake_others(subjects::QUEUE_BUCKET).await;
}

/// The progress of one watch.
///
/// A replay shows only the last write of each key. A key that is written during the replay appears at its end, and until
/// then it is missing or outdated. So the replay is complete only once it has shown a revision that was the last one a
/// moment ago, and not with the last revision from before it started.
struct Progress {
    complete: bool,
    /// The last revision of the bucket when this watch started.
    at_start: u64,
    /// The last revision of the bucket when the server was last asked, and the time of that.
    last: u64,
    asked: Instant,
    /// The last revision that this watch has shown.
    shown: u64,
    moved: Instant,
}

impl Progress {
    fn new(start: &Info) -> Self {
        let (last, now) = (start.state.last_sequence, Instant::now());
        Self { complete: false, at_start: last, last, asked: now, shown: 0, moved: now }
    }

    fn apply(&mut self, room: &RoomState, entries: impl Iterator<Item = Entry>) {
        let mut is_all = false;
        let changes: Vec<BucketChange> = entries
            .map(|entry| {
                is_all |= entry.delta == 0;
                self.shown = self.shown.max(entry.revision);
                read(room, &entry)
            })
            .collect();
        if changes.is_empty() {
            return;
        }
        self.moved = Instant::now();
        room.memory.apply(&changes);
        for (concert, user, entry) in room.memory.wrongly_silent(&changes) {
            room.gate.pending.end_silence((concert, user), entry.place, room.now());
        }
        if is_all || (self.shown >= self.last && self.asked.elapsed() < REPLAY_LAG) {
            self.finish(room);
        }
        room.wakeups.admit_now.notify_one();
    }

    /// Whether everything was shown that the bucket had when the server was last asked. That may be too long ago.
    fn may_be_complete(&self) -> bool {
        !self.complete && self.shown >= self.last
    }

    fn finish(&mut self, room: &RoomState) {
        if !self.complete {
            self.complete = true;
            room.memory.end_replay();
            room.wakeups.reload_settings.notify_one();
            room.wakeups.admit_now.notify_one();
        }
    }

    /// Compares the watch with the state of the bucket. Returns why the watch has to start again, if it has to.
    fn check(&mut self, room: &RoomState, created: DateTime<Utc>, answer: BucketInfo) -> Option<Restart> {
        let Some(info) = answer.info else {
            return Some(Restart::BucketMissing);
        };
        let last = info.state.last_sequence;
        let incarnation = incarnation::of(last.saturating_add(1));
        if info.created != created || incarnation != room.memory.epoch().incarnation {
            return Some(Restart::BucketReplaced);
        }
        (self.last, self.asked) = (last, answer.asked);
        if self.shown >= last && self.asked.elapsed() < REPLAY_LAG {
            self.finish(room);
        }
        let up_to_date = self.complete && last <= room.memory.seen().max(self.at_start);
        if up_to_date {
            self.moved = Instant::now();
        }
        (self.moved.elapsed() > WATCH_TIMEOUT).then_some(Restart::ChangesMissing)
    }
}
