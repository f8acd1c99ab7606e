//! The tasks of the scheduler role: admission while this process holds the lease, and expiry on the minute.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use chrono::TimeDelta;
use futures::StreamExt;
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_cron_scheduler::JobSchedulerError;

use super::super::journal::DeleteMarker;
use super::super::line::SCAN_CHUNK;
use super::super::room_state::{RoomError, RoomState};
use super::expiry::delete_expired;
use super::leader::Leader;
use super::lease::{LeaseLost, acquire};
use super::restoration::restore;
use crate::background::Tasks;
use crate::background::jobs::{Job, Jobs};
use crate::bus::subjects;
use crate::ids::ConcertId;
use crate::store::queue_journal;

const EXPIRE: Job = Job { name: "tidy_queues", schedule: "0 * * * * *", timeout: Duration::from_secs(300) };
/// Delete markers removed in one round.
const MAX_CLEARED: usize = SCAN_CHUNK;
const CLEAR_INTERVAL: Duration = Duration::from_secs(1);
const MAX_CONCURRENT_CLEARS: usize = 32;
/// Rounds on the minute for markers whose process stopped before it removed them.
const OLD_MARKER_ROUNDS: usize = 10;
/// How much older than usual those markers are.
const OLD_MARKER_AGE: TimeDelta = TimeDelta::minutes(2);
/// How long the lease is kept while no user is in any line.
const QUIET_LEASE: Duration = Duration::from_secs(5);
const JOURNAL_INTERVAL: Duration = Duration::from_millis(100);
/// The pause after Postgres did not answer.
const JOURNAL_RETRY: Duration = Duration::from_secs(1);
/// How long a leader may take for the last write of the journal at shutdown.
const SHUTDOWN_GRACE: Duration = Duration::from_millis(500);
/// How long an operator's request may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(3);

/// An operator's request to admit the next `count` users now.
#[derive(Debug, Serialize, Deserialize)]
struct AdmitRequest {
    concert: ConcertId,
    count: u32,
}

#[derive(Debug, Serialize, Deserialize)]
struct AdmitReply {
    admitted: u32,
}

/// Takes the lease whenever it is free, and leads while it holds the lease. Runs until the process stops.
pub async fn admit(room: &RoomState) {
    let holder = room.heartbeats.own;
    loop {
        let lease = tokio::select! {
            () = room.stop.cancelled() => return,
            lease = acquire(room, holder) => lease,
            never = decline(room) => match never {},
        };
        tracing::info!(revision = lease.revision, "this instance holds the lease and admits");
        let mut leader = Leader::new(lease);
        room.admission.journal.begin(&room.memory).await;
        let led = tokio::select! {
            led = room.stop.run_until_cancelled(lead(room, &mut leader)) => led,
            never = keep_journal(room) => match never {},
        };
        if !matches!(led, Some(Err(_))) {
            // Leaves little to write for the next leader, which writes the rest if this fails.
            let _ =
                tokio::time::timeout(SHUTDOWN_GRACE, room.admission.journal.write(&room.memory, room.now()))
                    .await;
        }
        room.admission.journal.end(&room.memory);
        match led {
            Some(Err(error)) => tracing::warn!(%error, "this instance lost the lease and no longer admits"),
            Some(Ok(())) => leader.lease.give_back(room).await,
            None => return leader.lease.give_back(room).await,
        }
    }
}

/// Writes changes to the journal while this instance leads. Without changes it sends nothing to Postgres.
async fn keep_journal(room: &RoomState) -> Infallible {
    let mut tick = tokio::time::interval(JOURNAL_INTERVAL);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut is_started = false;
    loop {
        tick.tick().await;
        if is_started && room.memory.changes() + room.admission.journal.lag() == 0 {
            continue;
        }
        match room.admission.journal.write(&room.memory, room.now()).await {
            Ok(_) => is_started = true,
            Err(error) => {
                tracing::warn!(%error, "writing the journal of the lines failed; admission continues and the write is retried");
                tokio::time::sleep(JOURNAL_RETRY).await;
            }
        }
    }
}

/// Answers operators while no instance leads because no user is in any line: none can be admitted.
async fn decline(room: &RoomState) -> Infallible {
    loop {
        if let Ok(mut requests) = room.nats.bus.client.subscribe(subjects::QUEUE_ADMIT).await {
            while let Some(request) = requests.next().await {
                if let Some(reply) = request.reply.filter(|_| room.memory.is_quiet()) {
                    let answer = serde_json::to_vec(&AdmitReply { admitted: 0 }).unwrap_or_default();
                    // The operator may have given up.
                    let _ = room.nats.bus.notify(reply, answer.into()).await;
                }
            }
        }
        tokio::time::sleep(REQUEST_TIMEOUT).await;
    }
}

/// Leads until the lease is lost, or no user has been in a line for a while.
async fn lead(room: &RoomState, leader: &mut Leader) -> Result<(), LeaseLost> {
    let requests = room.nats.bus.client.subscribe(subjects::QUEUE_ADMIT).await;
    let mut requests = requests.map_err(|error| LeaseLost(error.to_string()))?;
    room.mark_heartbeat_gap();
    let mut busy = Instant::now();
    loop {
        restore(room, leader).await?;
        leader.prepare(room).await?;
        leader.round(room).await?;
        leader.mark_silent(room).await?;
        if !room.memory.is_quiet() {
            busy = Instant::now();
        } else if busy.elapsed() >= QUIET_LEASE {
            return Ok(());
        }
        let next = leader.next_round(room);
        tokio::select! {
            Some(request) = requests.next() => admit_requested(room, leader, &request).await?,
            () = room.wakeups.admit_now.notified() => (),
            () = tokio::time::sleep_until(next) => (),
        }
    }
}

