//! Load feedback for the throttle: every instance reports how long its holds take, and the leader counts the overdue sagas.
//! Without a line that has a throttle, the tasks send and query nothing.

use std::time::Duration;

use futures::StreamExt;
use tokio::time::{MissedTickBehavior, timeout};

use super::super::room_state::RoomState;
use super::super::sale::{HoldReport, Limits, Range};
use crate::bus::subjects;
use crate::ids::ConcertId;

const QUERY_TIMEOUT: Duration = Duration::from_secs(1);
const RESUBSCRIBE_INTERVAL: Duration = Duration::from_secs(1);

/// Reports the duration of holds. Runs until the process stops.
pub async fn send(room: &RoomState, every: Duration) {
    let mut tick = tokio::time::interval(every);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while room.stop.run_until_cancelled(tick.tick()).await.is_some() {
        let Some((p99_ms, count)) = room.admission.throttles.rotate_window() else {
            continue;
        };
        if room.nats.is_connected() && room.sales.any(|settings| Range::of(settings).is_some()) {
            let report = HoldReport { instance: room.heartbeats.own, p99_ms, count };
            let report = serde_json::to_vec(&report).unwrap_or_default();
            // A lost report is followed by the next one.
            let _ = room.nats.bus.notify(subjects::QUEUE_HOLDS, report.into()).await;
        }
    }
}

/// Records the reports of all instances. Runs until the process stops.
pub async fn receive(room: &RoomState) {
    while !room.stop.is_cancelled() {
        match room.nats.bus.client.subscribe(subjects::QUEUE_HOLDS).await {
            Ok(mut reports) => {
                while let Some(Some(message)) = room.stop.run_until_cancelled(reports.next()).await {
                    if let Ok(report) = serde_json::from_slice(&message.payload) {
                        room.admission.throttles.record_report(&report);
                    }
                }
            }
            Err(error) => {
                tracing::debug!(%error, "subscription to hold reports failed; the throttle knows only the backlog");
            }
        }
        tokio::time::sleep(RESUBSCRIBE_INTERVAL).await;
    }
}

/// Decides the rates of all lines with a throttle, while this instance leads. Runs until the process stops.
pub async fn decide(room: &RoomState, limits: &Limits) {
    let mut tick = tokio::time::interval(limits.every);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while room.stop.run_until_cancelled(tick.tick()).await.is_some() {
        if room.leads() {
            let (throttled, is_waiting) = throttled(room);
            let backlog = if is_waiting { overdue(room).await } else { Some(0) };
            room.admission.throttles.decide(&throttled, backlog, limits);
            room.wakeups.admit_now.notify_one();
        }
    }
}

/// The lines with a throttle that have users, and whether a user waits in one of them.
fn throttled(room: &RoomState) -> (Vec<(ConcertId, Range)>, bool) {
    let lines = room.memory.lines();
    let with_users = lines.queues().filter(|(_, queue)| queue.waiting() + queue.active() > 0);
    let throttled = with_users.filter_map(|(concert, queue)| {
        let range = Range::of(&room.sales.get(concert)?.settings)?;
        Some((concert, range, queue.waiting() > 0))
    });
    let throttled: Vec<_> = throttled.collect();
    let is_waiting = throttled.iter().any(|(.., waits)| *waits);
    (throttled.into_iter().map(|(concert, range, _)| (concert, range)).collect(), is_waiting)
}

/// The number of overdue sagas; `None` if the database does not answer.
async fn overdue(room: &RoomState) -> Option<u32> {
    match timeout(QUERY_TIMEOUT, room.sales.overdue_sagas()).await {
        Ok(Ok(overdue)) => u32::try_from(overdue).ok(),
        Ok(Err(error)) => {
            tracing::warn!(%error, "counting overdue sagas failed; lines with a throttle slow down");
            None
        }
        Err(_) => None,
    }
}
