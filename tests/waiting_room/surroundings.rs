//! Instances of the waiting room with one nats-server, a concert, and a witness that reads the bucket independently.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use boxoffice::background::Tasks;
use boxoffice::bus::{self, Bus, subjects, topology};
use boxoffice::clock::Clock;
use boxoffice::ids;
use boxoffice::operations::queues::By;
use boxoffice::store::catalog::{NewConcert, Performance, SeatRange, insert_concert, insert_performance};
use boxoffice::store::queue::SettingsChange;
use boxoffice::waiting_room::{
    Claims, Joined, QueueToken, RoomError, Sessions, Signer, Status, ThrottleLimits, WaitingRoom,
};
use chrono::{DateTime, TimeDelta, Utc};
use futures::StreamExt;
use futures::future::join_all;
use serde_json::Value;
use sqlx::postgres::{PgPool, PgPoolOptions};
use tokio::runtime::{Handle, Runtime};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::common::Env;

/// The actor of changed settings.
pub const TESTER: By<'static> = By { actor: "tester", reason: "a test" };

pub const SECRET: &str = "a secret that all instances of a test share";

/// Long enough that nothing expires during a test.
pub const LONG: Sessions = Sessions {
    session: Duration::from_secs(600),
    session_max: Duration::from_secs(1_800),
    claim: Duration::from_secs(60),
    silence: Duration::from_secs(60),
    grace: Duration::from_secs(180),
};

/// The waiting room of one process. Dropping it without [`Instance::stop`] acts like a kill.
pub struct Instance {
    pub room: Arc<WaitingRoom>,
    stop: CancellationToken,
    tasks: Tasks,
    runtime: Option<Runtime>,
}

impl Instance {
    /// An instance with its own runtime, so that it can be killed. A `scheduler` takes part in admission.
    pub async fn start(nats_url: &str, pool: &PgPool, sessions: Sessions, scheduler: bool) -> Self {
        Self::with_replicas(nats_url, pool, sessions, scheduler, 1).await
    }

    pub async fn with_replicas(
        nats_url: &str,
        pool: &PgPool,
        sessions: Sessions,
        scheduler: bool,
        replicas: u8,
    ) -> Self {
        let instance = Self::begin_with(nats_url, pool, sessions, scheduler, replicas).await;
        until("the instance knows the line", || instance.room.ready()).await;
        instance
    }

    /// Like [`Self::start`], without waiting until the line is known.
    pub async fn begin(nats_url: &str, pool: &PgPool, sessions: Sessions, scheduler: bool) -> Self {
        Self::begin_with(nats_url, pool, sessions, scheduler, 1).await
    }

