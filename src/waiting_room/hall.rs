//! What all parts of the waiting room share.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use chrono::{DateTime, SubsecRound, TimeDelta, Utc};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::hearing::Hearing;
use super::journal::Journal;
use super::line::{Memory, View, patience};
use super::pass::{Judged, Promises, judge};
use super::place::{Bucket, Claims, Entry, Signer, Standing};
use super::sale::{Brakes, Sales, Stalls};
use super::status::{Inventory, Phase, QueueToken, Status};
use crate::bus::Bus;
use crate::clock::Clock;
use crate::ids::{ConcertId, UserId};

/// Longer than a lease that is not renewed is respected, so that no admission of the place can be on its way any more.
const MIN_TRACE_LIFE: Duration = Duration::from_secs(4);
/// A watch that is further behind begins anew.
const MAX_TRACE_LIFE: Duration = Duration::from_secs(60);

/// How long sessions live, and the places of those who went silent.
#[derive(Clone, Copy, Debug)]
pub struct Sessions {
    /// From the first use to the end.
    pub session: Duration,
    /// From the admission to the latest end of a session, whatever is held.
    pub session_max: Duration,
    /// How long an admitted user may wait with the first use.
    pub claim: Duration,
    /// The shortest silence after which somebody in line is passed over.
    pub silence: Duration,
    /// How long the place is kept from then on.
    pub grace: Duration,
}

impl Sessions {
    /// How long the trace of a deletion lies in the bucket, so that every watch is told of the end. Tokens may live for
    /// longer: what an instance that starts later must know of ends it reads from the journal.
    pub fn trace_life(&self) -> Duration {
        self.session.clamp(MIN_TRACE_LIFE, MAX_TRACE_LIFE)
    }

    /// How long a session and its token can live.
    pub fn longest(&self) -> TimeDelta {
        let longest = self.session_max.max(self.session + self.claim);
        TimeDelta::from_std(longest).unwrap_or(TimeDelta::days(2)) + TimeDelta::minutes(1)
    }

    /// How long an end is remembered: until every token that was signed for such a place has run out by itself.
    pub fn memory(&self) -> TimeDelta {
        let longest = self.session.max(self.session_max);
        TimeDelta::hours(2) + TimeDelta::from_std(2 * longest).unwrap_or(TimeDelta::days(2))
    }
}

/// Why the waiting room cannot do what was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RoomError {
    /// No concert has this id.
    #[error("there is no such concert")]
    NotFound,
    /// Joining makes no sense any more.
    #[error("every seat of this concert is sold")]
    SoldOut,
    /// Joining makes no sense, or no more.
    #[error("no sale of this concert is open or to come")]
    QueueClosed,
    /// NATS or Postgres does not answer.
    #[error("the waiting room cannot be reached at the moment, try again soon")]
    Unavailable,
}

/// The connections, the clock, the lines in memory, and the signals between the parts.
#[derive(Debug)]
pub struct Hall {
    /// NATS, for what is not stored.
    pub bus: Bus,
    /// Where places are written.
    pub bucket: Bucket,
    /// The time.
    pub clock: Clock,
    /// How long sessions live.
    pub sessions: Sessions,
    /// Makes and reads tokens.
    pub signer: Signer,
    /// The lines.
    pub memory: Memory,
    /// The settings of the lines, and what is left to buy.
    pub sales: Sales,
    /// Where the lines are written down for the day on which NATS loses them.
    pub journal: Journal,
    /// What was granted here and is still to be written.
    pub promises: Promises,
    /// Who was heard of here.
    pub hearing: Hearing,
    /// How fast lines with a brake may move.
    pub brakes: Brakes,
    /// Lines that stand still and should not.
    pub stalls: Stalls,
    /// Somebody changed something that may let the leader admit.
    pub turn: Notify,
    /// Settings may have changed: read them now.
    pub reread: Notify,
    /// The settings, the stock or the lines are known anew: see which lines have to be drawn.
    pub openings: Notify,
    /// The watch of the bucket may have missed something: look now.
    pub doubt: Notify,
    /// See [`Hall::is_exact`].
    pub exact: AtomicBool,
    /// The process is stopping.
    pub stop: CancellationToken,
}

/// When a place was admitted, as far as its token or this instance knows.
fn admitted_at(claims: &Claims, view: &View) -> Option<DateTime<Utc>> {
    let known = view.entry.filter(|entry| entry.place == claims.place).map(|entry| entry.standing);
    match known {
        Some(Standing::Active { activated_at, .. }) => Some(activated_at),
        _ => claims.activated_at,
    }
}

/// How long a session that is not about to end may go without a look, in milliseconds.
const ACTIVE_PAUSE: u64 = 3_000;
/// What whoever is over should wait before asking again, in milliseconds.
const OVER_PAUSE: u64 = 30_000;

impl Hall {
    /// The time now, in whole milliseconds: what tokens and records carry.
    pub fn now(&self) -> DateTime<Utc> {
        self.clock.now().trunc_subsecs(3)
    }

    /// Whether NATS can be asked this moment. What is published while it cannot would be sent later, unasked.
    pub fn is_connected(&self) -> bool {
        self.bus.client.connection_state() == async_nats::connection::State::Connected
    }

    /// Whether this instance knows every line exactly, so that a position it shows is true: the bucket and the journal have
    /// been read up to where they were a moment before, and the lines are in the order of their openings. Once it does, it
    /// does for good: the watch keeps it up to date.
    pub fn is_exact(&self) -> bool {
        if self.exact.load(Ordering::Acquire) {
            return true;
        }
        let is_exact = self.memory.is_settled() && self.sales.are_read() && !self.awaits_draw();
        if is_exact {
            self.exact.store(true, Ordering::Release);
        }
        is_exact
    }

