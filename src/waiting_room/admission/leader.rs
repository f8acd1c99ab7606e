//! Admission: the holder of the lease admits users from the front of each line, and deletes expired places.
//!
//! The cap holds across every change of leader, because it depends on no clock and on no cooperation:
//!
//! - An admission names the lease's revision. The server refuses it once the lease was renewed or taken.
//! - Before each round the leader has seen the bucket up to its lease's revision. So it has seen every admission under an
//!   earlier revision, its own or another leader's, or the server will refuse it.
//! - An admission without an answer counts as made until a renewal has settled it.
//! - A place is free again only once its deletion has been seen in the bucket.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

use super::super::gate::Key;
use super::super::line::{Lottery, RateLimiter};
use super::super::place::{Entry, Event, WriteError};
use super::super::queue_token::Phase;
use super::super::room_state::RoomState;
use super::expiry::{close_lines, delete_expired};
use super::fenced_write::{FencedWrite, Written};
use super::lease::{Lease, LeaseLost};
use super::liveness_scan::LivenessScan;
use crate::ids::{ConcertId, UserId};
use crate::telemetry::CONCERT_LABELS;

/// Limit of the admissions of one concert in one round, so that the lease is renewed in time.
const MAX_ADMITTED_PER_ROUND: usize = 128;
/// How long the watch may take to show a write.
const WATCH_TIMEOUT: Duration = Duration::from_millis(1_500);
/// Limit of the users marked silent in one round. It is small, because a cluster writes them one after the other, and
/// users wait to be admitted meanwhile.
const MAX_SILENCED_PER_ROUND: usize = 32;
/// The pause after an expired place could not be deleted.
const EXPIRY_RETRY: Duration = Duration::from_millis(50);
const MIN_ROUND_INTERVAL: Duration = Duration::from_millis(2);

/// The result of a round.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RoundResult {
    pub admitted: u32,
    pub ended: u32,
}

/// The instance that holds the lease.
#[derive(Debug)]
pub struct Leader {
    pub lease: Lease,
    limiters: HashMap<ConcertId, RateLimiter>,
    /// Writes without an answer, each with the lease's revision that it named.
    unsettled: HashMap<Key, u64>,
    liveness_scan: LivenessScan,
}

impl Leader {
    pub fn new(lease: Lease) -> Self {
        Self {
            lease,
            limiters: HashMap::new(),
            unsettled: HashMap::new(),
            liveness_scan: LivenessScan::new(),
        }
    }

    /// Renews the lease if it is due, and waits until memory has seen the bucket up to its revision.
    pub async fn prepare(&mut self, room: &RoomState) -> Result<(), LeaseLost> {
        if self.lease.renewal() <= Instant::now() {
            self.lease.renew(room).await?;
        }
        if !room.memory.wait_for(self.lease.revision, WATCH_TIMEOUT).await {
            return Err(LeaseLost("the watch does not show the renewed lease".to_owned()));
        }
        self.unsettled.retain(|_, named| *named >= self.lease.revision);
        Ok(())
    }

    /// Deletes expired places, and admits as many users as the settings allow, in every concert.
    pub async fn round(&mut self, room: &RoomState) -> Result<RoundResult, LeaseLost> {
        if !room.nats.is_connected() {
            return Err(LeaseLost("the connection is lost".to_owned()));
        }
        let (closed, more) = close_lines(room).await;
        if more {
            room.wakeups.admit_now.notify_one();
        }
        let ended = delete_expired(room).await + closed;
        let mut admitted = 0;
        for (concert, limit) in self.due_admissions(room) {
            let made = self.admit(room, concert, limit).await?;
            if let Some(limiter) = self.limiters.get_mut(&concert) {
                limiter.take(made as usize);
            }
            admitted += made;
        }
        Ok(RoundResult { admitted, ended })
    }

    /// Admits up to `limit` users of one concert, never above its cap. Returns how many.
    pub async fn admit(
        &mut self,
        room: &RoomState,
        concert: ConcertId,
        limit: usize,
    ) -> Result<u32, LeaseLost> {
        let chosen = self.choose(room, concert, limit);
        let (lease, claim) = (self.lease.revision, room.sessions.claim.min(room.sessions.session_max));
        let admission = FencedWrite { room, concert, lease, event: |now| Event::Admit { now, claim } };
        let written = admission.write(chosen).await;
        let (admitted, lost) = self.settle(room, concert, written).await;
        metrics::counter!("boxoffice_queue_admitted_total", "concert" => CONCERT_LABELS.of(concert))
            .increment(u64::from(admitted));
        lost.map_or(Ok(admitted), Err)
    }

    /// Marks some users as silent. Returns how many.
    pub async fn mark_silent(&mut self, room: &RoomState) -> Result<u32, LeaseLost> {
        let Some((concert, silent)) = self.liveness_scan.next(
            &room.memory,
            &room.heartbeats,
            room.sessions.silence,
            MAX_SILENCED_PER_ROUND,
        ) else {
            return Ok(0);
        };
        // A write without an answer may be an admission.
        let is_settled = |user: &UserId| !self.unsettled.contains_key(&(concert, *user));
        let silent = silent.into_iter().filter(|(user, _)| is_settled(user)).collect();
        let (lease, grace) = (self.lease.revision, room.sessions.grace);
        let silence = FencedWrite { room, concert, lease, event: |now| Event::GoSilent { now, grace } };
        let written = silence.write(silent).await;
        let (silenced, lost) = self.settle(room, concert, written).await;
        metrics::counter!("boxoffice_queue_silenced_total", "concert" => CONCERT_LABELS.of(concert))
            .increment(u64::from(silenced));
        if self.liveness_scan.has_more() {
            room.wakeups.admit_now.notify_one();
        }
        lost.map_or(Ok(silenced), Err)
    }

