//! The composition root: opens what a process needs, starts the services of its roles, stops them in order.

mod database;
mod listeners;
mod schedule;
mod secrets;
mod time;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use chrono::TimeDelta;
use sqlx::PgPool;
use tokio_util::sync::CancellationToken;

use crate::background::Tasks;
use crate::booking::BookingService;
use crate::bus::{self, Bus, probe, retry, topology};
use crate::clock::Clock;
use crate::config::Settings;
use crate::operations::deployments::deploy_texts;
use crate::orchestrator::{Engine, Pools};
use crate::steps::{self, BookingCache, Limits};
use crate::waiting_room::{Sessions, Signer, ThrottleLimits, WaitingRoom};
use crate::webhooks::{UrlRules, Webhooks};
use crate::{config, ids, store, telemetry, workflows};

pub use database::{migrate, migrate_on};
pub use listeners::Listening;

/// How long a start waits for servers that are not there yet.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long a stop waits for work under way.
const FAREWELL: Duration = Duration::from_secs(10);
/// How long a stop waits for the servers to take the last of it.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// What a process does; any number of processes may have each role.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum Role {
    /// The REST entrance and the gate.
    Api,
    /// Answers of workers, signals, alarms.
    Orchestrator,
    /// Seats, points and tickets.
    Worker,
    /// The sweeper, admission, and what happens by the clock.
    Scheduler,
}

impl Role {
    /// All of them: one process that does everything.
    pub const ALL: [Self; 4] = [Self::Api, Self::Orchestrator, Self::Worker, Self::Scheduler];
}

/// Receives the addresses of the listeners once they are known; an error ends the start.
pub type Announce<'a> = &'a (dyn Fn(Listening) -> anyhow::Result<()> + Sync);

/// A running process.
#[derive(Debug)]
pub struct App {
    pub pool: PgPool,
    pub bus: Bus,
    pub clock: Clock,
    pub engine: Engine,
    pub booking: BookingService,
    pub room: Option<Arc<WaitingRoom>>,
    /// Where buyers and clients are answered, in a process with the role api.
    pub address: Option<SocketAddr>,
    /// Where operators and monitoring are answered; the same address unless they have one of their own.
    pub admin_address: Option<SocketAddr>,
    tasks: Tasks,
    stop: CancellationToken,
}

impl App {
    /// Connects, checks servers and schema, and starts the services of `roles`. The settings must name the servers
    /// and, for the API, the secrets.
    pub async fn start(settings: &Settings, roles: &[Role]) -> anyhow::Result<Self> {
        Self::start_announced(settings, roles, &|_| Ok(())).await
    }

    /// The same. `announce` receives the addresses before the first request is answered there.
    pub async fn start_announced(
        settings: &Settings,
        roles: &[Role],
        announce: Announce<'_>,
    ) -> anyhow::Result<Self> {
        let roles: BTreeSet<Role> = roles.iter().copied().collect();
        if roles.is_empty() {
            bail!("no role was given; choose from api, orchestrator, worker, scheduler");
        }
        let texts = workflows::with_folder(settings.engine.workflows.as_deref())?;
        let servers = &settings.servers;
        let database_url = database::address(settings)?;
        let nats_url = servers.nats_url.as_deref().context("NATS_URL is needed: the address of NATS")?;
        let connections = servers.database_connections;
        let pool = store::open(database_url, connections - connections / 2).context(database::NO_ADDRESS)?;
        let steps = store::open_for_steps(database_url, connections / 2)?;
        database::reach(&pool).await?;
        database::check_schema(&pool).await?;
        deploy_texts(&pool, &texts).await?;
        let bus = connect(settings, nats_url, &roles).await?;
        let stop = CancellationToken::new();
        let tasks = Tasks::new(&stop);
        tasks.supervise("metrics", telemetry::run_upkeep(telemetry::start_metrics(), stop.clone()));
        if let Some(traces) = telemetry::start_traces()? {
            tasks.supervise("traces", traces.run(stop.clone()));
        }
        let clock = Clock::skewed(settings.engine.clock_skew_ms);
        store::correct_clock(&pool, &clock).await?;
        tasks.supervise("clock", time::follow(pool.clone(), clock.clone(), stop.clone()));

        let pools =
            Pools { all: pool.clone(), steps, control: settings.engine.step_control, clock: clock.clone() };
        let cache = BookingCache::default();
        let participants = steps::participants(limits(settings), &cache, &bus).executed_directly();
        let engine = Engine::start(pools, bus.clone(), participants, &tasks, &stop).await?;
        let engine = engine.with_after_act(steps::settle).with_own_workflows(workflows::BUILT_IN_NAMES);
        tasks.supervise("JetStream probe", probe::run(bus.clone(), stop.clone()));
        let booking = BookingService::open(
            pool.clone(),
            engine.clone(),
            cache,
            settings.engine.settle(),
            &tasks,
            &stop,
        );
        let (room, address, admin_address) = (None, None, None);
        let mut app = Self { pool, bus, clock, engine, booking, room, address, admin_address, tasks, stop };
        app.run(settings, &roles, announce).await?;
        let names: Vec<String> = roles.iter().map(|role| format!("{role:?}").to_lowercase()).collect();
        store::operations::record_start(&app.pool, ids::new(), &names).await?;
        for name in &names {
            metrics::gauge!("boxoffice_process_role", "role" => name.clone()).set(1.0);
        }
        tracing::info!(roles = names.join(","), "started");
        Ok(app)
    }