    /// Whether a line stands in another order than the lot of its opening says.
    fn awaits_draw(&self) -> bool {
        let now = self.clock.now();
        self.memory.lines().queues().any(|(concert, queue)| {
            let lot = self.sales.lot(concert).filter(|lot| lot.is_drawn(now));
            lot.is_some_and(|lot| !queue.is_in_order(&lot))
        })
    }

    /// Nobody waits or is admitted anywhere, as far as this instance knows: there is nothing to lead.
    pub fn is_quiet(&self) -> bool {
        self.memory.lines().queues().all(|(_, queue)| queue.waiting() == 0 && queue.active() == 0)
    }

    /// Whether this instance admits, as far as it knows.
    pub fn leads(&self) -> bool {
        self.memory.lines().lease().holder == Some(self.hearing.own)
    }

    /// Ends this place: refused here at once, and written behind; answers whether that was done within `patience`.
    pub async fn end(&self, claims: &Claims, patience: Duration) -> bool {
        self.memory.bar(claims.concert, claims.user, claims.place, self.clock.now());
        self.promises.end(claims);
        self.promises.written(claims, patience).await
    }

    /// From now on this instance hears; what was said before, it may have missed.
    pub fn hear_anew(&self) {
        self.hearing.begin_anew(self.memory.now());
    }

    /// How a place stands, from memory. One that NATS has lost in its last moment is written again behind the request's back.
    pub fn judge(&self, claims: &Claims) -> Judged {
        let view = self.view(claims);
        let promised = self.promises.until(claims, admitted_at(claims, &view));
        if claims.place > self.memory.seen() {
            self.doubt.notify_one();
        }
        let era = self.memory.era();
        let judged = judge(claims, &view, self.memory.known(), &era, promised, self.clock.now());
        let lies_there = view.entry.is_some_and(|entry| entry.place == claims.place);
        if era.may_return(claims.place) && matches!(judged, Judged::Waiting { .. }) && !lies_there {
            self.promises.bring_back(claims);
        }
        judged
    }

    /// What is known of a place. One that was silent and whose owner was heard of is in line again before that is written.
    fn view(&self, claims: &Claims) -> View {
        let mut view = self.memory.view(claims.concert, claims.user);
        if let Some(entry) =
            view.entry.as_mut().filter(|entry| matches!(entry.standing, Standing::Silent { .. }))
            && self.promises.is_coming_back((claims.concert, claims.user), entry.place)
        {
            entry.standing = Standing::Waiting;
        }
        view
    }

    /// The owner of a place in line asks for it, and is told to ask again after `pause`, in milliseconds.
    fn hear(&self, claims: &Claims, pause: u64, is_silent: bool) {
        let (concert, user) = (claims.concert, claims.user);
        let patience = patience(pause, self.sessions.silence);
        if self.memory.hear_of(concert, &[user], patience) {
            self.hearing.note(concert, user, patience);
        }
        if is_silent {
            self.promises.come_back((concert, user), claims.place, self.now());
        }
    }

    /// A place as its owner sees it, from memory. Whoever asks for it is heard of. `sent` is the token that the claims were
    /// read from.
    pub fn look(&self, claims: &Claims, sent: Option<&str>) -> QueueToken {
        let judged = self.judge(claims);
        let (status, activated_at, expires_at) = match judged {
            Judged::Waiting { .. } => (Status::Waiting, None, None),
            Judged::Active { activated_at, expires_at, .. } => {
                (Status::Active, Some(activated_at), Some(expires_at))
            }
            Judged::Over { activated_at, expires_at } => (Status::Expired, activated_at, expires_at),
        };
        // Until Postgres has been read nothing is known against a sale.
        let sale = self.sales.get(claims.concert);
        let bucket = if let Judged::Active { bucket, .. } = judged { bucket } else { claims.bucket };
        let latest = Claims { activated_at, expires_at, bucket, ..claims.clone() };
        let expires_in_seconds = expires_at.map(|end| self.seconds_until(end));
        let opens_at = sale.as_ref().and_then(|sale| sale.lot).map(|lot| lot.opens_at);
        let opens_in_seconds = opens_at.map(|at| self.seconds_until(at)).filter(|seconds| *seconds > 0);
        let seen = QueueToken {
            token: match sent {
                Some(sent) => self.signer.renew(sent, claims, &latest),
                None => self.signer.sign(&latest),
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
            poll_after_ms: if status == Status::Active { ACTIVE_PAUSE } else { OVER_PAUSE },
            issued_at: claims.issued_at,
            activated_at,
            expires_at,
            // Ended early: nothing is left, whatever the token says.
            expires_in_seconds: if status == Status::Expired { Some(0) } else { expires_in_seconds },
            grace_until: None,
        };
        match judged {
            Judged::Waiting { rank, grace_until } => {
                let seen = self.with_prospects(seen, claims.place, rank, sale);
                self.hear(claims, seen.poll_after_ms, grace_until.is_some());
                QueueToken { grace_until, ..seen }
            }
            Judged::Active { .. } | Judged::Over { .. } => seen,
        }
    }

    /// The token of a place as it lies in the bucket, which this instance may not have seen yet.
    pub fn look_at(&self, user: UserId, concert: ConcertId, entry: &Entry) -> QueueToken {
        self.look(&entry.claims(user, concert), None)
    }

    /// Whole seconds until then, rounded up; 0 if it is over.
    pub fn seconds_until(&self, then: DateTime<Utc>) -> i64 {
        ((then - self.clock.now()).num_milliseconds().max(0) + 999) / 1_000
    }
}
