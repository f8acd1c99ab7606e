//! How a place stands, from memory: for the gate, and for its owner with rank, estimate and poll interval.

use std::time::Duration;

use chrono::{DateTime, Utc};

use super::super::gate::{PlaceState, check};
use super::super::line::{View, poll_after, poll_early, trust_seconds};
use super::super::place::{Claims, Entry, Place, PlaceStatus};
use super::super::queue_token::{EstimateInput, Inventory, Phase, QueueToken, Status, estimate};
use super::super::room_state::RoomState;
use super::super::sale::Sale;
use crate::ids::{ConcertId, UserId};

/// Poll interval during a session. It does not depend on the rank.
const ACTIVE_POLL_MS: u64 = 3_000;
/// Poll interval after the end.
const ENDED_POLL_MS: u64 = 30_000;

/// The line as the owner of one place sees it.
#[derive(Clone, Copy, Debug, Default)]
struct LineSnapshot {
    rank: Option<usize>,
    /// Whether the line has the order of its lottery.
    is_in_order: bool,
    waiting: u64,
    active: u64,
    /// How many places are released per second; `None` if too few were measured.
    freed_per_second: Option<f64>,
}

/// When a place was admitted, as far as its token or this instance knows.
fn admitted_at(claims: &Claims, view: &View) -> Option<DateTime<Utc>> {
    let known = view.entry.filter(|entry| entry.place == claims.place).map(|entry| entry.status);
    match known {
        Some(PlaceStatus::Active { activated_at, .. }) => Some(activated_at),
        _ => claims.activated_at,
    }
}

impl RoomState {
    /// How a place stands. If NATS lost the place just before it was journalled, it is written again in the background.
    pub fn check(&self, claims: &Claims) -> PlaceState {
        let view = self.view(claims);
        let granted = self.gate.pending.session_end(claims, admitted_at(claims, &view));
        if claims.place > self.memory.seen() {
            self.wakeups.recheck_watch.notify_one();
        }
        let epoch = self.memory.epoch();
        let state = check(claims, &view, self.memory.known(), &epoch, granted, self.clock.now());
        let is_in_bucket = view.entry.is_some_and(|entry| entry.place == claims.place);
        if epoch.can_be_restored(claims.place) && matches!(state, PlaceState::Waiting { .. }) && !is_in_bucket
        {
            self.gate.pending.restore_place(claims);
        }
        state
    }

    /// Ends this place. It is refused here at once and deleted in the background. Returns whether it was deleted within
    /// `timeout`.
    pub async fn end(&self, claims: &Claims, timeout: Duration) -> bool {
        self.memory.end_locally(claims.concert, claims.user, claims.place, self.clock.now());
        self.gate.pending.end(claims);
        self.gate.pending.written(claims, timeout).await
    }

    /// A place as its owner sees it. `sent` is the token that the claims were read from. The request counts as a heartbeat.
    pub fn look(&self, claims: &Claims, sent: Option<&str>) -> QueueToken {
        let state = self.check(claims);
        let (status, activated_at, expires_at) = match state {
            PlaceState::Waiting { .. } => (Status::Waiting, None, None),
            PlaceState::Active { activated_at, expires_at, .. } => {
                (Status::Active, Some(activated_at), Some(expires_at))
            }
            PlaceState::Ended { activated_at, expires_at } => (Status::Expired, activated_at, expires_at),
        };
        // Before Postgres has been read, the sale counts as open and available.
        let sale = self.sales.get(claims.concert);
        let bucket = if let PlaceState::Active { bucket, .. } = state { bucket } else { claims.bucket };
        let latest = Claims { activated_at, expires_at, bucket, ..claims.clone() };
        let expires_in_seconds = expires_at.map(|end| self.seconds_until(end));
        let opens_at = sale.as_ref().and_then(|sale| sale.lottery).map(|lottery| lottery.opens_at);
        let opens_in_seconds = opens_at.map(|at| self.seconds_until(at)).filter(|seconds| *seconds > 0);
        let seen = QueueToken {
            token: match sent {
                Some(sent) => self.gate.signer.renew(sent, claims, &latest),
                None => self.gate.signer.sign(&latest),
            },
            concert_id: claims.concert,
            user_id: claims.user,
            status,
            phase: sale.as_ref().map_or(Phase::Open, |sale| sale.phase),
            inventory: sale.as_ref().map_or(Inventory::Available, |sale| sale.inventory),
            opens_at,
            opens_in_seconds,
            position: None,
            ahead: None,
            eta_seconds: None,
            eta_known: false,
            poll_after_ms: if status == Status::Active { ACTIVE_POLL_MS } else { ENDED_POLL_MS },
            issued_at: claims.issued_at,
            activated_at,
            expires_at,
            // A session that ended early has no time left, whatever its token says.
            expires_in_seconds: if status == Status::Expired { Some(0) } else { expires_in_seconds },
            grace_until: None,
        };
        match state {
            PlaceState::Waiting { rank, grace_until } => {
                let seen = self.with_estimate(seen, claims.place, rank, sale);
                self.record_heartbeat(claims, seen.poll_after_ms, grace_until.is_some());
                QueueToken { grace_until, ..seen }
            }
            PlaceState::Active { .. } | PlaceState::Ended { .. } => seen,
        }
    }

