//! The waiting room: a fair line before each concert, and the gate behind which booking happens.
//!
//! A place in line is a key of the bucket `queue_tokens`, one for each concert and user. The revision of its first write is
//! the order of arrival. Every instance watches the bucket and keeps all lines in memory, so that a status poll and the
//! gate touch neither NATS nor Postgres. One instance at a time admits, under a lease; `admission/leader.rs` explains why
//! the cap always holds. `place/life.rs` is the life of a place as one pure function.
//!
//! ```text
//! join ──compare-and-set──▶ bucket ──watch──▶ memory ──▶ status, gate, rank
//!                             ▲                  │
//!     admission, expiry ──────┤ ◀── the leader ──┤
//!     first use, hold, end ───┘ ◀── the writer ──┘ pending writes
//! ```
//!
//! | module | what it does |
//! |---|---|
//! | `join` | takes a place |
//! | `admission` | what one instance does under the lease: admit, expire, restore a lost line |
//! | `tasks` | what every instance does in the background |
//! | `views` | a place for its owner, a line for operators |
//! | `room_state` | the state that these parts share |
//! | `gate` | checks tokens, and keeps the changes that are still to be written |
//! | `sale` | settings and stock of each sale, throttle, stall detector |
//! | `line` | all lines in memory |
//! | `place` | one place: its life, its record in the bucket, its token |

mod join;
mod admission;
mod tasks;
mod views;
mod room_state;
mod gate;
mod sale;
mod queue_token;
mod heartbeats;
mod journal;
mod line;
mod place;

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use futures::{FutureExt, Stream};
use sqlx::PgPool;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use self::admission::{lease, scheduler};
use self::gate::{PlaceState, identify_for};
use self::room_state::{AdmissionState, GateState, NatsSide, RoomState};
use self::tasks::{
    bucket_watch, load_feedback, lottery_draw, payment_events, readiness, reload_settings, write_pending,
};
use self::views::overview;
use crate::background::Tasks;
use crate::bus::{Bus, subjects};
use crate::clock::Clock;
use crate::ids::{ConcertId, UserId};
use crate::operations::queues::{self, By, ChangeError};
use crate::store;
use crate::store::queue::{QueueSettings, SettingsChange};

pub use self::gate::{PassState, Refused};
pub use self::join::Joined;
pub use self::line::Draw;
pub use self::place::{Claims, STREAM_KEY_TTL, Signer, StreamKey};
pub use self::queue_token::{Inventory, Phase, QueueToken, Status};
pub use self::room_state::{RoomError, Sessions};
pub use self::sale::{Limits as ThrottleLimits, Throttle, ThrottleState};
pub use self::views::overview::{QueueOverview, SaleView};

/// How long [`WaitingRoom::end`] waits for the write.
const END_TIMEOUT: Duration = Duration::from_secs(1);
/// How often a stream checks for a change that causes no event, such as a session that expires.
const STREAM_CHECK_INTERVAL: Duration = Duration::from_secs(1);
/// Limit of the checks of one stream within its poll interval, however often the lines change.
const MAX_CHECKS_PER_POLL: u64 = 12;

/// The lines of all concerts, in memory, on every instance.
#[derive(Debug)]
pub struct WaitingRoom {
    room: Arc<RoomState>,
    pool: PgPool,
    tasks: Tasks,
}

impl WaitingRoom {
    /// Starts the background tasks of every instance. All instances share the secret of `signer`.
    pub fn start(
        bus: Bus,
        pool: PgPool,
        clock: Clock,
        sessions: Sessions,
        signer: Signer,
        tasks: &Tasks,
        stop: CancellationToken,
    ) -> Arc<Self> {
        let room = RoomState::new(
            NatsSide::new(bus),
            sale::Sales::new(pool.clone(), clock.clone()),
            clock,
            sessions,
            GateState { signer, pending: gate::PendingWrites::new(sessions.session_max) },
            AdmissionState {
                journal: journal::Journal::new(pool.clone()),
                throttles: sale::Throttles::new(),
                stalls: sale::StallDetector::default(),
            },
            stop,
        );
        let this = Arc::new(Self { room: Arc::new(room), pool, tasks: tasks.clone() });
        this.supervise("watch of places", |room| async move { bucket_watch::run(&room).await });
        this.supervise("writes of places", |room| async move { write_pending::run(&room).await });
        this.supervise("queue settings", |room| async move { reload_settings::run(&room).await });
        this.supervise("changes of queue settings", |room| async move {
            room.nats.wake_on(subjects::QUEUE_SETTINGS, &room.wakeups.reload_settings, &room.stop).await;
        });
        this.supervise("lotteries", |room| async move { lottery_draw::run(&room).await });
        this.supervise("heartbeats", |room| async move { tasks::heartbeats::send(&room).await });
        this.supervise("new buckets", |room| async move {
            room.nats.wake_on(subjects::QUEUE_BUCKET, &room.wakeups.recheck_watch, &room.stop).await;
        });
        this.supervise("readiness of lines", |room| async move { readiness::run(&room).await });
        this
    }

