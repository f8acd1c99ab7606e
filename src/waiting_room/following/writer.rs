//! Keeps the promises: writes to the bucket what was granted or ended in memory.

use std::time::Duration;

use futures::StreamExt;
use tokio::time::Instant;

use super::super::hall::Hall;
use super::super::pass::{Key, Need, Promise};
use super::super::place::{If, Record, Standing, WriteError};
use crate::bus::subjects;

/// Writes in flight at once.
const WIDTH: usize = 64;
/// After a lost race or an unseen admission: the watch will tell within milliseconds.
const SOON: Duration = Duration::from_millis(20);
/// After no answer.
const LATER: Duration = Duration::from_millis(500);
/// How long a written promise is waited for to be seen.
const SIGHT: Duration = Duration::from_secs(2);

/// Runs until the process stops, and then once more.
pub async fn run(hall: &Hall) {
    loop {
        let next = run_once(hall).await;
        let sleep = async {
            match next {
                Some(next) => tokio::time::sleep_until(next).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = hall.stop.cancelled() => break,
            () = hall.promises.wake.notified() => (),
            () = sleep => (),
        }
    }
    let _ = tokio::time::timeout(Duration::from_secs(1), run_once(hall)).await;
}

/// Tries every promise that is due; answers when the next one is.
async fn run_once(hall: &Hall) -> Option<Instant> {
    let (due, _) = hall.promises.due(Instant::now());
    futures::stream::iter(due)
        .for_each_concurrent(WIDTH, |(key, promise)| async move {
            if let Some(pause) = keep(hall, key, &promise).await {
                hall.promises.postpone(key, pause);
            } else {
                hall.promises.keep(key, &promise);
            }
        })
        .await;
    let (due, later) = hall.promises.due(Instant::now());
    if due.is_empty() { later } else { Some(Instant::now()) }
}

/// Keeps a promise; answers after which pause to try again, if it must be.
async fn keep(hall: &Hall, (concert, user): Key, promise: &Promise) -> Option<Duration> {
    let view = hall.memory.view(concert, user);
    let key = subjects::queue_place(concert, user);
    let need = promise.need(&view, hall.memory.seen());
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
                metrics::counter!("boxoffice_queue_returned_total", "concert" => concert.to_string())
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
