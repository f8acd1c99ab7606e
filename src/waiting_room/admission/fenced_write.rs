//! Writes of the leader. Each names the revision of its lease, so that the server refuses it once the lease was renewed or
//! taken.

use std::time::Duration;

use chrono::{DateTime, Utc};
use futures::future::join_all;

use super::super::place::{Condition, Entry, Event, Outcome, Record, Sent, WriteError, answer_to, next};
use super::super::room_state::RoomState;
use crate::bus::subjects;
use crate::ids::{ConcertId, UserId};

/// How often a write is tried while an earlier one is under way to the replicas.
const MAX_TRIES: u32 = 50;
const BUSY_RETRY: Duration = Duration::from_millis(2);

/// A user and the result of the write.
pub type Written = (UserId, Result<u64, WriteError>);

/// Applies one event to places of one line, under one revision of the lease.
pub struct FencedWrite<'a, E> {
    pub room: &'a RoomState,
    pub concert: ConcertId,
    /// The revision of the lease.
    pub lease: u64,
    /// The event, by the time of the write.
    pub event: E,
}

impl<E: Fn(DateTime<Utc>) -> Event> FencedWrite<'_, E> {
    pub async fn write(&self, chosen: Vec<(UserId, Entry)>) -> Vec<Written> {
        if self.room.nats.bus.replicas > 1 {
            self.write_sequentially(chosen).await
        } else {
            self.write_pipelined(chosen).await
        }
    }

    /// Sends all writes in the order of the line, which is the order in which they are stored. Then waits for the answers.
    async fn write_pipelined(&self, chosen: Vec<(UserId, Entry)>) -> Vec<Written> {
        let mut sent = Vec::with_capacity(chosen.len());
        for (user, entry) in chosen {
            sent.push((user, self.send(user, &entry).await));
        }
        join_all(sent.into_iter().map(|(user, sent)| async move { (user, answer_to(sent).await) })).await
    }

    /// A cluster accepts only one write per fence at a time, so each write waits for the one before. If one fails, the users
    /// behind it wait for the next round; otherwise they would overtake it.
    async fn write_sequentially(&self, chosen: Vec<(UserId, Entry)>) -> Vec<Written> {
        let mut answers = Vec::with_capacity(chosen.len());
        for (user, entry) in chosen {
            let answer = self.write_one(user, &entry).await;
            let is_written = answer.is_ok();
            answers.push((user, answer));
            if !is_written {
                break;
            }
        }
        answers
    }

    async fn write_one(&self, user: UserId, entry: &Entry) -> Result<u64, WriteError> {
        for _ in 0..MAX_TRIES {
            match answer_to(self.send(user, entry).await).await {
                Err(WriteError::Busy) => tokio::time::sleep(BUSY_RETRY).await,
                answer => return answer,
            }
        }
        Err(WriteError::Busy)
    }

    async fn send(&self, user: UserId, entry: &Entry) -> Result<Sent, WriteError> {
        let now = self.room.now();
        let Some(Outcome::Write(status)) = next(entry, (self.event)(now)) else {
            return Err(WriteError::Busy);
        };
        let record = Record::with_status(user, self.concert, entry, status);
        let (bytes, ttl) = (record.to_bytes(), record.key_ttl(now));
        let key = subjects::queue_place(self.concert, user);
        self.room.nats.bucket.send(&key, Condition::Lease(self.lease), bytes, Some(ttl)).await
    }
}