    async fn run(
        &mut self,
        settings: &Settings,
        roles: &BTreeSet<Role>,
        announce: Announce<'_>,
    ) -> anyhow::Result<()> {
        if roles.contains(&Role::Worker) {
            self.engine.serve(&self.tasks, &self.stop);
        }
        if roles.contains(&Role::Orchestrator) {
            self.engine.run(&self.tasks, &self.stop);
        }
        if roles.contains(&Role::Api) || roles.contains(&Role::Scheduler) {
            self.room = Some(self.open_room(settings)?);
        }
        if roles.contains(&Role::Scheduler) {
            if let Some(room) = &self.room {
                room.run_admission(throttle_limits(settings));
            }
            let rules = webhook_rules(settings);
            let webhooks = Webhooks::new(self.pool.clone(), self.bus.clone(), self.clock.clone(), rules)
                .context("webhooks cannot be sent")?;
            self.tasks.supervise("webhooks", webhooks.run(self.stop.clone()));
            let keep = settings.engine.keep();
            schedule::start(&self.engine, &self.booking, &self.clock, keep, &self.tasks, &self.stop).await?;
        }
        if roles.contains(&Role::Api)
            && let Some(room) = &self.room
        {
            room.report_holds(throttle_limits(settings).every);
        }
        listeners::open(self, settings, roles.contains(&Role::Api), announce).await
    }

    fn open_room(&self, settings: &Settings) -> anyhow::Result<Arc<WaitingRoom>> {
        let sessions = Sessions {
            session: Duration::from_secs(settings.queue.queue_session_seconds.into()),
            session_max: Duration::from_secs(settings.queue.queue_session_max_seconds.into()),
            claim: Duration::from_secs(settings.queue.queue_claim_seconds.into()),
            silence: Duration::from_secs(settings.queue.queue_silence_seconds.into()),
            grace: Duration::from_secs(settings.queue.queue_grace_seconds.into()),
        };
        Ok(WaitingRoom::start(
            self.bus.clone(),
            self.pool.clone(),
            self.clock.clone(),
            sessions,
            signer(&settings.http)?,
            &self.tasks,
            self.stop.clone(),
        ))
    }

    /// Returns the name of a background task that is dead: the process must be started again.
    pub async fn task_died(&self) -> &'static str {
        self.tasks.died().await
    }

    /// Stops all services: none takes anything new, what is under way gets a moment to end.
    pub async fn stop(self) {
        self.stop.cancel();
        if tokio::time::timeout(FAREWELL, self.tasks.wait()).await.is_err() {
            tracing::warn!("work under way did not end in time; it goes on after the next start");
        }
        if tokio::time::timeout(CLOSE_TIMEOUT, self.bus.client.flush()).await.is_err() {
            tracing::debug!("the last messages to NATS were not flushed");
        }
        let closed = async { tokio::join!(self.engine.steps.close(), self.pool.close()) };
        if tokio::time::timeout(CLOSE_TIMEOUT, closed).await.is_err() {
            tracing::debug!("the connections to Postgres were not closed in time; they end with the process");
        }
    }
}

/// Signs queue tokens with the current secret, and reads those of all secrets that are named.
fn signer(settings: &config::Http) -> anyhow::Result<Signer> {
    let secret = settings.queue_secret.as_deref();
    let secret = secret.context("BOXOFFICE_QUEUE_SECRET is needed, the same on every instance")?;
    secrets::check(settings)?;
    let previous = settings.queue_previous_secrets.iter();
    Ok(previous
        .fold(Signer::new(secret.as_bytes()), |signer, previous| signer.accepting(previous.as_bytes())))
}

async fn connect(settings: &Settings, url: &str, roles: &BTreeSet<Role>) -> anyhow::Result<Bus> {
    let names: Vec<String> = roles.iter().map(|role| format!("{role:?}").to_lowercase()).collect();
    let name = format!("boxoffice {}", names.join(","));
    let servers = &settings.servers;
    let bus = bus::connect_as(url, &name, servers.nats_replicas, &servers.nats_access).await?;
    let makes_bucket = [Role::Api, Role::Scheduler].iter().any(|role| roles.contains(role));
    // A role that does not write the bucket has no right to make it either.
    let ensure = async || match makes_bucket {
        true => topology::ensure_with_bucket(&bus).await,
        false => topology::ensure(&bus).await,
    };
    retry::retry("making the streams", Some(PATIENCE), ensure).await?;
    Ok(bus)
}

fn throttle_limits(settings: &Settings) -> ThrottleLimits {
    ThrottleLimits {
        hold: Duration::from_millis(settings.queue.queue_brake_hold_ms.into()),
        backlog: settings.queue.queue_brake_backlog,
        every: Duration::from_millis(settings.queue.queue_brake_every_ms.into()),
    }
}

fn webhook_rules(settings: &Settings) -> UrlRules {
    UrlRules { allows_private: settings.webhooks.webhooks_private }
}

/// The limits of the booking's steps.
pub fn limits(settings: &Settings) -> Limits {
    Limits {
        hold: TimeDelta::seconds(settings.booking.hold_seconds.into()),
        grace: TimeDelta::seconds(settings.booking.payment_grace_seconds.into()),
        seats_per_user: settings.booking.max_seats_per_user.into(),
        ended_holds: settings.booking.max_expired_holds.into(),
    }
}
