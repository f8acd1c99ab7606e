//! An engine in a program of one's own: what it needs beside its services, and sagas that are started and waited for.

use std::time::Duration;

use serde_json::{Map, Value, json};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{Engine, NewClientSaga, Pools, SagaStartError};
use crate::background::Tasks;
use crate::bus::topology::{self, TopologyError};
use crate::clock::Clock;
use crate::saga::{Definition, DefinitionError, Saga, Status};
use crate::store::definitions::{self, Deployed, NewDeployment};
use crate::store::{self, Control};

/// How often overdue sagas are looked for.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);
/// A message that says that a saga has ended may be lost: then the row is read.
const READ_INTERVAL: Duration = Duration::from_secs(1);

impl Pools {
    /// Opens the two pools of an engine, each with at most so many connections.
    pub fn open(database_url: &str, connections: u32) -> store::Result<Self> {
        Ok(Self {
            all: store::open(database_url, connections)?,
            steps: store::open_for_steps(database_url, connections)?,
            control: Control::Optimistic,
            clock: Clock::default(),
        })
    }
}

impl NewClientSaga {
    /// A saga of this workflow, without attributes, about itself. Fields that the input does not have as a JSON object are ignored.
    pub fn new(id: Uuid, workflow: &str, input: Value) -> Self {
        let input = if let Value::Object(input) = input { input } else { Map::new() };
        let (workflow, attributes) = (workflow.to_owned(), Map::new());
        Self { id, workflow, subject_id: None, input, attributes, trace: None }
    }
}

/// Why a definition was not deployed.
#[derive(Debug, thiserror::Error)]
pub enum DeployError {
    #[error(transparent)]
    Definition(#[from] DefinitionError),
    #[error("another definition is deployed under this name and version; give this one a higher version")]
    Different,
    #[error(transparent)]
    Database(#[from] sqlx::Error),
}

impl Engine {
    /// Deploys a definition that the program brings along, unless it is deployed. It is not checked with the model checker.
    ///
    /// # Errors
    /// If the text is no definition, or another one has its name and version.
    pub async fn deploy(&self, file_name: &str, source: &str) -> Result<(), DeployError> {
        let definition = Definition::parse(file_name, source)?;
        let verdict = &json!({ "verdict": "unchecked" });
        let new = NewDeployment { source, deployed_by: "program", verdict, accepted_risk: None };
        let mut conn = self.pool.acquire().await?;
        match definitions::deploy(&mut conn, &definition, &new).await? {
            Deployed::Different => Err(DeployError::Different),
            Deployed::New | Deployed::Same => Ok(self.workflows_changed().await?),
        }
    }

    /// Makes the streams, and runs all that an engine consists of: the services of its database, the loops of the
    /// orchestrator, and the sweeper. Several processes may do so on the same servers. Ended sagas stay until
    /// [`Engine::purge`] is called.
    ///
    /// # Errors
    /// If JetStream does not make the streams.
    pub async fn run_all(&self, tasks: &Tasks, stop: &CancellationToken) -> Result<(), TopologyError> {
        topology::ensure(&self.bus).await?;
        self.serve(tasks, stop);
        self.run(tasks, stop);
        tasks.supervise("sweeper", sweep_forever(self.clone(), stop.clone()));
        Ok(())
    }

    /// Starts a saga, and waits until it has ended, is stuck, or waits for a signal.
    ///
    /// # Errors
    /// If it cannot be started or read. It may have been started all the same; a second call with the same id waits for it.
    pub async fn run_saga(&self, new: NewClientSaga) -> Result<Saga, SagaStartError> {
        let id = new.id;
        let waiting = self.waiting(id);
        self.start_saga(new).await?;
        loop {
            match store::sagas::get(&self.pool, id).await? {
                Some(saga) if is_at_rest(saga.status) => return Ok(saga),
                // The next read finds what the message has announced, or what a lost message would have.
                _ => drop(tokio::time::timeout(READ_INTERVAL, waiting.changed()).await),
            }
        }
    }
}

fn is_at_rest(status: Status) -> bool {
    !matches!(status, Status::Running | Status::Compensating)
}

async fn sweep_forever(engine: Engine, stop: CancellationToken) {
    let mut ticks = interval(SWEEP_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        if let Err(error) = sweep(&engine).await {
            tracing::warn!(%error, "overdue sagas could not be looked for; it is tried again");
        }
    }
}

async fn sweep(engine: &Engine) -> store::Result<()> {
    store::correct_clock(&engine.pool, &engine.clock).await?;
    engine.sweep().await.map(drop)
}
