//! Admission: whoever holds the lease gives free places to the front of each line, and deletes what is over.
//!
//! The cap holds across every change of leader, because nothing rests on a clock or on good faith:
//!
//! - An admission names the lease's revision, so that the server refuses it once the lease was renewed or taken.
//! - Before each round the leader has seen everything up to its lease's revision. So every admission under an earlier
//!   revision, its own or another leader's, has either been seen by then or will be refused.
//! - An admission without an answer counts as made until such a renewal has settled it.
//! - A place is free again only when its deletion has been seen in the bucket.

use std::collections::HashMap;
use std::time::Duration;

use futures::StreamExt;
use futures::future::join_all;
use tokio::time::Instant;

use super::bucket::{If, Sent, WriteError};
use super::hall::Hall;
use super::lease::{Lease, Lost};
use super::place::{Entry, Event, Outcome, Record, Standing, next};
use super::promises::Key;
use super::rate::Permits;
use super::status::Phase;
use crate::bus::subjects;
use crate::ids::{ConcertId, UserId};

/// Admissions of one concert in one round, so that renewing is never late.
const ROUND: usize = 128;
/// How long the watch may take to show what has been written.
const SIGHT: Duration = Duration::from_millis(1_500);
/// How often a write is tried again that found an earlier one on its way to the replicas.
const TRIES: u32 = 50;
/// The pause in between.
const BREATH: Duration = Duration::from_millis(2);
/// The pause before trying again to delete what is over.
const AGAIN: Duration = Duration::from_millis(50);
/// The shortest pause between rounds.
const SHORTEST: Duration = Duration::from_millis(2);

/// What a round did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Round {
    /// How many were admitted.
    pub admitted: u32,
    /// How many keys were deleted.
    pub ended: u32,
}

/// The instance that admits.
#[derive(Debug)]
pub struct Leader {
    /// The lease it holds.
    pub lease: Lease,
    permits: HashMap<ConcertId, Permits>,
    /// Admissions whose answer is missing, with the lease's revision that they named.
    unsettled: HashMap<Key, u64>,
}

impl Leader {
    /// Holding this lease.
    pub fn new(lease: Lease) -> Self {
        Self { lease, permits: HashMap::new(), unsettled: HashMap::new() }
    }

    /// Renews the lease if it is time to, and makes sure that all that happened before has been seen.
    pub async fn prepare(&mut self, hall: &Hall) -> Result<(), Lost> {
        if self.lease.renewal() <= Instant::now() {
            self.lease.renew(hall).await?;
        }
        if !hall.memory.wait_for(self.lease.revision, SIGHT).await {
            return Err(Lost("the watch does not show it".to_owned()));
        }
        self.unsettled.retain(|_, named| *named >= self.lease.revision);
        Ok(())
    }

    /// Deletes what is over and admits whom the settings allow, in every concert.
    pub async fn round(&mut self, hall: &Hall) -> Result<Round, Lost> {
        if !hall.is_connected() {
            return Err(Lost("the connection is lost".to_owned()));
        }
        let ended = sweep(hall).await;
        let mut admitted = 0;
        for (concert, limit) in self.turns(hall) {
            let made = self.admit(hall, concert, limit).await?;
            if let Some(permits) = self.permits.get_mut(&concert) {
                permits.take(made as usize);
            }
            admitted += made;
        }
        Ok(Round { admitted, ended })
    }

    /// Admits up to `limit` of one concert, never beyond its cap; answers how many.
    pub async fn admit(&mut self, hall: &Hall, concert: ConcertId, limit: usize) -> Result<u32, Lost> {
        let chosen = self.choose(hall, concert, limit);
        let lease = self.lease.revision;
        let answers = if hall.bus.replicas > 1 {
            write_one_by_one(hall, concert, chosen, lease).await
        } else {
            write_in_a_row(hall, concert, chosen, lease).await
        };
        let (mut admitted, mut last, mut lost) = (0, 0, None);
        for (user, answer) in answers {
            match answer {
                Ok(revision) => {
                    admitted += 1;
                    last = last.max(revision);
                }
                Err(WriteError::Conflict) => lost = Some(Lost("another instance admits".to_owned())),
                Err(WriteError::Unknown(reason)) => {
                    tracing::warn!(reason, %concert, %user, "an admission was not answered");
                    self.unsettled.insert((concert, user), lease);
                }
                // Nothing was written: the next round tries again.
                Err(WriteError::Busy) => hall.turn.notify_one(),
                Err(WriteError::Missing) => (),
            }
        }
        metrics::counter!("boxoffice_queue_admitted_total", "concert" => concert.to_string())
            .increment(u64::from(admitted));
        if !hall.memory.wait_for(last, SIGHT).await {
            return Err(Lost("the watch does not show the admissions".to_owned()));
        }
        lost.map_or(Ok(admitted), Err)
    }

    /// When the next round is due, if nothing happens before.
    pub fn next_round(&self, hall: &Hall) -> Instant {
        let now = Instant::now();
        let mut next = self.lease.renewal();
        let lines = hall.memory.lines();
        for (concert, queue) in lines.queues() {
            if let Some(end) = queue.next_end() {
                // One that is over and could not be deleted is not tried in a hot loop.
                let left = (end - hall.clock.now()).to_std().unwrap_or(AGAIN);
                next = next.min(now + left);
            }
            let permit = self.permits.get(&concert).filter(|_| queue.waiting() > 0);
            if let Some(pause) = permit.and_then(Permits::next_in).filter(|pause| !pause.is_zero()) {
                next = next.min(now + pause);
            }
        }
        next.max(now + SHORTEST)
    }

