//! What only the leader writes: every write names the revision of its lease, so that the server refuses it once the
//! lease was renewed or taken.

use std::time::Duration;

use chrono::{DateTime, Utc};
use futures::future::join_all;

use super::super::hall::Hall;
use super::super::place::{Entry, Event, If, Outcome, Record, Sent, WriteError, answer_to, next};
use crate::bus::subjects;
use crate::ids::{ConcertId, UserId};

/// How often a write is tried again that found an earlier one on its way to the replicas.
const TRIES: u32 = 50;
/// The pause in between.
const BREATH: Duration = Duration::from_millis(2);

/// Whom a write was for, and what became of it.
pub type Written = (UserId, Result<u64, WriteError>);

/// One event for some in one line, under one revision of the lease.
pub struct Fenced<'a, E> {
    /// Where it is written.
    pub hall: &'a Hall,
    /// In whose line.
    pub concert: ConcertId,
    /// The lease's revision.
    pub lease: u64,
    /// What happens, given the time.
    pub event: E,
}

impl<E: Fn(DateTime<Utc>) -> Event> Fenced<'_, E> {
    /// Lets it happen to all of these.
    pub async fn write(&self, chosen: Vec<(UserId, Entry)>) -> Vec<Written> {
        if self.hall.bus.replicas > 1 {
            self.write_one_by_one(chosen).await
        } else {
            self.write_in_a_row(chosen).await
        }
    }

    /// Sends all in the order of the line, which is the order in which they are stored, then awaits the answers.
    async fn write_in_a_row(&self, chosen: Vec<(UserId, Entry)>) -> Vec<Written> {
        let mut sent = Vec::with_capacity(chosen.len());
        for (user, entry) in chosen {
            sent.push((user, self.send(user, &entry).await));
        }
        join_all(sent.into_iter().map(|(user, sent)| async move { (user, answer_to(sent).await) })).await
    }

    /// On a cluster the server lets only one write per fence be on its way: each waits for the one before. When one does
    /// not get through, those behind it have to wait for the next round, or they would overtake it.
    async fn write_one_by_one(&self, chosen: Vec<(UserId, Entry)>) -> Vec<Written> {
        let mut answers = Vec::with_capacity(chosen.len());
        for (user, entry) in chosen {
            let answer = self.write_patiently(user, &entry).await;
            let is_written = answer.is_ok();
            answers.push((user, answer));
            if !is_written {
                break;
            }
        }
        answers
    }

    async fn write_patiently(&self, user: UserId, entry: &Entry) -> Result<u64, WriteError> {
        for _ in 0..TRIES {
            match answer_to(self.send(user, entry).await).await {
                Err(WriteError::Busy) => tokio::time::sleep(BREATH).await,
                answer => return answer,
            }
        }
        Err(WriteError::Busy)
    }

    async fn send(&self, user: UserId, entry: &Entry) -> Result<Sent, WriteError> {
        let now = self.hall.now();
        let Some(Outcome::Write(standing)) = next(entry, (self.event)(now)) else {
            return Err(WriteError::Busy);
        };
        let record = Record::standing(user, self.concert, entry, standing);
        let (bytes, life) = (record.to_bytes(), record.key_life(now));
        let key = subjects::queue_place(self.concert, user);
        self.hall.bucket.send(&key, If::Leading(self.lease), bytes, Some(life)).await
    }
}
