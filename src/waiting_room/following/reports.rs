//! Instances tell each other every few seconds whom they have heard of, so that whoever leads knows who is silent.
//!
//! Over core NATS: a report that is lost costs nothing, because everybody is heard of at least three times before a silence
//! means anything. While NATS is away an instance keeps what it has heard and tells it afterwards. Each time one share of
//! those is told who were heard of, so that the work is spread evenly over the time.

use std::time::Duration;

use futures::StreamExt;
use tokio::time::{MissedTickBehavior, interval, sleep};

use super::super::hall::Hall;
use super::super::hearing::{Report, SHARES};
use crate::bus::subjects;

/// How often an instance tells whom it has heard of, every share once; or more often where the shortest silence asks for it.
const EVERY: Duration = Duration::from_secs(5);
/// Reports within the shortest silence.
const REPORTS: u32 = 4;
/// Users noted under one lock.
const CHUNK: usize = 1_024;
/// The pause before listening again.
const PAUSE: Duration = Duration::from_millis(100);

/// Tells the others. Runs until the process stops.
pub async fn tell(hall: &Hall) {
    let every = EVERY.min(hall.sessions.silence / REPORTS).max(PAUSE);
    let mut tick = interval(every / SHARES as u32);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut shares = (0..SHARES).cycle();
    while hall.stop.run_until_cancelled(tick.tick()).await.is_some() {
        let share = shares.next().filter(|_| hall.is_connected());
        for report in share.into_iter().flat_map(|share| hall.hearing.take(share)) {
            if let Err(error) = hall.bus.notify(subjects::QUEUE_HEARD, report).await {
                tracing::debug!(%error, "some who were heard of were not told of; they are heard again");
            }
        }
    }
}

/// Takes in what the others tell: for every instance that may lead. Runs until the process stops.
pub async fn listen(hall: &Hall) {
    while !hall.stop.is_cancelled() {
        match hall.bus.client.subscribe(subjects::QUEUE_HEARD).await {
            Ok(mut told) => {
                hall.hear_anew();
                while let Some(Some(message)) = hall.stop.run_until_cancelled(told.next()).await {
                    if let Some(report) = Report::read(&message.payload) {
                        take_in(hall, &report).await;
                    }
                }
            }
            Err(error) => tracing::debug!(%error, "whom other instances hear of is not known"),
        }
        sleep(PAUSE).await;
    }
}

async fn take_in(hall: &Hall, report: &Report) {
    if report.from == hall.hearing.own {
        return;
    }
    for users in report.users.chunks(CHUNK) {
        hall.memory.hear_of(report.concert, users, report.patience);
        tokio::task::yield_now().await;
    }
}
