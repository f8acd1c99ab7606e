//! The state that the parts of the waiting room share, grouped by the part that reads it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use chrono::{DateTime, SubsecRound, TimeDelta, Utc};
use futures::StreamExt;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::gate::PendingWrites;
use super::heartbeats::Heartbeats;
use super::journal::Journal;
use super::line::Memory;
use super::place::{Bucket, Signer};
use super::sale::{Sales, StallDetector, Throttles};
use crate::bus::Bus;
use crate::clock::Clock;
use crate::ids;

/// Longer than a lease without a renewal is respected, so that no admission of the place can still be under way.
const MIN_MARKER_TTL: Duration = Duration::from_secs(4);
/// A watch that lags further behind starts again.
const MAX_MARKER_TTL: Duration = Duration::from_secs(60);
/// The pause before a lost subscription is made again.
const RESUBSCRIBE_INTERVAL: Duration = Duration::from_millis(100);

/// How long sessions last, and how long the places of silent users are kept.
#[derive(Clone, Copy, Debug)]
pub struct Sessions {
    /// From the first use to the end.
    pub session: Duration,
    /// From the admission to the latest end of a session, whatever is held.
    pub session_max: Duration,
    /// How long an admitted user may wait with the first use.
    pub claim: Duration,
    /// Users who send no heartbeat for this time, or longer if they poll rarely, count as silent.
    pub silence: Duration,
    /// How long the place of a silent user is kept.
    pub grace: Duration,
}

impl Sessions {
    /// How long the delete marker of a place stays in the bucket, so that every watch sees the end. An instance that
    /// starts later reads the ends from the journal.
    pub fn marker_ttl(&self) -> Duration {
        self.session.clamp(MIN_MARKER_TTL, MAX_MARKER_TTL)
    }

    /// How long a session and its token can be valid.
    pub fn longest(&self) -> TimeDelta {
        let longest = self.session_max.max(self.session + self.claim);
        TimeDelta::from_std(longest).unwrap_or(TimeDelta::days(2)) + TimeDelta::minutes(1)
    }

    /// How long the tombstone of a place is kept: until every token that was signed for it has expired.
    pub fn tombstone_ttl(&self) -> TimeDelta {
        let longest = self.session.max(self.session_max);
        TimeDelta::hours(2) + TimeDelta::from_std(2 * longest).unwrap_or(TimeDelta::days(2))
    }
}

/// Why the waiting room cannot serve a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RoomError {
    #[error("there is no such concert")]
    NotFound,
    #[error("every seat of this concert is sold")]
    SoldOut,
    #[error("no sale of this concert is open or to come")]
    QueueClosed,
    /// NATS or Postgres does not answer.
    #[error("the waiting room cannot be reached at the moment, try again soon")]
    Unavailable,
}

#[derive(Debug)]
pub struct RoomState {
    pub nats: NatsSide,
    /// The lines of all concerts.
    pub memory: Memory,
    /// Settings and stock of all sales.
    pub sales: Sales,
    pub sessions: Sessions,
    pub clock: Clock,
    pub gate: GateState,
    pub admission: AdmissionState,
    /// Heartbeats that this instance has received.
    pub heartbeats: Heartbeats,
    pub wakeups: Wakeups,
    /// See [`RoomState::is_exact`].
    exact: AtomicBool,
    /// Cancelled when the process stops.
    pub stop: CancellationToken,
}

/// NATS: the bucket of places and the messages between instances.
#[derive(Debug)]
pub struct NatsSide {
    pub bus: Bus,
    pub bucket: Bucket,
}

/// What the gate reads for each request.
#[derive(Debug)]
pub struct GateState {
    pub signer: Signer,
    /// Changes that this instance has granted and not yet written to the bucket.
    pub pending: PendingWrites,
}

/// What the leader reads and writes, and the views of operators.
#[derive(Debug)]
pub struct AdmissionState {
    pub journal: Journal,
    pub throttles: Throttles,
    pub stalls: StallDetector,
}

