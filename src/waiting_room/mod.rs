//! The waiting room: a fair line before each concert, and the gate behind which booking happens.
//!
//! A place in line is a key of the bucket `queue_tokens`, one per concert and user; the revision at which it was first
//! written is the order of arrival. Every instance watches the bucket and keeps all lines in memory, so that a status
//! poll and the gate touch neither NATS nor Postgres. One instance at a time admits, under a lease; `admission/leader.rs`
//! says why the cap holds whatever happens to it. `place/life.rs` is the life of a place as one pure function.
//!
//! ```text
//! join ──compare-and-set──▶ bucket ──watch──▶ memory ──▶ status, gate, rank
//!                             ▲                  │
//!     admission, expiry ──────┤ ◀── the leader ──┤
//!     first use, hold, end ───┘ ◀── the writer ──┘ promises
//! ```

mod join;
mod admission;
mod following;
mod telling;
mod hall;
mod pass;
mod sale;
mod status;
mod hearing;
mod journal;
mod line;
mod place;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use chrono::{DateTime, Utc};
use futures::{FutureExt, Stream};
use sqlx::PgPool;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use self::admission::{lease, restoration, scheduler};
use self::following::{openings, payments, refresh, reports, strain, watch, writer};
use self::hall::Hall;
use self::pass::{Judged, identify_for};
use self::telling::overview;
use crate::background::Tasks;
use crate::bus::Bus;
use crate::clock::Clock;
use crate::ids::{self, ConcertId, UserId};
use crate::operations::queues::{self, By, ChangeError};
use crate::store;
use crate::store::queue::{QueueSettings, SettingsChange};

pub use self::hall::{RoomError, Sessions};
pub use self::join::Joined;
pub use self::line::Draw;
pub use self::pass::{PassState, Refused};
pub use self::place::{Claims, Signer};
pub use self::sale::{Brake, BrakeState, Limits as BrakeLimits};
pub use self::status::{Inventory, Phase, QueueToken, Status};
pub use self::telling::overview::{QueueOverview, SaleView};

/// How long [`WaitingRoom::end`] waits until the end is written.
const WRITTEN: Duration = Duration::from_secs(1);
/// How often a stream of changes looks, between the changes it is told of.
const LOOK: Duration = Duration::from_secs(1);
/// How many looks there are at most in the pause that was told, however much happens in all the lines: in front ten in a
/// second, at the back one.
const BREATHS: u64 = 12;

/// The lines of all concerts, in memory, on every instance.
#[derive(Debug)]
pub struct WaitingRoom {
    hall: Arc<Hall>,
    pool: PgPool,
    tasks: Tasks,
}

impl WaitingRoom {
    /// Starts to follow the bucket of places. `signer` signs the tokens, with the same secret on every instance.
    pub fn start(
        bus: Bus,
        pool: PgPool,
        clock: Clock,
        sessions: Sessions,
        signer: Signer,
        tasks: &Tasks,
        stop: CancellationToken,
    ) -> Arc<Self> {
        let hall = Arc::new(Hall {
            bucket: place::Bucket::new(bus.clone()),
            bus,
            sales: sale::Sales::new(pool.clone(), clock.clone()),
            journal: journal::Journal::new(pool.clone()),
            clock,
            sessions,
            signer,
            memory: line::Memory::new(sessions.silence),
            promises: pass::Promises::new(sessions.session_max),
            hearing: hearing::Hearing::new(ids::new()),
            brakes: sale::Brakes::new(),
            stalls: sale::Stalls::default(),
            turn: Notify::new(),
            reread: Notify::new(),
            openings: Notify::new(),
            doubt: Notify::new(),
            exact: AtomicBool::new(false),
            stop,
        });
        let room = Arc::new(Self { hall, pool, tasks: tasks.clone() });
        room.supervise("places", |hall| async move { watch::run(&hall).await });
        room.supervise("writes of places", |hall| async move { writer::run(&hall).await });
        room.supervise("settings of lines", |hall| async move { refresh::run(&hall).await });
        room.supervise("changed settings of lines", |hall| async move { refresh::listen(&hall).await });
        room.supervise("openings", |hall| async move { openings::run(&hall).await });
        room.supervise("heartbeats", |hall| async move { reports::tell(&hall).await });
        room.supervise("new buckets", |hall| async move { watch::listen(&hall).await });
        room.supervise("readiness of lines", |hall| async move { restoration::settle(&hall).await });
        room
    }

