//! Deletes places: those that have expired, and the lines of sales that are over.
//!
//! When every seat is sold or the last date has passed, the users in line see it at once by the phase of the sale. Their
//! places end a little later, from the back of the line, so that a cancelled booking meanwhile still finds the users in
//! front. Active sessions stay.

use std::time::Duration;

use chrono::{DateTime, Utc};
use futures::StreamExt;

use super::super::place::{Condition, Entry, PlaceStatus};
use super::super::room_state::RoomState;
use crate::bus::{incarnation, subjects};
use crate::ids::{ConcertId, UserId};
use crate::telemetry::CONCERT_LABELS;

/// How long a sale must be over before places end.
const CLOSE_DELAY: Duration = Duration::from_secs(3);
/// Limit of the places that end in one round, so that the lease is renewed in time.
const MAX_CLOSED_PER_ROUND: usize = 256;
/// Limit of the expired places per line that are deleted in one round, for the same reason.
const MAX_EXPIRED_PER_LINE: usize = 1_024;
const MAX_CONCURRENT_CLOSES: usize = 64;
const MAX_CONCURRENT_EXPIRIES: usize = 128;
/// How long the watch may take to show a write.
const WATCH_TIMEOUT: Duration = Duration::from_millis(1_500);

/// Ends places in lines whose sale is over. Returns how many, and whether there are more.
pub async fn close_lines(room: &RoomState) -> (u32, bool) {
    let chosen = choose(room);
    let is_full = chosen.len() == MAX_CLOSED_PER_ROUND;
    if chosen.is_empty() {
        return (0, false);
    }
    let deleted: Vec<u64> = futures::stream::iter(chosen)
        .map(|(concert, user, entry)| async move {
            let key = subjects::queue_place(concert, user);
            room.nats.bucket.delete(&key, Condition::Revision(entry.revision), true).await
        })
        .buffer_unordered(MAX_CONCURRENT_CLOSES)
        .filter_map(|deleted| async { deleted.ok() })
        .collect()
        .await;
    room.memory.wait_for(deleted.iter().copied().max().unwrap_or(0), WATCH_TIMEOUT).await;
    (u32::try_from(deleted.len()).unwrap_or(u32::MAX), is_full && !deleted.is_empty())
}

/// The last places of lines whose sale is over.
fn choose(room: &RoomState) -> Vec<(ConcertId, UserId, Entry)> {
    let lines = room.memory.lines();
    lines
        .queues()
        .filter(|(concert, queue)| {
            queue.waiting() > 0 && room.sales.over_for(*concert).is_some_and(|over| over >= CLOSE_DELAY)
        })
        .flat_map(|(concert, queue)| queue.back().map(move |(user, entry)| (concert, user, entry)))
        .take(MAX_CLOSED_PER_ROUND)
        .collect()
}

/// Deletes expired places, each by compare-and-set. Every instance may do so. Returns how many were deleted.
pub async fn delete_expired(room: &RoomState) -> u32 {
    let now = room.clock.now();
    let overdue: Vec<(ConcertId, UserId, Entry)> = {
        let lines = room.memory.lines();
        let present = lines.epoch().incarnation;
        lines
            .queues()
            .flat_map(|(concert, queue)| {
                queue
                    .overdue(now, MAX_EXPIRED_PER_LINE)
                    .into_iter()
                    .map(move |(user, entry)| (concert, user, entry))
            })
            // A place that is not restored yet has no key in the present bucket.
            .filter(|(.., entry)| incarnation::of(entry.revision) == present)
            .filter(|(concert, user, entry)| {
                // This instance may have extended the session and not written it yet.
                let claims = entry.claims(*user, *concert);
                let extended = room
                    .gate
                    .pending
                    .session_end(&claims, claims.activated_at)
                    .is_some_and(|until| until > now);
                !extended && !room.gate.pending.is_silence_ending((*concert, *user), entry.place)
            })
            .collect()
    };
    if overdue.is_empty() || !room.nats.is_connected() {
        return 0;
    }
    let deleted: Vec<u64> = futures::stream::iter(overdue)
        .map(|(concert, user, entry)| async move {
            let key = subjects::queue_place(concert, user);
            let deleted = room
                .nats
                .bucket
                .delete(&key, Condition::Revision(entry.revision), entry.status.is_in_line())
                .await;
            if deleted.is_ok() {
                count_expiry(concert, &entry, now);
            }
            deleted
        })
        .buffer_unordered(MAX_CONCURRENT_EXPIRIES)
        .filter_map(|deleted| async { deleted.ok() })
        .collect()
        .await;
    room.memory.wait_for(deleted.iter().copied().max().unwrap_or(0), WATCH_TIMEOUT).await;
    u32::try_from(deleted.len()).unwrap_or(u32::MAX)
}

/// Counts why an expired place has ended.
fn count_expiry(concert: ConcertId, entry: &Entry, now: DateTime<Utc>) {
    let name = match entry.status {
        PlaceStatus::Active { used: false, .. } if entry.is_over(now) => "boxoffice_queue_no_shows_total",
        PlaceStatus::Silent { .. } if entry.is_over(now) => "boxoffice_queue_lost_total",
        _ => return,
    };
    metrics::counter!(name, "concert" => CONCERT_LABELS.of(concert)).increment(1);
}
