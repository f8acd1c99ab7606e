//! Measures for the brake: every instance tells how long its holds take, the leader asks the database what is overdue.
//!
//! Nothing is measured, asked or told while no line has a brake.

use std::time::Duration;

use futures::StreamExt;
use tokio::time::{MissedTickBehavior, timeout};

use super::super::hall::Hall;
use super::super::sale::{HoldReport, Limits, Range};
use crate::bus::subjects;
use crate::ids::ConcertId;

/// How long the database may take to say what is overdue.
const PATIENCE: Duration = Duration::from_secs(1);
/// The pause before listening again.
const PAUSE: Duration = Duration::from_secs(1);

/// Tells how long holds take here. Runs until the process stops.
pub async fn report(hall: &Hall, every: Duration) {
    let mut tick = tokio::time::interval(every);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while hall.stop.run_until_cancelled(tick.tick()).await.is_some() {
        let Some((p99_ms, count)) = hall.brakes.turn_span() else {
            continue;
        };
        if hall.is_connected() && hall.sales.any(|settings| Range::of(settings).is_some()) {
            let report = HoldReport { instance: hall.hearing.own, p99_ms, count };
            let report = serde_json::to_vec(&report).unwrap_or_default();
            // One that is lost is followed by the next.
            let _ = hall.bus.notify(subjects::QUEUE_HOLDS, report.into()).await;
        }
    }
}

/// Hears what the instances tell. Runs until the process stops.
pub async fn listen(hall: &Hall) {
    while !hall.stop.is_cancelled() {
        match hall.bus.client.subscribe(subjects::QUEUE_HOLDS).await {
            Ok(mut said) => {
                while let Some(Some(said)) = hall.stop.run_until_cancelled(said.next()).await {
                    if let Ok(report) = serde_json::from_slice(&said.payload) {
                        hall.brakes.hear(&report);
                    }
                }
            }
            Err(error) => tracing::debug!(%error, "how long holds take is not heard"),
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Decides how fast lines may move, while this instance leads. Runs until the process stops.
pub async fn decide(hall: &Hall, limits: &Limits) {
    let mut tick = tokio::time::interval(limits.every);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while hall.stop.run_until_cancelled(tick.tick()).await.is_some() {
        if hall.leads() {
            let (braked, somebody_waits) = braked(hall);
            let backlog = if somebody_waits { overdue(hall).await } else { Some(0) };
            hall.brakes.look(&braked, backlog, limits);
            hall.turn.notify_one();
        }
    }
}

/// The lines with a brake where anybody is, and whether somebody waits in one.
fn braked(hall: &Hall) -> (Vec<(ConcertId, Range)>, bool) {
    let lines = hall.memory.lines();
    let with_people = lines.queues().filter(|(_, queue)| queue.waiting() + queue.active() > 0);
    let braked = with_people.filter_map(|(concert, queue)| {
        let range = Range::of(&hall.sales.get(concert)?.settings)?;
        Some((concert, range, queue.waiting() > 0))
    });
    let braked: Vec<_> = braked.collect();
    let somebody_waits = braked.iter().any(|(.., waits)| *waits);
    (braked.into_iter().map(|(concert, range, _)| (concert, range)).collect(), somebody_waits)
}

/// How many sagas are overdue; nothing if the database does not say.
async fn overdue(hall: &Hall) -> Option<u32> {
    match timeout(PATIENCE, hall.sales.overdue_sagas()).await {
        Ok(Ok(overdue)) => u32::try_from(overdue).ok(),
        Ok(Err(error)) => {
            tracing::warn!(%error, "what is overdue cannot be counted; lines with a brake slow down");
            None
        }
        Err(_) => None,
    }
}