/// Wakes the background tasks before their next interval.
#[derive(Debug, Default)]
pub struct Wakeups {
    /// A change may allow the leader to admit.
    pub admit_now: Notify,
    /// Settings may have changed.
    pub reload_settings: Notify,
    /// Settings, stock or lines were loaded: lotteries may be due.
    pub sales_changed: Notify,
    /// The watch of the bucket may have missed an event.
    pub recheck_watch: Notify,
}

impl NatsSide {
    pub fn new(bus: Bus) -> Self {
        Self { bucket: Bucket::new(bus.clone()), bus }
    }

    /// Whether NATS can be reached now. The client would send a message later if it is published while NATS is away.
    pub fn is_connected(&self) -> bool {
        self.bus.client.connection_state() == async_nats::connection::State::Connected
    }

    /// Wakes a task whenever another instance publishes on this subject. Runs until the process stops.
    pub async fn wake_on(&self, subject: &'static str, task: &Notify, stop: &CancellationToken) {
        while !stop.is_cancelled() {
            match self.bus.client.subscribe(subject).await {
                Ok(mut messages) => {
                    while let Some(Some(_)) = stop.run_until_cancelled(messages.next()).await {
                        task.notify_one();
                    }
                }
                Err(error) => {
                    tracing::debug!(%error, subject, "subscription failed; changes are found at the next interval");
                }
            }
            tokio::time::sleep(RESUBSCRIBE_INTERVAL).await;
        }
    }

    /// Wakes the same task of the other instances. One that misses the message finds the change at its next interval.
    pub async fn wake_others(&self, subject: &'static str) {
        if let Err(error) = self.bus.notify(subject, Bytes::new()).await {
            tracing::debug!(%error, subject, "notification failed; other instances find the change at their next interval");
        }
    }
}

impl RoomState {
    pub fn new(
        nats: NatsSide,
        sales: Sales,
        clock: Clock,
        sessions: Sessions,
        gate: GateState,
        admission: AdmissionState,
        stop: CancellationToken,
    ) -> Self {
        let memory = Memory::new(sessions.silence);
        let (wakeups, exact) = (Wakeups::default(), AtomicBool::new(false));
        let heartbeats = Heartbeats::new(ids::new());
        Self { nats, memory, sales, sessions, clock, gate, admission, heartbeats, wakeups, exact, stop }
    }

    /// The time in whole milliseconds, as tokens and records carry it.
    pub fn now(&self) -> DateTime<Utc> {
        self.clock.now().trunc_subsecs(3)
    }

    /// Whether this instance knows every line exactly, so that the positions it shows are correct: bucket and journal have
    /// been read, and the lines have the order of their lotteries. Once true, it stays true: the watch keeps it up to date.
    pub fn is_exact(&self) -> bool {
        if self.exact.load(Ordering::Acquire) {
            return true;
        }
        let is_exact = self.memory.is_settled() && self.sales.are_read() && !self.awaits_lottery();
        if is_exact {
            self.exact.store(true, Ordering::Release);
        }
        is_exact
    }

    /// Whether a line does not yet have the order of its lottery.
    fn awaits_lottery(&self) -> bool {
        let now = self.clock.now();
        self.memory.lines().queues().any(|(concert, queue)| {
            let lottery = self.sales.lottery(concert).filter(|lottery| lottery.is_drawn(now));
            lottery.is_some_and(|lottery| !queue.is_in_order(&lottery))
        })
    }

    /// Whether this instance holds the lease, as far as it knows.
    pub fn leads(&self) -> bool {
        self.memory.lines().lease().holder == Some(self.heartbeats.own)
    }

    /// From now on this instance receives heartbeats. It may have missed earlier ones.
    pub fn mark_heartbeat_gap(&self) {
        self.heartbeats.mark_gap(self.memory.now());
    }

    /// Whole seconds until `then`, rounded up; 0 if it is over.
    pub fn seconds_until(&self, then: DateTime<Utc>) -> i64 {
        ((then - self.clock.now()).num_milliseconds().max(0) + 999) / 1_000
    }
}