async fn admit_requested(
    room: &RoomState,
    leader: &mut Leader,
    request: &async_nats::Message,
) -> Result<(), LeaseLost> {
    let Ok(AdmitRequest { concert, count }) = serde_json::from_slice(&request.payload) else {
        return Ok(());
    };
    let mut left = usize::try_from(count).unwrap_or(usize::MAX);
    let mut admitted = 0;
    while left > 0 {
        leader.prepare(room).await?;
        let made = leader.admit(room, concert, left).await?;
        admitted += made;
        left -= made as usize;
        if made == 0 {
            break;
        }
    }
    tracing::info!(%concert, count, admitted, "users were admitted at an operator's request");
    if let Some(reply) = request.reply.clone() {
        let answer = serde_json::to_vec(&AdmitReply { admitted }).unwrap_or_default();
        // The operator may have given up; the admissions stay.
        let _ = room.nats.bus.notify(reply, answer.into()).await;
    }
    Ok(())
}

/// Asks the leader to admit the next `count` users now.
pub async fn ask(room: &RoomState, concert: ConcertId, count: u32) -> Result<u32, RoomError> {
    if !room.nats.is_connected() {
        return Err(RoomError::Unavailable);
    }
    let payload = serde_json::to_vec(&AdmitRequest { concert, count }).unwrap_or_default();
    let request = room.nats.bus.client.request(subjects::QUEUE_ADMIT, payload.into());
    let reply = match tokio::time::timeout(REQUEST_TIMEOUT, request).await {
        Ok(Ok(reply)) => reply,
        Ok(Err(_)) | Err(_) => return Err(RoomError::Unavailable),
    };
    let answer: AdmitReply = serde_json::from_slice(&reply.payload).map_err(|_| RoomError::Unavailable)?;
    Ok(answer.admitted)
}

/// Deletes expired places on the minute, in every scheduler process, in case the leader has missed some.
pub async fn expire_on_the_minute(room: &Arc<RoomState>, tasks: &Tasks) {
    match start_expiry(room, tasks).await {
        Ok(()) => room.stop.cancelled().await,
        Err(error) => {
            tracing::error!(%error, "starting the expiry job failed; expired places are deleted by the leader only")
        }
    }
}

async fn start_expiry(room: &Arc<RoomState>, tasks: &Tasks) -> Result<(), JobSchedulerError> {
    let jobs = Jobs::new(&room.stop).await?;
    let run = |room: Arc<RoomState>| async move {
        expire(&room).await;
        Ok::<(), Infallible>(())
    };
    jobs.add(EXPIRE, room, run).await?;
    jobs.start(tasks).await
}

/// Removes delete markers that are in the journal and that every watch has seen. Runs until the process stops.
pub async fn clear_markers(room: &RoomState) {
    let mut tick = tokio::time::interval(CLEAR_INTERVAL);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while room.stop.run_until_cancelled(tick.tick()).await.is_some() {
        if room.nats.is_connected() {
            clear(room, room.admission.journal.take_markers(room.sessions.marker_ttl(), MAX_CLEARED)).await;
        }
    }
}

/// Removes markers of a process that journalled the ends and stopped before it removed the markers.
async fn clear_old_markers(room: &RoomState) -> usize {
    let Ok(journalled) = queue_journal::position(room.admission.journal.pool()).await else {
        return 0;
    };
    let life = TimeDelta::from_std(room.sessions.marker_ttl()).unwrap_or(OLD_MARKER_AGE);
    let before = room.clock.now() - life - OLD_MARKER_AGE;
    let mut cleared = 0;
    for _ in 0..OLD_MARKER_ROUNDS {
        let mut markers = room.memory.old_markers(before, MAX_CLEARED).await;
        markers.retain(|(.., marker)| *marker <= journalled.cast_unsigned());
        markers.truncate(MAX_CLEARED);
        if markers.is_empty() {
            break;
        }
        cleared += clear(room, markers).await;
    }
    cleared
}

async fn clear(room: &RoomState, markers: Vec<DeleteMarker>) -> usize {
    let clear_one = |(concert, user, marker): DeleteMarker| async move {
        match room.nats.bucket.clear(&subjects::queue_place(concert, user), marker).await {
            Ok(()) => Some((concert, user, marker)),
            Err(error) => {
                tracing::debug!(%error, "removing a delete marker failed; it is removed on the minute");
                None
            }
        }
    };
    let cleared = futures::stream::iter(markers).map(clear_one).buffer_unordered(MAX_CONCURRENT_CLEARS);
    let cleared: Vec<DeleteMarker> = cleared.filter_map(|trace| async move { trace }).collect().await;
    room.memory.note_cleared(&cleared);
    cleared.len()
}

/// Deletes expired places, old delete markers and old tombstones.
async fn expire(room: &RoomState) {
    if !room.memory.is_complete() {
        return;
    }
    let mut ended = 0;
    loop {
        let some = delete_expired(room).await;
        ended += some;
        if some == 0 {
            break;
        }
    }
    let cleared = clear_old_markers(room).await;
    let before = room.clock.now() - room.sessions.tombstone_ttl();
    room.memory.purge_tombstones(before).await;
    room.admission.journal.purge_ends(before).await;
    tracing::debug!(ended, cleared, "expired places were deleted");
}
