//! Instances report to each other which users they have heard of, so that the leader knows who is silent.
//!
//! The reports use core NATS. A lost one is harmless, because every user is reported at least three times before a silence
//! counts. While NATS is away an instance keeps its heartbeats and sends them afterwards. It sends one share of the users at
//! a time, which spreads the work evenly.

use std::time::Duration;

use futures::StreamExt;
use tokio::time::{MissedTickBehavior, interval, sleep};

use super::super::heartbeats::{Report, SHARES};
use super::super::room_state::RoomState;
use crate::bus::subjects;

/// How often each share is sent; more often if the shortest silence requires it.
const REPORT_INTERVAL: Duration = Duration::from_secs(5);
/// Reports within the shortest silence.
const REPORTS_PER_SILENCE: u32 = 4;
/// Users recorded under one lock.
const MAX_CHUNK: usize = 1_024;
const RESUBSCRIBE_INTERVAL: Duration = Duration::from_millis(100);

/// Sends reports. Runs until the process stops.
pub async fn send(room: &RoomState) {
    let every = REPORT_INTERVAL.min(room.sessions.silence / REPORTS_PER_SILENCE).max(RESUBSCRIBE_INTERVAL);
    let mut tick = interval(every / SHARES as u32);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut shares = (0..SHARES).cycle();
    while room.stop.run_until_cancelled(tick.tick()).await.is_some() {
        let share = shares.next().filter(|_| room.nats.is_connected());
        for report in share.into_iter().flat_map(|share| room.heartbeats.take(share)) {
            if let Err(error) = room.nats.bus.notify(subjects::QUEUE_HEARD, report).await {
                tracing::debug!(%error, "sending a heartbeat report failed; its users send further heartbeats");
            }
        }
    }
}

/// Records the reports of other instances, for an instance that may lead. Runs until the process stops.
pub async fn receive(room: &RoomState) {
    while !room.stop.is_cancelled() {
        match room.nats.bus.client.subscribe(subjects::QUEUE_HEARD).await {
            Ok(mut reports) => {
                room.mark_heartbeat_gap();
                while let Some(Some(message)) = room.stop.run_until_cancelled(reports.next()).await {
                    if let Some(report) = Report::read(&message.payload) {
                        record(room, &report).await;
                    }
                }
            }
            Err(error) => {
                tracing::debug!(%error, "heartbeat subscription failed; this instance knows only its own heartbeats");
            }
        }
        sleep(RESUBSCRIBE_INTERVAL).await;
    }
}

async fn record(room: &RoomState, report: &Report) {
    if report.from == room.heartbeats.own {
        return;
    }
    for users in report.users.chunks(MAX_CHUNK) {
        room.memory.record_heartbeats(report.concert, users, report.trust_seconds);
        tokio::task::yield_now().await;
    }
}
