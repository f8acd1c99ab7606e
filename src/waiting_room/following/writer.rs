//! Keeps the promises: writes to the bucket what was granted or ended in memory.

use std::collections::{HashSet, VecDeque};
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::time::Instant;

use super::super::hall::Hall;
use super::super::pass::{Key, Need, Promise};
use super::super::place::{If, Record, Standing, WriteError};
use crate::bus::subjects;
use crate::telemetry::CONCERT_LABELS;

/// Writes in flight at once.
const WIDTH: usize = 64;
/// After a lost race or an unseen admission: the watch will tell within milliseconds.
const SOON: Duration = Duration::from_millis(20);
/// After no answer.
const LATER: Duration = Duration::from_millis(500);
/// How long a written promise is waited for to be seen.
const SIGHT: Duration = Duration::from_secs(2);

/// What became of a promise that was tried: after which pause to try again, if it must be.
type Tried = (Key, Promise, Option<Duration>);

/// Runs until the process stops, and then tries all that is due once more.
pub async fn run(hall: &Hall) {
    let mut under_way = FuturesUnordered::new();
    let mut keys = HashSet::new();
    let (mut due, mut later) = (VecDeque::new(), None);
    let mut is_news = true;
    loop {
        if is_news || due.is_empty() {
            let (all, next) = hall.promises.due(Instant::now());
            (due, later) = (all.into(), next);
        }
        // None waits for another one: a payment is not answered before its end is written.
        while under_way.len() < WIDTH
            && let Some((key, promise)) = due.pop_front()
        {
            if keys.insert(key) {
                under_way.push(attempt(hall, key, promise));
            }
        }
        is_news = false;
        tokio::select! {
            () = hall.stop.cancelled() => break,
            () = hall.promises.wake.notified() => is_news = true,
            Some(tried) = under_way.next() => {
                keys.remove(&tried.0);
                settle(hall, &tried);
            }
            () = until(later) => is_news = true,
        }
    }
    drop(under_way);
    let (due, _) = hall.promises.due(Instant::now());
    let last = futures::stream::iter(due).for_each_concurrent(WIDTH, |(key, promise)| async move {
        settle(hall, &attempt(hall, key, promise).await);
    });
    let _ = tokio::time::timeout(Duration::from_secs(1), last).await;
}

async fn until(then: Option<Instant>) {
    match then {
        Some(then) => tokio::time::sleep_until(then).await,
        None => std::future::pending().await,
    }
}

async fn attempt(hall: &Hall, key: Key, promise: Promise) -> Tried {
    (key, promise, keep(hall, key, &promise).await)
}

fn settle(hall: &Hall, (key, promise, pause): &Tried) {
    match pause {
        Some(pause) => hall.promises.postpone(*key, promise, *pause),
        None => hall.promises.keep(*key, promise),
    }
}

/// Keeps a promise; answers after which pause to try again, if it must be.
async fn keep(hall: &Hall, (concert, user): Key, promise: &Promise) -> Option<Duration> {
    let view = hall.memory.view(concert, user);
    let key = subjects::queue_place(concert, user);
    let need = promise.need(&view, hall.memory.known());
    let is_back = matches!(need, Need::Write(_, Standing::Waiting));
    let written = match need {
        Need::Nothing => return None,
        Need::Patience if promise.age() < SIGHT => return Some(SOON),
        Need::Patience => return Some(LATER),
        _ if !hall.is_connected() => return Some(LATER),
        Need::Write(entry, standing) => {
            let record = Record::standing(user, concert, &entry, standing);
            let life = record.key_life(hall.now());
            hall.bucket.write(&key, If::At(entry.revision), record.to_bytes(), Some(life)).await
        }
        Need::Return(condition, entry, since) => match hall.journal.has_paid(concert, user, since).await {
            Ok(true) => {
                hall.memory.bar(concert, user, entry.place, hall.now());
                return None;
            }
            Ok(false) => {
                let record = Record::standing(user, concert, &entry, entry.standing);
                let life = record.key_life(hall.now());
                hall.bucket.write(&key, condition, record.to_bytes(), Some(life)).await
            }
            Err(error) => Err(WriteError::Unknown(error.to_string())),
        },
        Need::Delete(condition, in_line) => hall.bucket.delete(&key, condition, in_line).await,
    };
    match written {
        Ok(revision) if hall.memory.wait_for(revision, SIGHT).await => {
            if is_back {
                metrics::counter!("boxoffice_queue_returned_total", "concert" => CONCERT_LABELS.of(concert))
                    .increment(1);
            }
            None
        }
        Ok(_) | Err(WriteError::Conflict | WriteError::Busy) => Some(SOON),
        Err(error) => {
            tracing::warn!(%error, %concert, %user, "a session's change could not be written, trying again");
            Some(LATER)
        }
    }
}
