//! Keeps the settings and the stock of all sales in memory up to date: when an instance announces a change, every second
//! while a line is in use, and more rarely while none is. A join reads them itself if they are too old.
//!
//! After each reading the task also reports lines that stand still although users could be admitted. Every instance does
//! so, so that the report comes even if no scheduler runs.

use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior};

use super::super::queue_token::Phase;
use super::super::room_state::RoomState;
use super::super::views::overview;
use crate::bus::subjects;
use crate::ids::ConcertId;
use crate::store::queue::QueueSettings;

const RELOAD_INTERVAL: Duration = Duration::from_millis(900);
/// The interval while no user is in line and none has asked lately.
const QUIET_RELOAD_INTERVAL: Duration = Duration::from_secs(5);
/// A line with an admission in the last seconds does not stand still.
const STALL_WINDOW_SECONDS: u64 = 2;

/// Runs until the process stops.
pub async fn run(room: &RoomState) {
    let mut tick = tokio::time::interval(RELOAD_INTERVAL);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut read = None;
    loop {
        tokio::select! {
            () = room.stop.cancelled() => return,
            () = room.wakeups.reload_settings.notified() => (),
            _ = tick.tick() => {
                let is_open = |concert| room.sales.get(concert).is_some_and(|sale| sale.phase == Phase::Open);
                room.memory.pass_time(is_open);
                let is_fresh = read.is_some_and(|read: Instant| read.elapsed() < QUIET_RELOAD_INTERVAL);
                if is_fresh && room.memory.is_quiet() && !room.sales.are_of_interest() {
                    continue;
                }
            }
        }
        let is_complete = room.memory.is_complete();
        let with_users = room.memory.concerts();
        match room.sales.refresh(with_users).await {
            Ok(()) => {
                read = Some(Instant::now());
                if is_complete {
                    room.sales.mark_read();
                }
                room.wakeups.sales_changed.notify_one();
                room.wakeups.admit_now.notify_one();
            }
            Err(error) => {
                tracing::warn!(%error, "reading queue settings failed; the last known settings stay in force");
            }
        }
        report_stalls(room);
        overview::measure(room);
    }
}

/// Applies changed settings here, and announces them to the other instances.
pub async fn announce(room: &RoomState, settings: QueueSettings) {
    room.sales.apply_settings(vec![settings]);
    room.wakeups.sales_changed.notify_one();
    room.wakeups.admit_now.notify_one();
    room.nats.wake_others(subjects::QUEUE_SETTINGS).await;
}

/// Logs each line once that has stood still for too long.
fn report_stalls(room: &RoomState) {
    let lines = standing_still(room);
    for concert in room.admission.stalls.update(&lines, room.clock.now()) {
        tracing::error!(%concert, "users wait and places are free, but no user is admitted; is a scheduler running?");
    }
}

/// The lines, with their rates, in which users could be admitted and none was lately.
fn standing_still(room: &RoomState) -> Vec<(ConcertId, u32)> {
    let (lines, now, since_start) = (room.memory.lines(), room.clock.now(), room.memory.since_start());
    let mut found = Vec::new();
    for (concert, queue) in lines.queues().filter(|(_, queue)| queue.waiting() > queue.silent()) {
        let Some(sale) = room.sales.get(concert).filter(|sale| sale.phase == Phase::Open) else {
            continue;
        };
        let rate = room.admission.throttles.rate(&sale.settings);
        let cap = usize::try_from(sale.settings.max_active).unwrap_or(0);
        let is_drawn = sale.lottery.is_some_and(|lottery| lottery.is_drawn(now));
        let has_moved = queue.counts.admitted.over(since_start, STALL_WINDOW_SECONDS) > 0;
        if rate > 0 && queue.active() < cap && is_drawn && !has_moved {
            found.push((concert, rate));
        }
    }
    found
}
