//! The engine's shell: it locks sagas, lets [`crate::saga::apply()`] decide, writes, and does what follows.
//!
//! Everything that can happen to a saga (an answer of a worker, a signal, an alarm, the sweeper, an operator)
//! goes through one [`Batch`]: read, apply, write, commit; then [`Engine::dispatch`] publishes what the
//! transitions ask for; only then is the message that brought it acknowledged. A crash in between costs a
//! redelivery or a second of the sweeper, and the fence makes either harmless.

mod embedded;
mod replies;
mod serve;
mod signals;
mod starts;
mod client_sagas;
mod definitions;
mod timers;
mod sweep;
mod retention;
mod replay;
mod acts;
mod service_consumers;
mod undelivered;
mod pauses;
mod poison;
mod saga_cache;
mod advance;
mod dispatch;
mod observations;
mod saga_spans;
mod rest;
mod announce;
mod direct;
mod execute;
mod participant;
mod work_off;
mod batcher;
mod bisector;
mod wait;

use std::sync::Arc;

use chrono::TimeDelta;
use sqlx::PgPool;
use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;

pub use acts::{ActDone, ActError, Acted, AfterAct, SETTLEMENT};
pub use advance::{Batch, Verdict, start};
pub use batcher::{BatchQueue, Batcher, batcher};
pub use bisector::BatchBisector;
pub use client_sagas::{NewClientSaga, StartError as SagaStartError};
pub use dispatch::Effects;
pub use embedded::DeployError;
pub use participant::{Participant, Participants, Task, Unit};
pub use pauses::StepPause;
pub use replay::{Pace, Page, Replay, Wanted};
pub use retention::Purged;
pub use saga_spans::{Started, record_start};
pub use signals::SignalError;
pub use wait::Waiting;
pub use work_off::Work;

use rest::Rested;

use crate::background::Tasks;
use crate::bus::Bus;
use crate::clock::Clock;
use crate::ids;
use crate::saga::{Saga, WorkflowRegistry};
use crate::store::Control;
use crate::store::codes::Codes;
use crate::store::concurrency_limit::ConcurrencyLimit;

/// What every part of the engine needs: the truth, the carrier, and the definitions.
#[derive(Clone, Debug)]
pub struct Engine {
    pub pool: PgPool,
    /// The connections of what every saga runs through: starts, steps, signals, answers, alarms.
    pub steps: PgPool,
    pub bus: Bus,
    pub registry: Arc<WorkflowRegistry>,
    /// The numbers of their names in this database.
    pub codes: Codes,
    /// What this process calls itself in the history of sagas.
    pub instance: Arc<str>,
    participants: Participants,
    /// How many batches are at work at a time.
    pub limit: ConcurrencyLimit,
    /// How steps that meet at the same rows are kept apart at first.
    pub control: Control,
    /// Near the database's clock, which decides.
    pub clock: Clock,
    after_act: Option<AfterAct>,
    own_workflows: &'static [&'static str],
    pauses: Arc<pauses::Pauses>,
    cache: saga_cache::SagaCache,
    waiters: wait::Waiters,
    tasks: Tasks,
    signals: Batcher<signals::Signal, Option<Verdict>>,
    resting: mpsc::UnboundedSender<Rested>,
    /// Permits of commits whose effects are published while their callers go on.
    detached: Arc<Semaphore>,
}

/// Connections to Postgres, and how steps on them are kept apart.
#[derive(Clone, Debug)]
pub struct Pools {
    /// For whatever is asked now and then.
    pub all: PgPool,
    /// For what every saga runs through.
    pub steps: PgPool,
    /// What steps do about others at the same rows.
    pub control: Control,
    /// Follows the database's.
    pub clock: Clock,
}