    /// Starts the tasks of the scheduler role: admission, expiry, and ending sessions after payments.
    pub fn run_admission(&self, limits: ThrottleLimits) {
        self.supervise("admission", |room| async move { scheduler::admit(&room).await });
        self.supervise("expiry of places", {
            let tasks = self.tasks.clone();
            |room| async move { scheduler::expire_on_the_minute(&room, &tasks).await }
        });
        self.supervise("delete markers", |room| async move { scheduler::clear_markers(&room).await });
        self.supervise("ends of sessions", |room| async move { payment_events::run(&room).await });
        self.supervise("heartbeats of other instances", |room| async move {
            tasks::heartbeats::receive(&room).await;
        });
        self.supervise("load of other instances", |room| async move { load_feedback::receive(&room).await });
        self.supervise("throttle", move |room| async move { load_feedback::decide(&room, &limits).await });
    }

    /// Starts to report the duration of holds to the leader, for the API role.
    pub fn report_holds(&self, interval: Duration) {
        self.supervise("load", move |room| async move { load_feedback::send(&room, interval).await });
    }

    /// Records how long a request for a hold took.
    pub fn record_hold(&self, took: Duration) {
        self.room.admission.throttles.record_hold(took);
    }

    fn supervise<F: Future<Output = ()> + Send + 'static>(
        &self,
        name: &'static str,
        task: impl FnOnce(Arc<RoomState>) -> F,
    ) {
        self.tasks.supervise(name, task(Arc::clone(&self.room)));
    }

    /// Whether this instance knows every line and sale exactly. Until then it shows no positions and must get no requests.
    pub fn ready(&self) -> bool {
        self.room.is_exact()
    }

    /// Whether NATS can be reached now. While it cannot, joins fail and admission stops; all else works from memory.
    pub fn is_connected(&self) -> bool {
        self.room.nats.is_connected()
    }

    /// Takes a place in the line of a concert. A repeated call returns the same place.
    pub async fn join(&self, user: UserId, concert: ConcertId) -> Result<Joined, RoomError> {
        join::join(&self.room, user, concert).await
    }

    /// Like [`Self::join`], for a user who may already have a token. If NATS has lost its place, the place is restored.
    pub async fn join_again(
        &self,
        user: UserId,
        concert: ConcertId,
        token: Option<&str>,
    ) -> Result<Joined, RoomError> {
        if let Ok(claims) = identify_for(&self.room.gate.signer, token, user, concert) {
            join::restore_place(&self.room, &claims).await;
        }
        self.join(user, concert).await
    }

    /// Reads a token, and checks its signature and its user, but not the state of its place.
    pub fn identify(&self, token: Option<&str>, user: UserId) -> Result<Claims, Refused> {
        gate::identify(&self.room.gate.signer, token, user)
    }

    /// A key for the event stream of this place, under this id.
    pub fn stream_key(&self, place: Claims, id: Uuid) -> String {
        self.room.gate.signer.sign_stream_key(&StreamKey { place, id, issued_at: self.room.now() })
    }

    /// What a stream key says, if its signature is ours. It may be over.
    pub fn read_stream_key(&self, text: &str) -> Option<StreamKey> {
        self.room.gate.signer.read_stream_key(text)
    }

    /// Whether the time of a stream key is over.
    pub fn is_stream_key_over(&self, key: &StreamKey) -> bool {
        key.is_over(self.room.now())
    }

    /// A place as it is now, from memory.
    pub fn look(&self, claims: &Claims) -> QueueToken {
        self.room.look(claims, None)
    }

    /// The place of this token as it is now, from memory.
    pub fn ask(&self, token: Option<&str>, user: UserId) -> Result<QueueToken, Refused> {
        let claims = self.identify(token, user)?;
        Ok(self.room.look(&claims, token))
    }

    /// The place now and whenever it changes, at most once per `poll_after_ms`. The stream ends with the place.
    pub fn changes(&self, claims: Claims) -> impl Stream<Item = QueueToken> + Send + use<> {
        let room = Arc::clone(&self.room);
        futures::stream::unfold(None, move |last: Option<QueueToken>| {
            next_change(Arc::clone(&room), claims.clone(), last)
                .map(|next| next.map(|now| (now.clone(), Some(now))))
        })
    }

    /// The gate: whether this token lets this user book at this concert. The first pass begins the session.
    pub fn pass(&self, token: Option<&str>, user: UserId, concert: ConcertId) -> Result<Claims, Refused> {
        let room = &self.room;
        let claims = identify_for(&room.gate.signer, token, user, concert)?;
        match room.check(&claims) {
            PlaceState::Active { used: true, .. } => Ok(claims),
            PlaceState::Active { used: false, .. } => {
                room.gate.pending.begin_session(&claims, room.now() + room.sessions.session);
                Ok(claims)
            }
            PlaceState::Waiting { .. } => Err(Refused::Waiting),
            PlaceState::Ended { .. } => Err(Refused::Expired),
        }
    }

    /// The gate for a payment. Signature, user and concert must match; a place that is not active pays only for a live
    /// hold, which the caller checks.
    pub fn pass_for_payment(
        &self,
        token: Option<&str>,
        user: UserId,
        concert: ConcertId,
    ) -> Result<PassState, Refused> {
        match self.pass(token, user, concert) {
            Ok(claims) => Ok(PassState::Live(claims)),
            Err(refused @ (Refused::Waiting | Refused::Expired)) => {
                let claims = identify_for(&self.room.gate.signer, token, user, concert)?;
                Ok(PassState::NotLive(claims, refused))
            }
            Err(refused) => Err(refused),
        }
    }

    /// Extends the session of this user to `until`, the end of a hold, but not beyond [`Sessions::session_max`] after its
    /// admission. Does not wait for the write.
    pub fn extend_to(&self, user: UserId, concert: ConcertId, until: DateTime<Utc>) {
        let known = self.room.memory.view(concert, user).entry.map(|entry| entry.place);
        self.room.gate.pending.hold((concert, user), known, until);
    }

    /// Ends this place, and no later one of the same user: after a payment, or because its owner gives it up. This instance
    /// refuses it at once, the others within a second. Waits at most a second for the write.
    pub async fn end(&self, claims: &Claims) {
        let timeout = if self.room.nats.is_connected() { END_TIMEOUT } else { Duration::ZERO };
        self.room.end(claims, timeout).await;
    }

    /// The public view of a concert's sale, at most about a second old.
    pub async fn sale(&self, concert: ConcertId) -> Result<SaleView, RoomError> {
        overview::sale(&self.room, concert).await
    }

    /// Every concert's line, with its settings read from Postgres now.
    pub async fn overview_now(&self) -> Result<Vec<QueueOverview>, RoomError> {
        self.room.sales.refresh(Vec::new()).await.map_err(|_| RoomError::Unavailable)?;
        Ok(self.overview())
    }

    /// Every concert's line, from memory.
    pub fn overview(&self) -> Vec<QueueOverview> {
        overview::all(&self.room)
    }

    pub async fn overview_of(&self, concert: ConcertId) -> Result<QueueOverview, RoomError> {
        overview::one(&self.room, concert).await
    }

    /// Whether an instance leads: the lease is held, and this instance has seen it renewed lately.
    pub fn is_led(&self) -> bool {
        let lease = self.room.memory.lines().lease();
        lease.holder.is_some() && lease.since.elapsed() < lease::LEASE_TTL
    }

    pub async fn settings(&self, concert: ConcertId) -> Result<QueueSettings, RoomError> {
        let settings = store::queue::get(&self.pool, concert).await.map_err(|error| unavailable(&error))?;
        settings.ok_or(RoomError::NotFound)
    }

    /// Changes the settings of a concert's line, with a record of who did it. Every instance applies them within a second.
    pub async fn change_settings(
        &self,
        concert: ConcertId,
        change: &SettingsChange,
        by: By<'_>,
    ) -> Result<QueueSettings, ChangeError> {
        let settings = queues::change(&self.pool, concert, change, by).await?;
        reload_settings::announce(&self.room, settings.clone()).await;
        Ok(settings)
    }

    /// Admits the next `count` users now: faster than the rate, but never above the cap. Returns how many were admitted.
    pub async fn admit(&self, concert: ConcertId, count: u32, by: By<'_>) -> Result<u32, RoomError> {
        self.settings(concert).await?;
        let admitted = scheduler::ask(&self.room, concert, count).await?;
        if let Err(error) = queues::record_admission(&self.pool, concert, count, admitted, by).await {
            // The admissions cannot be taken back.
            tracing::error!(
                %error, %concert, admitted, actor = by.actor,
                "recording an operator's admission failed; the users stay admitted"
            );
        }
        Ok(admitted)
    }
}

