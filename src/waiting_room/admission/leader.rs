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

use chrono::{DateTime, Utc};
use futures::StreamExt;
use tokio::time::Instant;

use super::super::hall::Hall;
use super::super::line::{Lot, Permits};
use super::super::pass::Key;
use super::super::place::{Entry, Event, If, Standing, WriteError};
use super::super::status::Phase;
use super::closing::close_lines;
use super::fenced::{Fenced, Written};
use super::lease::{Lease, Lost};
use super::silence::Patrol;
use crate::bus::{incarnation, subjects};
use crate::ids::{ConcertId, UserId};
use crate::telemetry::CONCERT_LABELS;

/// Admissions of one concert in one round, so that renewing is never late.
const ROUND: usize = 128;
/// How long the watch may take to show what has been written.
const SIGHT: Duration = Duration::from_millis(1_500);
/// Keys deleted in one go of each line, for the same reason.
const SWEPT: usize = 1_024;
/// Those passed over in one round: fewer, because on a cluster they are written one after the other, and somebody waits
/// to be admitted meanwhile.
const PASSED_OVER: usize = 32;
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
    /// Writes whose answer is missing, with the lease's revision that they named.
    unsettled: HashMap<Key, u64>,
    patrol: Patrol,
}

impl Leader {
    /// Holding this lease.
    pub fn new(lease: Lease) -> Self {
        Self { lease, permits: HashMap::new(), unsettled: HashMap::new(), patrol: Patrol::new() }
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
        let (closed, more) = close_lines(hall).await;
        if more {
            hall.turn.notify_one();
        }
        let ended = sweep(hall).await + closed;
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
        let (lease, claim) = (self.lease.revision, hall.sessions.claim.min(hall.sessions.session_max));
        let admission = Fenced { hall, concert, lease, event: |now| Event::Admit { now, claim } };
        let written = admission.write(chosen).await;
        let (admitted, lost) = self.settle(hall, concert, written).await;
        metrics::counter!("boxoffice_queue_admitted_total", "concert" => CONCERT_LABELS.of(concert))
            .increment(u64::from(admitted));
        lost.map_or(Ok(admitted), Err)
    }

    /// Passes over some who have gone silent; answers how many.
    pub async fn pass_over(&mut self, hall: &Hall) -> Result<u32, Lost> {
        let Some((concert, silent)) = self.patrol.next(hall, PASSED_OVER) else {
            return Ok(0);
        };
        // What was not answered may be an admission.
        let is_settled = |user: &UserId| !self.unsettled.contains_key(&(concert, *user));
        let silent = silent.into_iter().filter(|(user, _)| is_settled(user)).collect();
        let (lease, grace) = (self.lease.revision, hall.sessions.grace);
        let missing = Fenced { hall, concert, lease, event: |now| Event::Miss { now, grace } };
        let written = missing.write(silent).await;
        let (silenced, lost) = self.settle(hall, concert, written).await;
        metrics::counter!("boxoffice_queue_silenced_total", "concert" => CONCERT_LABELS.of(concert))
            .increment(u64::from(silenced));
        if self.patrol.has_more() {
            hall.turn.notify_one();
        }
        lost.map_or(Ok(silenced), Err)
    }

    /// Takes note of the answers, and waits until what was written has been seen: how many it were, and whether the
    /// lease is lost.
    async fn settle(
        &mut self,
        hall: &Hall,
        concert: ConcertId,
        answers: Vec<Written>,
    ) -> (u32, Option<Lost>) {
        let (mut done, mut last, mut lost) = (0, 0, None);
        for (user, answer) in answers {
            match answer {
                Ok(revision) => {
                    done += 1;
                    last = last.max(revision);
                }
                Err(WriteError::Conflict) => lost = Some(Lost("another instance admits".to_owned())),
                Err(WriteError::Unknown(reason)) => {
                    tracing::warn!(reason, %concert, %user, "a write of the leader was not answered");
                    self.unsettled.insert((concert, user), self.lease.revision);
                }
                // Nothing was written: the next round tries again.
                Err(WriteError::Busy) => hall.turn.notify_one(),
                Err(WriteError::Missing) => (),
            }
        }
        if !hall.memory.wait_for(last, SIGHT).await {
            lost = Some(Lost("the watch does not show what was written".to_owned()));
        }
        (done, lost)
    }