    async fn begin_with(
        nats_url: &str,
        pool: &PgPool,
        sessions: Sessions,
        scheduler: bool,
        replicas: u8,
    ) -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let stop = CancellationToken::new();
        let tasks = Tasks::new(&stop);
        let (url, database) = (nats_url.to_owned(), pool.connect_options());
        let (inner_stop, inner_tasks) = (stop.clone(), tasks.clone());
        let starting = runtime.spawn(async move {
            let bus = bus::connect(&url, "waiting room under test", replicas).await.unwrap();
            topology::ensure_with_bucket(&bus).await.unwrap();
            // A pool of its own, because connections end with the runtime that made them.
            let pool = PgPoolOptions::new().connect_lazy_with((*database).clone());
            let clock = Clock::default();
            let room = WaitingRoom::start(
                bus,
                pool,
                clock,
                sessions,
                Signer::new(SECRET.as_bytes()),
                &inner_tasks,
                inner_stop,
            );
            if scheduler {
                room.run_admission(ThrottleLimits::default());
            }
            room
        });
        let room = starting.await.unwrap();
        Self { room, stop, tasks, runtime: Some(runtime) }
    }

    /// Stops like after SIGTERM.
    pub async fn stop(self) {
        self.stop.cancel();
        tokio::time::timeout(Duration::from_secs(5), self.tasks.wait()).await.expect("it stops in time");
    }

    pub async fn join(&self, user: Uuid, concert: Uuid) -> Joined {
        self.try_join(user, concert).await.unwrap()
    }

    pub async fn try_join(&self, user: Uuid, concert: Uuid) -> Result<Joined, RoomError> {
        let room = Arc::clone(&self.room);
        let runtime = self.runtime.as_ref().expect("it is running");
        runtime.spawn(async move { room.join(user, concert).await }).await.unwrap()
    }

    /// Joins with an earlier token.
    pub async fn join_again(&self, user: Uuid, concert: Uuid, token: &str) -> Joined {
        let (room, token) = (Arc::clone(&self.room), token.to_owned());
        let runtime = self.runtime.as_ref().expect("it is running");
        runtime
            .spawn(async move { room.join_again(user, concert, Some(&token)).await })
            .await
            .unwrap()
            .unwrap()
    }

    /// The runtime of its tasks.
    pub fn handle(&self) -> Handle {
        self.runtime.as_ref().expect("it is running").handle().clone()
    }

    /// Joins one after the other, and returns the places in order.
    pub async fn join_many(&self, concert: Uuid, count: usize) -> Vec<Claims> {
        let mut places = Vec::new();
        for _ in 0..count {
            let user = ids::new();
            places.push(self.claims(&self.join(user, concert).await.token));
        }
        places
    }

    pub fn claims(&self, token: &QueueToken) -> Claims {
        self.room.identify(Some(&token.token), token.user_id).unwrap()
    }

    pub fn status(&self, claims: &Claims) -> Status {
        self.room.look(claims).status
    }

    pub fn position(&self, claims: &Claims) -> Option<u64> {
        self.room.look(claims).position
    }

    pub async fn until_active(&self, claims: &Claims) {
        until("a place becomes active", || self.status(claims) == Status::Active).await;
    }

    pub async fn change(&self, concert: Uuid, change: SettingsChange) {
        self.room.change_settings(concert, &change, TESTER).await.unwrap();
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// A concert on sale with 50 seats.
pub async fn concert(pool: &PgPool, max_active: i32, admit_per_minute: i32) -> Uuid {
    let concert = empty_concert(pool, max_active, admit_per_minute).await;
    performance(pool, concert, TimeDelta::days(1)).await;
    concert
}

pub async fn empty_concert(pool: &PgPool, max_active: i32, admit_per_minute: i32) -> Uuid {
    let id = ids::new();
    let name = format!("concert {id}");
    let new = NewConcert { id, name: &name, description: "", max_active, admit_per_minute };
    insert_concert(&mut pool.acquire().await.unwrap(), &new).await.unwrap();
    id
}

/// A date of 50 seats whose sale closes in `closes_in`.
pub async fn performance(pool: &PgPool, concert: Uuid, closes_in: TimeDelta) -> Uuid {
    let now = Utc::now();
    performance_from(pool, concert, now - TimeDelta::days(1), now + closes_in).await
}

/// A date of 50 seats with this window.
pub async fn performance_from(
    pool: &PgPool,
    concert: Uuid,
    opens: DateTime<Utc>,
    closes: DateTime<Utc>,
) -> Uuid {
    let id = ids::new();
    let performance = Performance {
        id,
        concert_id: concert,
        venue: "hall".to_owned(),
        starts_at: Utc::now() + TimeDelta::days(2),
        duration_minutes: 90,
        sale_opens_at: opens,
        sale_closes_at: closes,
        seats_total: 50,
    };
    let seats = [SeatRange { from: 1, to: 50, section: "A".to_owned(), price: 10 }];
    insert_performance(&mut pool.acquire().await.unwrap(), &performance, &seats).await.unwrap();
    id
}

/// Adds a user to a line that does not move: no instance leads while all lines are empty.
pub async fn add_waiting_user(instance: &Instance, pool: &PgPool) {
    let closed = concert(pool, 0, 60).await;
    instance.join_many(closed, 1).await;
}

pub async fn until(what: &str, condition: impl FnMut() -> bool) {
    within(Duration::from_secs(15), what, condition).await;
}

/// Waits until a condition holds and returns how long it took. Fails after `patience`.
pub async fn within(patience: Duration, what: &str, mut condition: impl FnMut() -> bool) -> Duration {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < patience, "it takes more than {patience:?} until {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    start.elapsed()
}

pub async fn join_at_once(instances: &[&Instance], users: &[Uuid], concert: Uuid) -> Vec<Joined> {
    let joins =
        users.iter().flat_map(|user| instances.iter().map(move |instance| instance.join(*user, concert)));
    join_all(joins).await
}

/// Follows the bucket without the code of the waiting room: which users are active after each message.
#[derive(Clone, Default)]
pub struct Witness {
    seen: Arc<Mutex<Testimony>>,
}

#[derive(Default)]
pub struct Testimony {
    active: BTreeMap<String, u64>,
    /// The largest number of active users.
    pub most: usize,
    /// The places in the order of their admission.
    pub admitted: Vec<u64>,
    /// The holders of the lease, in order.
    pub leaders: Vec<String>,
    /// How often the lease was written.
    pub renewals: usize,
}

impl Witness {
    pub async fn start(bus: &Bus) -> Self {
        let witness = Self::default();
        let store = bus.jetstream.get_key_value(subjects::QUEUE_TOKENS).await.unwrap();
        let mut entries = store.watch_with_history(">").await.unwrap();
        let seen = Arc::clone(&witness.seen);
        tokio::spawn(async move {
            while let Some(entry) = entries.next().await {
                let Ok(entry) = entry else { continue };
                let value: Value = serde_json::from_slice(&entry.value).unwrap_or_default();
                seen.lock().unwrap().note(&entry.key, &value);
            }
        });
        witness
    }

    /// Waits for the next renewal of the lease. For most of a second the leader then writes nothing but admissions.
    pub async fn renewal(&self) {
        let before = self.ask(|seen| seen.renewals);
        until("the lease is renewed", || self.ask(|seen| seen.renewals) > before).await;
    }

    pub fn ask<T>(&self, question: impl FnOnce(&Testimony) -> T) -> T {
        question(&self.seen.lock().unwrap())
    }
}

impl Testimony {
    pub fn active(&self) -> usize {
        self.active.len()
    }

    fn note(&mut self, key: &str, value: &Value) {
        if key == subjects::QUEUE_LEASE {
            self.renewals += 1;
            let holder = value["holder"].as_str().unwrap_or("none").to_owned();
            if self.leaders.last() != Some(&holder) {
                self.leaders.push(holder);
            }
        } else if value["status"] == "active" {
            let place = value["place"].as_u64().unwrap();
            if self.active.insert(key.to_owned(), place) != Some(place) {
                self.admitted.push(place);
            }
            self.most = self.most.max(self.active.len());
        } else {
            self.active.remove(key);
        }
    }
}

pub async fn env() -> Env {
    let env = Env::start().await;
    topology::ensure_with_bucket(&env.bus).await.unwrap();
    env
}

/// Kills the nats-server with SIGKILL; [`Env::restart_nats`] starts it again.
pub fn kill_nats(env: &Env) {
    env.kill_nats();
}