/// Waits for the next state of a place that a client has to see; `None` after its end.
async fn next_change(room: Arc<RoomState>, claims: Claims, last: Option<QueueToken>) -> Option<QueueToken> {
    let Some(last) = last else {
        return Some(room.look(&claims, None));
    };
    if last.status == Status::Expired {
        return None;
    }
    let mut seen = room.memory.subscribe();
    tokio::time::sleep(Duration::from_millis(last.poll_after_ms)).await;
    let pause = Duration::from_millis(last.poll_after_ms / MAX_CHECKS_PER_POLL).min(STREAM_CHECK_INTERVAL);
    loop {
        let now = room.look(&claims, None);
        if differs(&now, &last) {
            return Some(now);
        }
        // A session that expires causes no event.
        let _ = tokio::time::timeout(STREAM_CHECK_INTERVAL, seen.changed()).await;
        tokio::time::sleep(pause).await;
    }
}

/// Whether a client would see more than the passing of time.
fn differs(now: &QueueToken, before: &QueueToken) -> bool {
    let seen = |token: &QueueToken| {
        (token.status, token.phase, token.inventory, token.position, token.expires_at, token.grace_until)
    };
    seen(now) != seen(before) || now.token != before.token || now.opens_at != before.opens_at
}

fn unavailable(error: &sqlx::Error) -> RoomError {
    tracing::warn!(%error, "reading or changing queue settings failed");
    RoomError::Unavailable
}
