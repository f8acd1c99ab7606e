//! The workers that are present, and the commands that wait for them.

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};
use serde::Serialize;
use utoipa::ToSchema;

use crate::bus::consumers::{self, ConsumerState};
use crate::bus::presence::{self, WorkerSeen};
use crate::orchestrator::Engine;

/// Most workers that are listed.
const WORKERS_MAX: usize = 1_000;

/// Who works, and what waits.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Fleet {
    /// Workers that answered, by service and id; at most a thousand.
    pub workers: Vec<WorkerView>,
    /// Every command of every workflow, by name.
    pub commands: Vec<CommandView>,
}

/// A worker that is present.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct WorkerView {
    pub service: String,
    pub id: String,
    pub version: String,
    /// The commands it serves.
    pub commands: Vec<String>,
    /// The machine and the process, as the worker names them.
    pub instance: Option<String>,
    /// When it was started, by its own clock.
    pub started_at: Option<DateTime<Utc>>,
    /// How long its answer took.
    pub answered_ms: u64,
}

/// A command, what waits for it and how many workers serve it.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct CommandView {
    pub command: String,
    /// The workflows that send it.
    pub workflows: BTreeSet<String>,
    /// Consumers that deliver it; none if no worker has ever served it.
    pub consumers: Vec<String>,
    /// Commands that were not delivered yet, of all consumers that deliver it.
    pub waiting: u64,
    /// Commands that were delivered and are not acknowledged yet.
    pub unacknowledged: u64,
    /// Those of them that were delivered more than once.
    pub redelivered: u64,
    /// The end of the pause of its consumers, if they are paused.
    pub paused_until: Option<DateTime<Utc>>,
    /// How many workers serve it.
    pub workers: usize,
}

/// Why NATS did not say.
#[derive(Debug, thiserror::Error)]
pub enum FleetError {
    #[error(transparent)]
    Presence(#[from] presence::PresenceError),
    #[error(transparent)]
    Consumers(#[from] consumers::ConsumersError),
}

/// Asks NATS for workers and consumers; this takes a quarter of a second, a second at most.
pub async fn fleet(engine: &Engine) -> Result<Fleet, FleetError> {
    let (present, consumers) = tokio::join!(presence::present(&engine.bus), consumers::all(&engine.bus));
    let (mut present, consumers) = (present?, consumers?);
    present.truncate(WORKERS_MAX);
    let mut commands: Vec<CommandView> = Vec::new();
    for definition in engine.registry.iter() {
        for name in definition.commands() {
            match commands.iter_mut().find(|known| known.command == name) {
                Some(known) => {
                    known.workflows.insert(definition.name.clone());
                }
                None => commands.push(command(name, &definition.name, &consumers, &present)),
            }
        }
    }
    commands.sort_by(|one, other| one.command.cmp(&other.command));
    Ok(Fleet { workers: present.into_iter().map(WorkerView::from).collect(), commands })
}

fn command(name: &str, workflow: &str, consumers: &[ConsumerState], present: &[WorkerSeen]) -> CommandView {
    let own: Vec<&ConsumerState> = consumers.iter().filter(|state| state.takes(name)).collect();
    let sum = |count: fn(&ConsumerState) -> u64| own.iter().map(|state| count(state)).sum();
    CommandView {
        command: name.to_owned(),
        workflows: BTreeSet::from([workflow.to_owned()]),
        consumers: own.iter().map(|state| state.name.clone()).collect(),
        waiting: sum(|state| state.pending),
        unacknowledged: sum(|state| state.ack_pending as u64),
        redelivered: sum(|state| state.redelivered as u64),
        paused_until: own.iter().filter_map(|state| state.paused_until).max(),
        workers: presence::served_by(present, name).len(),
    }
}

impl From<WorkerSeen> for WorkerView {
    fn from(seen: WorkerSeen) -> Self {
        Self {
            service: seen.service,
            id: seen.id,
            version: seen.version,
            commands: seen.commands,
            instance: seen.instance,
            started_at: seen.started,
            answered_ms: u64::try_from(seen.answered.as_millis()).unwrap_or(u64::MAX),
        }
    }
}