    /// Evaluates the answers, and waits until the watch shows the writes. Returns how many there were, and whether the lease
    /// is lost.
    async fn settle(
        &mut self,
        room: &RoomState,
        concert: ConcertId,
        answers: Vec<Written>,
    ) -> (u32, Option<LeaseLost>) {
        let (mut done, mut last, mut lost) = (0, 0, None);
        for (user, answer) in answers {
            match answer {
                Ok(revision) => {
                    done += 1;
                    last = last.max(revision);
                }
                Err(WriteError::Conflict) => lost = Some(LeaseLost("another instance leads".to_owned())),
                Err(WriteError::Unknown(reason)) => {
                    tracing::warn!(reason, %concert, %user, "a write of the leader got no answer; it counts as done until the next renewal");
                    self.unsettled.insert((concert, user), self.lease.revision);
                }
                // Nothing was written. The next round tries again.
                Err(WriteError::Busy) => room.wakeups.admit_now.notify_one(),
                Err(WriteError::Missing) => (),
            }
        }
        if !room.memory.wait_for(last, WATCH_TIMEOUT).await {
            lost = Some(LeaseLost("the watch does not show the writes".to_owned()));
        }
        (done, lost)
    }

    /// When the next round is due at the latest.
    pub fn next_round(&self, room: &RoomState) -> Instant {
        let now = Instant::now();
        let mut next = self.lease.renewal().min(self.liveness_scan.due());
        let lines = room.memory.lines();
        for (concert, queue) in lines.queues() {
            if let Some(end) = queue.next_end() {
                // An expired place that could not be deleted must not cause a busy loop.
                let left = (end - room.clock.now()).to_std().unwrap_or(EXPIRY_RETRY);
                next = next.min(now + left);
            }
            let limiter = self.limiters.get(&concert).filter(|_| queue.waiting() > 0);
            if let Some(pause) = limiter.and_then(RateLimiter::next_in).filter(|pause| !pause.is_zero()) {
                next = next.min(now + pause);
            }
        }
        next.max(now + MIN_ROUND_INTERVAL)
    }

    /// The concerts in which the rate allows admissions now, and how many.
    fn due_admissions(&mut self, room: &RoomState) -> Vec<(ConcertId, usize)> {
        let now = Instant::now();
        let waiting: Vec<(ConcertId, u32)> = {
            let lines = room.memory.lines();
            let since_start = room.memory.since_start();
            lines
                .queues()
                .filter(|(_, queue)| queue.waiting() > queue.silent())
                .map(|(concert, queue)| (concert, queue.counts.admitted.over(since_start, 1)))
                .collect()
        };
        let mut due = Vec::new();
        for (concert, admitted_just_now) in waiting {
            let Some(sale) = room.sales.get(concert).filter(|sale| sale.phase == Phase::Open) else {
                continue;
            };
            if !sale.is_read {
                // A user joined at another instance, and this one does not know yet when the sale opens.
                room.wakeups.reload_settings.notify_one();
                continue;
            }
            let rate = room.admission.throttles.rate(&sale.settings);
            let new = RateLimiter::new(rate, admitted_just_now, now);
            let permits = self.limiters.entry(concert).or_insert(new).available(rate, now);
            if permits > 0 {
                due.push((concert, permits));
            }
        }
        due
    }

    /// The users at the front of the line: as many as there are free places, and at most `limit`.
    fn choose(&self, room: &RoomState, concert: ConcertId, limit: usize) -> Vec<(UserId, Entry)> {
        // Before the line is restored, neither its order nor the number of active users is known.
        let Some(sale) = room.sales.get(concert).filter(|_| room.memory.epoch().is_restored()) else {
            return Vec::new();
        };
        let cap = usize::try_from(sale.settings.max_active).unwrap_or(0);
        let lines = room.memory.lines();
        let Some(queue) = lines.queue(concert) else {
            return Vec::new();
        };
        // After the opening no user is admitted before the lottery is drawn.
        let now = room.clock.now();
        let awaits_draw = |lottery: &Lottery| {
            now >= lottery.opens_at && !(lottery.is_drawn(now) && queue.is_in_order(lottery))
        };
        if sale.lottery.is_some_and(|lottery| awaits_draw(&lottery)) {
            return Vec::new();
        }
        let is_active = |user: &UserId| {
            let entry = queue.view(*user).entry;
            entry.is_some_and(|entry| !entry.status.is_in_line())
        };
        // An unsettled admission that the watch has shown counts as active already.
        let unsettled = self.unsettled.keys().filter(|(of, user)| *of == concert && !is_active(user)).count();
        let free = cap.saturating_sub(queue.active() + unsettled);
        queue
            .front()
            .filter(|(user, _)| !self.unsettled.contains_key(&(concert, *user)))
            .take(free.min(limit).min(MAX_ADMITTED_PER_ROUND))
            .collect()
    }
}