/// Why the engine could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("NATS did not take a subscription: {0}")]
    Subscribe(#[from] async_nats::SubscribeError),
    #[error("what is paused, and the workflows, could not be read: {0}")]
    Database(#[from] sqlx::Error),
}

impl Engine {
    /// Makes the engine and starts what every instance needs of it: the batcher of signals, the listener for
    /// sagas that settle, and the one that puts ended sagas to rest.
    pub async fn start(
        pools: Pools,
        bus: Bus,
        participants: Participants,
        tasks: &Tasks,
        stop: &CancellationToken,
    ) -> Result<Self, StartError> {
        let Pools { all: pool, steps, control, clock } = pools;
        let (signals, requests) = batcher("signals", |signal: &signals::Signal| signal.saga);
        let (resting, ended) = mpsc::unbounded_channel();
        let waiters = wait::Waiters::default();
        let settled = bus.client.subscribe(crate::bus::subjects::SETTLED).await?;
        tasks.supervise("settled sagas", wait::listen(waiters.clone(), settled, stop.clone()));
        tasks.supervise("ended sagas", rest::run(pool.clone(), ended, stop.clone()));
        let instance: Arc<str> = ids::process().into();
        let codes = Codes::register(&pool, &instance).await?;
        let connects = bus.connects();
        let paused = bus.client.subscribe(crate::bus::subjects::PAUSES).await?;
        let engine = Self {
            pool,
            steps,
            bus,
            registry: Arc::default(),
            codes,
            instance,
            participants,
            limit: ConcurrencyLimit::default(),
            control,
            clock,
            after_act: None,
            own_workflows: &[],
            pauses: Arc::default(),
            cache: saga_cache::SagaCache::new(),
            waiters,
            tasks: tasks.clone(),
            signals,
            resting,
            detached: Arc::new(Semaphore::new(dispatch::MAX_DETACHED)),
        };
        engine.reload_pauses().await?;
        engine.reload_workflows().await?;
        tasks.supervise("pauses", pauses::listen(engine.clone(), paused, connects, stop.clone()));
        tasks.supervise("signals", signals::run(engine.clone(), requests, stop.clone()));
        Ok(engine)
    }

    /// The same engine, which lets the services in its database follow the acts of operators.
    #[must_use]
    pub fn with_after_act(mut self, after_act: AfterAct) -> Self {
        self.after_act = Some(after_act);
        self
    }

    /// The same engine, which refuses to start sagas of these workflows for clients: the program starts them itself.
    #[must_use]
    pub fn with_own_workflows(mut self, names: &'static [&'static str]) -> Self {
        self.own_workflows = names;
        self
    }

    /// Runs the orchestrator's loops: answers of workers elsewhere, signals by message, alarms, and messages that no
    /// consumer could handle.
    pub fn run(&self, tasks: &Tasks, stop: &CancellationToken) {
        tasks.supervise("replies", replies::run(self.clone(), stop.clone()));
        tasks.supervise("timers", timers::run(self.clone(), stop.clone()));
        tasks.supervise("undelivered messages", undelivered::run(self.clone(), stop.clone()));
        tasks.supervise("consumers of services", service_consumers::run(self.clone(), stop.clone()));
    }

    /// Shows the counters of every known workflow from 0 on.
    pub fn begin_counters(&self) {
        self.registry.iter().for_each(|definition| observations::begin_counters(&definition.name));
    }

    /// Whether the service's effects are written in the engine's own database.
    pub(super) fn is_in_database(&self, command: &str) -> bool {
        self.participants.of_command(command).is_some()
    }

    /// Whether the definition of this saga's workflow is here.
    pub(super) fn knows(&self, saga: &Saga) -> bool {
        self.registry.get(&saga.workflow, saga.version).is_some()
    }

    /// One pass of the sweeper: whatever is due is looked at.
    pub async fn sweep(&self) -> crate::store::Result<usize> {
        sweep::run_once(self).await
    }

    /// Lets go of what ended longer than `keep` ago, a bounded amount, and makes room for the days to come.
    pub async fn purge(&self, keep: TimeDelta) -> crate::store::Result<Purged> {
        retention::run_once(&self.pool, keep).await
    }
}
