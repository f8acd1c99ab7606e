//! What only the leader writes: every write names the revision of its lease, so that the server refuses it once the
//! lease was renewed or taken.

use std::time::Duration;

use chrono::{DateTime, Utc};
use futures::future::join_all;

use super::super::hall::Hall;
use super::super::place::{Entry, Event, If, Outcome, Record, Sent, WriteError, next};
use crate::bus::subjects;
use crate::ids::{ConcertId, UserId};

/// How often a write is tried again that found an earlier one on its way to the replicas.
const TRIES: u32 = 50;
/// The pause in between.
const BREATH: Duration = Duration::from_millis(2);

/// Whom a write was for, and what became of it.
pub type Written = (UserId, Result<u64, WriteError>);

/// Lets the same happen to all `chosen`, under this revision of the lease.
pub async fn write(
    hall: &Hall,
    concert: ConcertId,
    chosen: Vec<(UserId, Entry)>,
    lease: u64,
    event: impl Fn(DateTime<Utc>) -> Event,
) -> Vec<Written> {
    if hall.bus.replicas > 1 {
        write_one_by_one(hall, concert, chosen, lease, event).await
    } else {
        write_in_a_row(hall, concert, chosen, lease, event).await
    }
}

/// Sends all in the order of the line, which is the order in which they are stored, then awaits the answers.
async fn write_in_a_row(
    hall: &Hall,
    concert: ConcertId,
    chosen: Vec<(UserId, Entry)>,
    lease: u64,
    event: impl Fn(DateTime<Utc>) -> Event,
) -> Vec<Written> {
    let mut sent = Vec::with_capacity(chosen.len());
    for (user, entry) in chosen {
        sent.push((user, send(hall, concert, user, &entry, lease, &event).await));
    }
    let answers = sent.into_iter().map(|(user, sent)| async move {
        let answer = match sent {
            Ok(sent) => sent.answer().await,
            Err(error) => Err(error),
        };
        (user, answer)
    });
    join_all(answers).await
}

/// On a cluster the server lets only one write per fence be on its way: each waits for the one before. When one does not
/// get through, those behind it have to wait for the next round, or they would overtake it.
async fn write_one_by_one(
    hall: &Hall,
    concert: ConcertId,
    chosen: Vec<(UserId, Entry)>,
    lease: u64,
    event: impl Fn(DateTime<Utc>) -> Event,
) -> Vec<Written> {
    let mut answers = Vec::with_capacity(chosen.len());
    for (user, entry) in chosen {
        let answer = write_patiently(hall, concert, user, &entry, lease, &event).await;
        let is_written = answer.is_ok();
        answers.push((user, answer));
        if !is_written {
            break;
        }
    }
    answers
}

async fn write_patiently(
    hall: &Hall,
    concert: ConcertId,
    user: UserId,
    entry: &Entry,
    lease: u64,
    event: impl Fn(DateTime<Utc>) -> Event,
) -> Result<u64, WriteError> {
    for _ in 0..TRIES {
        match send(hall, concert, user, entry, lease, &event).await?.answer().await {
            Err(WriteError::Busy) => tokio::time::sleep(BREATH).await,
            answer => return answer,
        }
    }
    Err(WriteError::Busy)
}

async fn send(
    hall: &Hall,
    concert: ConcertId,
    user: UserId,
    entry: &Entry,
    lease: u64,
    event: impl Fn(DateTime<Utc>) -> Event,
) -> Result<Sent, WriteError> {
    let now = hall.now();
    let Some(Outcome::Write(standing)) = next(entry, event(now)) else {
        return Err(WriteError::Busy);
    };
    let record = Record::standing(user, concert, entry, standing);
    let (bytes, life) = (record.to_bytes(), record.key_life(now));
    let key = subjects::queue_place(concert, user);
    hall.bucket.send(&key, If::Leading(lease), bytes, Some(life)).await
}
