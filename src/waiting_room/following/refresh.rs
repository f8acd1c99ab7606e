//! Keeps the settings and the stock in memory up to date: whenever somebody says that they changed, by the second while
//! anybody is in line or asks, and now and then while nobody is. Who joins meanwhile has them read first.

use std::time::Duration;

use futures::StreamExt;
use tokio::time::{Instant, MissedTickBehavior};

use super::super::hall::Hall;
use super::super::status::Phase;
use super::super::telling::overview;
use super::alarm;
use crate::bus::subjects;
use crate::store::queue::QueueSettings;

/// How old the settings can get.
const EVERY: Duration = Duration::from_millis(900);
/// The same while nobody is in line and nobody has asked for a while.
const QUIET: Duration = Duration::from_secs(5);

/// Runs until the process stops.
pub async fn run(hall: &Hall) {
    let mut tick = tokio::time::interval(EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut read = None;
    loop {
        tokio::select! {
            () = hall.stop.cancelled() => return,
            () = hall.reread.notified() => (),
            _ = tick.tick() => {
                let is_open = |concert| hall.sales.get(concert).is_some_and(|sale| sale.phase == Phase::Open);
                hall.memory.pass_time(is_open);
                if read.is_some_and(|read: Instant| read.elapsed() < QUIET) && hall.is_quiet() && !hall.sales.are_of_interest() {
                    continue;
                }
            }
        }
        let is_complete = hall.memory.is_complete();
        let with_people = hall.memory.concerts();
        match hall.sales.refresh(with_people).await {
            Ok(()) => {
                read = Some(Instant::now());
                if is_complete {
                    hall.sales.note_read();
                }
                hall.openings.notify_one();
                hall.turn.notify_one();
            }
            Err(error) => {
                tracing::warn!(%error, "the settings of the lines cannot be read; the last ones stand")
            }
        }
        alarm::look(hall);
        overview::measure(hall);
    }
}

/// Passes on what other instances say. Runs until the process stops.
pub async fn listen(hall: &Hall) {
    loop {
        match hall.bus.client.subscribe(subjects::QUEUE_SETTINGS).await {
            Ok(mut said) => loop {
                tokio::select! {
                    () = hall.stop.cancelled() => return,
                    word = said.next() => if word.is_some() { hall.reread.notify_one() } else { break },
                }
            },
            Err(error) => tracing::debug!(%error, "changes of settings are found by looking only"),
        }
        tokio::time::sleep(EVERY).await;
    }
}

/// Takes over changed settings here, and tells the other instances. One that does not hear it reads them within a second.
pub async fn announce(hall: &Hall, settings: QueueSettings) {
    hall.sales.learn_settings(vec![settings]);
    hall.openings.notify_one();
    hall.turn.notify_one();
    if let Err(error) = hall.bus.notify(subjects::QUEUE_SETTINGS, bytes::Bytes::new()).await {
        tracing::debug!(%error, "the change of settings was not announced");
    }
}