    /// When the next round is due, if nothing happens before.
    pub fn next_round(&self, hall: &Hall) -> Instant {
        let now = Instant::now();
        let mut next = self.lease.renewal().min(self.patrol.due());
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
                .filter(|(_, queue)| queue.waiting() > queue.silent())
                .map(|(concert, queue)| (concert, queue.tally.admitted.over(since_start, 1)))
                .collect()
        };
        let mut turns = Vec::new();
        for (concert, admitted_just_now) in waiting {
            let Some(sale) = hall.sales.get(concert).filter(|sale| sale.phase == Phase::Open) else {
                continue;
            };
            if !sale.is_read {
                // Somebody joined elsewhere, and nobody has looked here when this sale opens.
                hall.reread.notify_one();
                continue;
            }
            let rate = hall.brakes.rate(&sale.settings);
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
        // Until the line is restored nobody knows who is next, nor how many are active.
        let Some(sale) = hall.sales.get(concert).filter(|_| hall.memory.era().is_restored()) else {
            return Vec::new();
        };
        let cap = usize::try_from(sale.settings.max_active).unwrap_or(0);
        let lines = hall.memory.lines();
        let Some(queue) = lines.queue(concert) else {
            return Vec::new();
        };
        // From the opening on nobody is admitted before the lot is drawn.
        let now = hall.clock.now();
        let awaits_draw = |lot: &Lot| now >= lot.opens_at && !(lot.is_drawn(now) && queue.is_in_order(lot));
        if sale.lot.is_some_and(|lot| awaits_draw(&lot)) {
            return Vec::new();
        }
        let is_active = |user: &UserId| {
            let entry = queue.view(*user).entry;
            entry.is_some_and(|entry| !entry.standing.is_in_line())
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

/// Deletes places that are over, each if it is still as it was when it was found over. Any instance may do so.
pub async fn sweep(hall: &Hall) -> u32 {
    let now = hall.clock.now();
    let overdue: Vec<(ConcertId, UserId, Entry)> = {
        let lines = hall.memory.lines();
        let present = lines.era().incarnation;
        lines
            .queues()
            .flat_map(|(concert, queue)| {
                queue.overdue(now, SWEPT).into_iter().map(move |(user, entry)| (concert, user, entry))
            })
            // What is not in the present bucket yet cannot be deleted from it.
            .filter(|(.., entry)| incarnation::of(entry.revision) == present)
            .filter(|(concert, user, entry)| {
                // Made longer by this instance, and not written yet.
                let claims = entry.claims(*user, *concert);
                let kept = hall.promises.until(&claims, claims.activated_at).is_some_and(|until| until > now);
                !kept && !hall.promises.is_coming_back((*concert, *user), entry.place)
            })
            .collect()
    };
    if overdue.is_empty() || !hall.is_connected() {
        return 0;
    }
    let deleted: Vec<u64> = futures::stream::iter(overdue)
        .map(|(concert, user, entry)| async move {
            let key = subjects::queue_place(concert, user);
            let deleted = hall.bucket.delete(&key, If::At(entry.revision), entry.standing.is_in_line()).await;
            if deleted.is_ok() {
                count_end(concert, &entry, now);
            }
            deleted
        })
        .buffer_unordered(ROUND)
        .filter_map(|deleted| async { deleted.ok() })
        .collect()
        .await;
    hall.memory.wait_for(deleted.iter().copied().max().unwrap_or(0), SIGHT).await;
    u32::try_from(deleted.len()).unwrap_or(u32::MAX)
}

/// Counts why a place that was over is over.
fn count_end(concert: ConcertId, entry: &Entry, now: DateTime<Utc>) {
    let name = match entry.standing {
        Standing::Active { used: false, .. } if entry.is_over(now) => "boxoffice_queue_no_shows_total",
        Standing::Silent { .. } if entry.is_over(now) => "boxoffice_queue_lost_total",
        _ => return,
    };
    metrics::counter!(name, "concert" => CONCERT_LABELS.of(concert)).increment(1);
}