    /// A place as it was read from the bucket. The watch may not have shown it here yet.
    pub fn look_at(&self, user: UserId, concert: ConcertId, entry: &Entry) -> QueueToken {
        self.look(&entry.claims(user, concert), None)
    }

    /// What memory knows of a place. A silent user who has sent a heartbeat counts as waiting before that is written.
    fn view(&self, claims: &Claims) -> View {
        let mut view = self.memory.view(claims.concert, claims.user);
        if let Some(entry) =
            view.entry.as_mut().filter(|entry| matches!(entry.status, PlaceStatus::Silent { .. }))
            && self.gate.pending.is_silence_ending((claims.concert, claims.user), entry.place)
        {
            entry.status = PlaceStatus::Waiting;
        }
        view
    }

    /// Records that the owner of a place asked for it and will ask again after `poll_after_ms`.
    fn record_heartbeat(&self, claims: &Claims, poll_after_ms: u64, is_silent: bool) {
        let (concert, user) = (claims.concert, claims.user);
        let trust = trust_seconds(poll_after_ms, self.sessions.silence);
        if self.memory.record_heartbeats(concert, &[user], trust) {
            self.heartbeats.record(concert, user, trust);
        }
        if is_silent {
            self.gate.pending.end_silence((concert, user), claims.place, self.now());
        }
    }

    /// Adds rank, estimate and poll interval to a waiting place. `before` is the rank that the check found. A rank is shown
    /// only if it is exact, and not before the lottery, which could only make it worse.
    fn with_estimate(
        &self,
        seen: QueueToken,
        place: Place,
        before: Option<usize>,
        sale: Option<Sale>,
    ) -> QueueToken {
        if sale.as_ref().is_some_and(|sale| !sale.is_read) {
            self.wakeups.reload_settings.notify_one();
        }
        let line = self.line_snapshot(&seen, place, sale.as_ref());
        let (now, jitter) = (self.clock.now(), rand::random_range(-1.0..=1.0));
        let lottery = sale.as_ref().and_then(|sale| sale.lottery);
        let is_drawn = line.is_in_order && lottery.is_some_and(|lottery| lottery.is_drawn(now));
        let Some(sale) = sale.filter(|_| is_drawn) else {
            let until = lottery.and_then(|lottery| (lottery.draws_at() - now).to_std().ok());
            return QueueToken { poll_after_ms: poll_early(line.waiting, until, jitter), ..seen };
        };
        // A place that has left the line since the check keeps the rank of the check.
        let rank = line.rank.or(before).filter(|_| self.is_exact());
        let Some(rank) = rank.map(|rank| rank as u64) else {
            // This instance has just started, or has not seen the place yet: ask again soon.
            return QueueToken { poll_after_ms: poll_after(1, None, jitter), ..seen };
        };
        let input = EstimateInput {
            moving: sale.phase == Phase::Open,
            free: u64::try_from(sale.settings.max_active).unwrap_or(0).saturating_sub(line.active),
            per_minute: self.admission.throttles.rate(&sale.settings),
            freed_per_second: line.freed_per_second,
        };
        let eta_seconds = estimate(rank, &input);
        QueueToken {
            position: Some(rank),
            ahead: Some(rank - 1),
            eta_seconds,
            eta_known: eta_seconds.is_some(),
            poll_after_ms: poll_after(rank, eta_seconds, jitter),
            ..seen
        }
    }

    fn line_snapshot(&self, seen: &QueueToken, place: Place, sale: Option<&Sale>) -> LineSnapshot {
        let lines = self.memory.lines();
        let Some(queue) = lines.queue(seen.concert_id) else {
            return LineSnapshot { is_in_order: true, ..LineSnapshot::default() };
        };
        let view = queue.view(seen.user_id);
        // A restored older place of the same user replaces this one.
        let is_current = view.entry.is_some_and(|entry| entry.place == place || entry.revision > place);
        LineSnapshot {
            rank: view.rank.filter(|_| is_current),
            is_in_order: sale
                .and_then(|sale| sale.lottery)
                .is_some_and(|lottery| queue.is_in_order(&lottery)),
            waiting: queue.waiting() as u64,
            active: queue.active() as u64,
            freed_per_second: queue.counts.release_rate.per_second(),
        }
    }
}