    /// The concerts with somebody in line whom the rate lets in now, and how many.
    fn turns(&mut self, hall: &Hall) -> Vec<(ConcertId, usize)> {
        let now = Instant::now();
        let waiting: Vec<(ConcertId, u32)> = {
            let lines = hall.memory.lines();
            let since_start = hall.memory.since_start();
            lines
                .queues()
                .filter(|(_, queue)| queue.waiting() > 0)
                .map(|(concert, queue)| (concert, queue.admitted.over(since_start, 1)))
                .collect()
        };
        let mut turns = Vec::new();
        for (concert, admitted_just_now) in waiting {
            let Some(sale) = hall.sales.get(concert).filter(|sale| sale.phase == Phase::Open) else {
                continue;
            };
            let rate = u32::try_from(sale.settings.admit_per_minute).unwrap_or(0);
            let fresh = Permits::new(rate, admitted_just_now, now);
            let permits = self.permits.entry(concert).or_insert(fresh).available(rate, now);
            if permits > 0 {
                turns.push((concert, permits));
            }
        }
        turns
    }

    /// The front of the line, as many as there are free places, and at most `limit`.
    fn choose(&self, hall: &Hall, concert: ConcertId, limit: usize) -> Vec<(UserId, Entry)> {
        let Some(sale) = hall.sales.get(concert) else {
            return Vec::new();
        };
        let cap = usize::try_from(sale.settings.max_active).unwrap_or(0);
        let lines = hall.memory.lines();
        let Some(queue) = lines.queue(concert) else {
            return Vec::new();
        };
        let is_active = |user: &UserId| {
            let entry = queue.view(*user).entry;
            entry.is_some_and(|entry| entry.standing != Standing::Waiting)
        };
        // An unsettled admission that has been seen counts already.
        let unsettled = self.unsettled.keys().filter(|(of, user)| *of == concert && !is_active(user)).count();
        let free = cap.saturating_sub(queue.active() + unsettled);
        queue
            .front()
            .filter(|(user, _)| !self.unsettled.contains_key(&(concert, *user)))
            .take(free.min(limit).min(ROUND))
            .collect()
    }
}

/// Whom an admission was for, and what became of it.
type Admission = (UserId, Result<u64, WriteError>);

/// Sends all admissions in the order of the line, which is the order in which they are stored, then awaits the answers.
async fn write_in_a_row(
    hall: &Hall,
    concert: ConcertId,
    chosen: Vec<(UserId, Entry)>,
    lease: u64,
) -> Vec<Admission> {
    let mut sent = Vec::with_capacity(chosen.len());
    for (user, entry) in chosen {
        sent.push((user, send(hall, concert, user, &entry, lease).await));
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
) -> Vec<Admission> {
    let mut answers = Vec::with_capacity(chosen.len());
    for (user, entry) in chosen {
        let answer = write_patiently(hall, concert, user, &entry, lease).await;
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
) -> Result<u64, WriteError> {
    for _ in 0..TRIES {
        match send(hall, concert, user, entry, lease).await?.answer().await {
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
) -> Result<Sent, WriteError> {
    let now = hall.now();
    let event = Event::Admit { now, claim: hall.sessions.claim };
    let Some(Outcome::Write(standing)) = next(entry, event) else {
        return Err(WriteError::Busy);
    };
    let record = Record::standing(user, concert, entry, standing);
    let (bytes, life) = (record.to_bytes(), record.key_life(now));
    let key = subjects::queue_place(concert, user);
    hall.bucket.send(&key, If::Leading(lease), bytes, Some(life)).await
}

/// Deletes every place that is over, each if it is still as it was when it was found over. Any instance may do so.
pub async fn sweep(hall: &Hall) -> u32 {
    let now = hall.clock.now();
    let overdue: Vec<(ConcertId, UserId, Entry)> = {
        let lines = hall.memory.lines();
        lines
            .queues()
            .flat_map(|(concert, queue)| {
                queue.overdue(now).into_iter().map(move |(user, entry)| (concert, user, entry))
            })
            .filter(|(concert, user, entry)| {
                // Made longer by this instance, and not written yet.
                hall.promises.until(&entry.claims(*user, *concert)).is_none_or(|until| until <= now)
            })
            .collect()
    };
    if overdue.is_empty() || !hall.is_connected() {
        return 0;
    }
    let deleted: Vec<u64> = futures::stream::iter(overdue)
        .map(|(concert, user, entry)| async move {
            let key = subjects::queue_place(concert, user);
            let in_line = entry.standing == Standing::Waiting;
            hall.bucket.delete(&key, If::At(entry.revision), in_line).await
        })
        .buffer_unordered(ROUND)
        .filter_map(|deleted| async { deleted.ok() })
        .collect()
        .await;
    hall.memory.wait_for(deleted.iter().copied().max().unwrap_or(0), SIGHT).await;
    u32::try_from(deleted.len()).unwrap_or(u32::MAX)
}
