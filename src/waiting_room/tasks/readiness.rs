//! Decides when this instance knows the lines and can get requests: the bucket is restored, or there is nothing to restore.
//! Also reads the ends of places of earlier buckets from the journal, after each complete replay.

use std::time::Duration;

use tokio::task::yield_now;

use super::super::line::SCAN_CHUNK;
use super::super::room_state::RoomState;
use crate::bus::incarnation;
use crate::store::queue_journal;

/// The pause after Postgres did not answer.
const RETRY_INTERVAL: Duration = Duration::from_millis(300);
const CHECK_INTERVAL: Duration = Duration::from_millis(250);

/// A complete replay: the incarnation of the bucket, and the number of the replay.
type Replay = (u64, u32);

fn current_replay(room: &RoomState) -> Replay {
    let lines = room.memory.lines();
    (lines.epoch().incarnation, lines.replays())
}

/// Runs until the process stops.
pub async fn run(room: &RoomState) {
    let mut ends_read_for = None;
    let mut seen = room.memory.subscribe();
    while !room.stop.is_cancelled() {
        if let Err(error) = check(room, &mut ends_read_for).await {
            tracing::warn!(%error, "reading the journal of the lines failed; this instance is not ready yet");
            tokio::time::sleep(RETRY_INTERVAL).await;
        }
        let was_complete = room.memory.is_complete();
        let is_due = |_: &u64| {
            let is_restored = room.memory.epoch().is_restored();
            let is_new = !was_complete || (is_restored && ends_read_for != Some(current_replay(room)));
            room.memory.is_complete() && is_new
        };
        let _ = tokio::time::timeout(CHECK_INTERVAL, seen.wait_for(is_due)).await;
    }
}

/// `ends_read_for` is the replay after which the ends were read last.
async fn check(room: &RoomState, ends_read_for: &mut Option<Replay>) -> Result<(), sqlx::Error> {
    let (epoch, replay) = (room.memory.epoch(), current_replay(room));
    if !room.memory.is_complete() || *ends_read_for == Some(replay) {
        return Ok(());
    }
    let pool = room.admission.journal.pool();
    let first = incarnation::first_revision(epoch.incarnation).cast_signed();
    if epoch.is_restored() {
        let now = room.clock.now();
        // Of the present bucket only ends whose tokens may still say that they are active.
        let [earlier, present] =
            [room.sessions.tombstone_ttl(), room.sessions.longest()].map(|age| now - age);
        let ends = queue_journal::ends(pool, first, earlier, present).await?;
        for some in ends.chunks(SCAN_CHUNK) {
            room.memory.apply_journal_ends(some);
            yield_now().await;
        }
        *ends_read_for = Some(replay);
    } else if room.memory.is_settled() || queue_journal::is_anybody_left(pool, first).await? {
        return Ok(());
    }
    room.memory.settle();
    room.wakeups.sales_changed.notify_one();
    Ok(())
}