    /// Takes part in admission, expiry and ending sessions after payments: for the scheduler role.
    pub fn run_admission(&self, brake: BrakeLimits) {
        self.supervise("admission", |hall| async move { scheduler::admit(&hall).await });
        self.supervise("tidying of lines", {
            let tasks = self.tasks.clone();
            |hall| async move { scheduler::tidy_on_the_minute(&hall, &tasks).await }
        });
        self.supervise("traces of ended places", |hall| async move { scheduler::clear_traces(&hall).await });
        self.supervise("ends of sessions", |hall| async move { payments::run(&hall).await });
        self.supervise("heartbeats of others", |hall| async move { reports::listen(&hall).await });
        self.supervise("load of others", |hall| async move { strain::listen(&hall).await });
        self.supervise("throttle", move |hall| async move { strain::decide(&hall, &brake).await });
    }

    /// Tells whoever admits how long holds take here: for the API role.
    pub fn report_holds(&self, every: Duration) {
        self.supervise("load", move |hall| async move { strain::report(&hall, every).await });
    }

    /// Notes how long the answer to a hold took.
    pub fn note_hold(&self, took: Duration) {
        self.hall.brakes.note_hold(took);
    }

    fn supervise<F: Future<Output = ()> + Send + 'static>(
        &self,
        name: &'static str,
        task: impl FnOnce(Arc<Hall>) -> F,
    ) {
        self.tasks.supervise(name, task(Arc::clone(&self.hall)));
    }

    /// Whether this instance knows every line exactly, and its sale. Until then it must not be given requests, and shows no
    /// positions: it has not been told all yet, or NATS has lost the lines and they have not been restored.
    pub fn ready(&self) -> bool {
        self.hall.is_exact()
    }

    /// Whether NATS can be reached this moment. While it cannot, nobody joins and nobody is admitted; all else goes on from memory.
    pub fn is_connected(&self) -> bool {
        self.hall.is_connected()
    }

    /// Takes a place in the line of a concert; asking again gives the same place.
    pub async fn join(&self, user: UserId, concert: ConcertId) -> Result<Joined, RoomError> {
        join::join(&self.hall, user, concert).await
    }

    /// The same, by somebody who has a token already. If NATS has lost its place since, this brings it back.
    pub async fn join_again(
        &self,
        user: UserId,
        concert: ConcertId,
        token: Option<&str>,
    ) -> Result<Joined, RoomError> {
        if let Ok(claims) = identify_for(&self.hall.signer, token, user, concert) {
            join::bring_back(&self.hall, &claims).await;
        }
        self.join(user, concert).await
    }

    /// Reads a token that needs no gate: rightly signed, and this user's.
    pub fn identify(&self, token: Option<&str>, user: UserId) -> Result<Claims, Refused> {
        pass::identify(&self.hall.signer, token, user)
    }

    /// A place as it stands now; touches neither NATS nor Postgres.
    pub fn look(&self, claims: &Claims) -> QueueToken {
        self.hall.look(claims, None)
    }

    /// The same for whoever sends the token of the place.
    pub fn ask(&self, token: Option<&str>, user: UserId) -> Result<QueueToken, Refused> {
        let claims = self.identify(token, user)?;
        Ok(self.hall.look(&claims, token))
    }

    /// The place at once and then whenever it changes, at most once per `poll_after_ms`; ends with its end.
    pub fn changes(&self, claims: Claims) -> impl Stream<Item = QueueToken> + Send + use<> {
        let hall = Arc::clone(&self.hall);
        futures::stream::unfold(None, move |last: Option<QueueToken>| {
            next_change(Arc::clone(&hall), claims.clone(), last)
                .map(|next| next.map(|now| (now.clone(), Some(now))))
        })
    }

    /// Whether this token lets this user book at this concert. The first pass begins the session.
    pub fn pass(&self, token: Option<&str>, user: UserId, concert: ConcertId) -> Result<Claims, Refused> {
        let hall = &self.hall;
        let claims = identify_for(&hall.signer, token, user, concert)?;
        match hall.judge(&claims) {
            Judged::Active { used: true, .. } => Ok(claims),
            Judged::Active { used: false, .. } => {
                hall.promises.begin_session(&claims, hall.now() + hall.sessions.session);
                Ok(claims)
            }
            Judged::Waiting { .. } => Err(Refused::Waiting),
            Judged::Over { .. } => Err(Refused::Expired),
        }
    }

    /// The same for a payment, where a live hold is a pass of its own: signature, user and concert must be right.
    pub fn pass_for_payment(
        &self,
        token: Option<&str>,
        user: UserId,
        concert: ConcertId,
    ) -> Result<PassState, Refused> {
        match self.pass(token, user, concert) {
            Ok(claims) => Ok(PassState::Live(claims)),
            Err(refused @ (Refused::Waiting | Refused::Expired)) => {
                Ok(PassState::NotLive(identify_for(&self.hall.signer, token, user, concert)?, refused))
            }
            Err(refused) => Err(refused),
        }
    }

    /// Keeps the session of this user alive until `until`, the end of a hold, but not for longer than
    /// [`Sessions::session_max`] after its admission. Does not wait.
    pub fn extend_to(&self, user: UserId, concert: ConcertId, until: DateTime<Utc>) {
        let known = self.hall.memory.view(concert, user).entry.map(|entry| entry.place);
        self.hall.promises.hold((concert, user), known, until);
    }

    /// Ends this place (and no later one of the same user): after a payment, or given up. It is refused here at once
    /// and elsewhere within a moment; this waits a little (at most 1 s) until it is written down.
    pub async fn end(&self, claims: &Claims) {
        let patience = if self.hall.is_connected() { WRITTEN } else { Duration::ZERO };
        self.hall.end(claims, patience).await;
    }

    /// How a concert's sale stands, for everybody; at most about a second old.
    pub async fn sale(&self, concert: ConcertId) -> Result<SaleView, RoomError> {
        overview::sale(&self.hall, concert).await
    }

    /// Every concert's line, with its settings as Postgres has them now.
    pub async fn overview_now(&self) -> Result<Vec<QueueOverview>, RoomError> {
        self.hall.sales.refresh(Vec::new()).await.map_err(|_| RoomError::Unavailable)?;
        Ok(self.overview())
    }

    /// Every concert's line. Needs no database.
    pub fn overview(&self) -> Vec<QueueOverview> {
        overview::all(&self.hall)
    }

    /// One concert's line.
    pub async fn overview_of(&self, concert: ConcertId) -> Result<QueueOverview, RoomError> {
        overview::one(&self.hall, concert).await
    }

    /// Whether anybody admits: the lease is held, and this instance has seen it renewed lately.
    pub fn is_led(&self) -> bool {
        let lease = self.hall.memory.lines().lease();
        lease.holder.is_some() && lease.since.elapsed() < lease::LAPSE
    }

    /// The settings of a concert's line.
    pub async fn settings(&self, concert: ConcertId) -> Result<QueueSettings, RoomError> {
        let settings = store::queue::get(&self.pool, concert).await.map_err(|error| away(&error))?;
        settings.ok_or(RoomError::NotFound)
    }

    /// Changes settings, in force on every instance within a second, and writes it down.
    pub async fn change_settings(
        &self,
        concert: ConcertId,
        change: &SettingsChange,
        by: By<'_>,
    ) -> Result<QueueSettings, ChangeError> {
        let settings = queues::change(&self.pool, concert, change, by).await?;
        refresh::announce(&self.hall, settings.clone()).await;
        Ok(settings)
    }

    /// Admits the next `count` in line now: beyond the rate, never beyond the cap; and writes it down. Answers how many it
    /// were.
    pub async fn admit(&self, concert: ConcertId, count: u32, by: By<'_>) -> Result<u32, RoomError> {
        self.settings(concert).await?;
        let admitted = scheduler::ask(&self.hall, concert, count).await?;
        if let Err(error) = queues::record_admission(&self.pool, concert, count, admitted, by).await {
            // They are in, and cannot be sent back.
            tracing::error!(%error, %concert, admitted, actor = by.actor, "an act was not written down");
        }
        Ok(admitted)
    }
}

/// The next state of a place worth telling; nothing after its end.
async fn next_change(hall: Arc<Hall>, claims: Claims, last: Option<QueueToken>) -> Option<QueueToken> {
    let Some(last) = last else {
        return Some(hall.look(&claims, None));
    };
    if last.status == Status::Expired {
        return None;
    }
    let mut seen = hall.memory.subscribe();
    tokio::time::sleep(Duration::from_millis(last.poll_after_ms)).await;
    let breath = Duration::from_millis(last.poll_after_ms / BREATHS).min(LOOK);
    loop {
        let now = hall.look(&claims, None);
        if differs(&now, &last) {
            return Some(now);
        }
        // A session's end by the clock is told by nobody.
        let _ = tokio::time::timeout(LOOK, seen.changed()).await;
        tokio::time::sleep(breath).await;
    }
}

/// Whether a client would see a difference that is not just the passing of time.
fn differs(now: &QueueToken, before: &QueueToken) -> bool {
    let seen = |token: &QueueToken| {
        (token.status, token.phase, token.inventory, token.position, token.expires_at, token.grace_until)
    };
    seen(now) != seen(before) || now.token != before.token || now.opens_at != before.opens_at
}

fn away(error: &sqlx::Error) -> RoomError {
    tracing::warn!(%error, "the settings of a line cannot be read or changed");
    RoomError::Unavailable
}
