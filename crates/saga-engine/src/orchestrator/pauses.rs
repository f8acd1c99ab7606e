//! Pauses of more than one saga: of a workflow, whose forward commands are held back, and of a step type, whose consumers
//! are paused. A command that is held back is not lost: the row asks for it, and it goes out when the pause ends.
//! Answers and deadlines go on, as with the pause of one saga.

use std::sync::{PoisonError, RwLock};
use std::time::Duration;

use async_nats::Subscriber;
use chrono::TimeDelta;
use futures::StreamExt;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::dispatch::Effects;
use super::{ActError, Engine};
use crate::bus::consumers::{self, ConsumerState};
use crate::bus::subjects;
use crate::saga::{Command, Direction};
use crate::store;
use crate::store::operations::{ActRow, Pause, PauseKind};

/// Sagas whose commands are sent at once when a workflow goes on.
const CHUNK: usize = 256;
/// JetStream wants an end for every pause; these end when an operator resumes.
const UNTIL_RESUMED: TimeDelta = TimeDelta::days(3_650);
/// How often it is looked whether the connection was made anew.
const LOOK: Duration = Duration::from_secs(1);

/// What is paused, as this process last heard.
#[derive(Debug, Default)]
pub(super) struct Pauses(RwLock<Vec<Pause>>);

impl Pauses {
    /// Whether a command must wait.
    pub(super) fn hold_back(&self, command: &Command) -> bool {
        command.direction == Direction::Do && self.has(PauseKind::Workflow, &command.workflow)
    }

    /// Whether a step type is paused.
    pub(super) fn has_step(&self, command: &str) -> bool {
        self.has(PauseKind::Step, command)
    }

    fn has(&self, kind: PauseKind, name: &str) -> bool {
        // A panic elsewhere leaves the list usable: it is replaced as a whole.
        let pauses = self.0.read().unwrap_or_else(PoisonError::into_inner);
        pauses.iter().any(|pause| pause.kind == kind && pause.name == name)
    }

    fn steps(&self) -> Vec<String> {
        let pauses = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let steps = pauses.iter().filter(|pause| pause.kind == PauseKind::Step);
        steps.map(|pause| pause.name.clone()).collect()
    }

    fn replace(&self, pauses: Vec<Pause>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = pauses;
    }
}

/// A step type's pause after an act on it.
#[derive(Clone, Debug)]
pub struct StepPause {
    /// Whether the act has changed anything.
    pub changed: bool,
    /// The consumers that take the command, as they were before the act.
    pub consumers: Vec<ConsumerState>,
}

impl Engine {
    /// Reads what is paused.
    pub async fn reload_pauses(&self) -> store::Result<()> {
        self.pauses.replace(store::bounded(store::operations::pauses(&self.pool)).await?);
        Ok(())
    }

    /// Holds back the forward commands of a workflow, on every instance. `false` if they are held back already.
    pub async fn pause_workflow(&self, name: &str, actor: &str, reason: &str) -> Result<bool, ActError> {
        if !store::definitions::is_known(&self.pool, name).await? {
            return Err(ActError::Unknown);
        }
        self.change_pause(PauseKind::Workflow, name, true, actor, reason).await
    }

    /// Lets a workflow go on: what was held back is sent. `false` if it was not paused.
    pub async fn resume_workflow(&self, name: &str, actor: &str, reason: &str) -> Result<bool, ActError> {
        if !self.change_pause(PauseKind::Workflow, name, false, actor, reason).await? {
            return Ok(false);
        }
        let running: Vec<Uuid> = store::sagas::running(&self.pool, name).await?;
        for chunk in running.chunks(CHUNK) {
            let sagas = store::sagas::get_many(&self.pool, chunk).await?;
            store::definitions::learn(&self.pool, &self.registry, &sagas).await?;
            let effects = Effects::asked_by(&self.registry, &sagas);
            if let Err(error) = self.dispatch(effects).await {
                tracing::warn!(%error, "the sweeper sends what could not be sent after a pause");
            }
        }
        Ok(true)
    }

    /// Pauses a step type everywhere: nothing is delivered by the consumers that take its command. One that takes other
    /// commands too is only paused with `whole`.
    pub async fn pause_step(
        &self,
        command: &str,
        whole: bool,
        actor: &str,
        reason: &str,
    ) -> Result<StepPause, ActError> {
        let consumers = consumers::of_command(&self.bus, command).await?;
        let known = self.registry.commands().contains(command);
        if consumers.is_empty() && !known {
            return Err(ActError::UnknownCommand(command.to_owned()));
        }
        let wider = consumers.iter().filter(|state| state.filter != subjects::step(command));
        let wider: Vec<String> =
            wider.map(|state| format!("{} takes {}", state.name, state.filter)).collect();
        if !whole && !wider.is_empty() {
            return Err(ActError::Covers { command: command.to_owned(), consumers: wider });
        }
        // The note comes first: a consumer that is lost and made again is paused again by it.
        let noted = self.change_pause(PauseKind::Step, command, true, actor, reason).await?;
        let paused = self.pause_consumers(command, &consumers).await?;
        Ok(StepPause { changed: noted || paused, consumers })
    }

    /// Lets a step type go on. Its consumers go on also if nothing is noted: an earlier call may have lifted the note, and
    /// not have reached JetStream.
    pub async fn resume_step(&self, command: &str, actor: &str, reason: &str) -> Result<StepPause, ActError> {
        // The note goes first: as long as it is there, an instance that sees a running consumer pauses it.
        let lifted = self.change_pause(PauseKind::Step, command, false, actor, reason).await?;
        let consumers = consumers::of_command(&self.bus, command).await?;
        let left_paused = consumers.iter().any(|consumer| consumer.paused_until.is_some());
        self.resume_consumers(&consumers).await?;
        if left_paused && !lifted {
            let row = act(PauseKind::Step, command, false, actor, reason);
            store::operations::record_act(&self.pool, &row).await?;
        }
        Ok(StepPause { changed: lifted || left_paused, consumers })
    }

    /// Pauses again what should be paused and is not: a consumer that was lost and made again. Sends no request if nothing
    /// is paused.
    pub async fn keep_pauses(&self) -> Result<(), ActError> {
        for command in self.pauses.steps() {
            let consumers = consumers::of_command(&self.bus, &command).await?;
            if !self.pause_consumers(&command, &consumers).await? {
                continue;
            }
            // It may have been resumed just now, before this instance got the notice.
            self.reload_pauses().await?;
            if !self.pauses.has(PauseKind::Step, &command) {
                self.resume_consumers(&consumers).await?;
            }
        }
        Ok(())
    }

    /// Pauses those that go on; whether there were any.
    async fn pause_consumers(&self, command: &str, consumers: &[ConsumerState]) -> Result<bool, ActError> {
        let going: Vec<_> = consumers.iter().filter(|consumer| consumer.paused_until.is_none()).collect();
        for consumer in &going {
            let until = store::now(&self.pool).await? + UNTIL_RESUMED;
            tracing::info!(command, consumer = consumer.name, "a consumer is paused");
            consumers::pause(&self.bus, &consumer.name, until).await?;
        }
        Ok(!going.is_empty())
    }

    async fn resume_consumers(&self, consumers: &[ConsumerState]) -> Result<(), ActError> {
        for consumer in consumers {
            consumers::resume(&self.bus, &consumer.name).await?;
        }
        Ok(())
    }

    /// Notes a pause, or lifts the note, with the act, and notifies every instance. `false` if it was so before.
    async fn change_pause(
        &self,
        kind: PauseKind,
        name: &str,
        paused: bool,
        actor: &str,
        reason: &str,
    ) -> Result<bool, ActError> {
        let mut tx = self.pool.begin().await?;
        let changed = if paused {
            store::operations::pause(&mut *tx, kind, name, actor, reason).await?
        } else {
            store::operations::resume(&mut *tx, kind, name).await?
        };
        if changed {
            let row = act(kind, name, paused, actor, reason);
            store::operations::record_act(&mut *tx, &row).await?;
            tx.commit().await?;
            self.tell_pauses().await?;
        }
        Ok(changed)
    }

    async fn tell_pauses(&self) -> store::Result<()> {
        self.reload_pauses().await?;
        if let Err(error) = self.bus.notify(subjects::PAUSES, Vec::new().into()).await {
            tracing::warn!(%error, "other instances hear of the pause once they are connected again");
        }
        Ok(())
    }
}

fn act<'a>(kind: PauseKind, name: &'a str, paused: bool, actor: &'a str, reason: &'a str) -> ActRow<'a> {
    let act = match (kind, paused) {
        (PauseKind::Workflow, true) => "pause",
        (PauseKind::Workflow, false) => "resume",
        (PauseKind::Step, true) => "pause_step",
        (PauseKind::Step, false) => "resume_step",
    };
    let [from, to] = if paused { ["running", "paused"] } else { ["paused", "running"] };
    ActRow { actor, act, saga_id: None, target: Some(name), reason, from, to, detail: None }
}

/// Listens for pauses and deployments on other instances, and reads them again after every new connection: notices that were sent meanwhile are lost.
/// `connects` is the number of connections before they were first read.
pub(super) async fn listen(engine: Engine, mut notices: Subscriber, connects: u64, stop: CancellationToken) {
    let mut read_at = Some(connects);
    let mut look = tokio::time::interval(LOOK);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let connects = engine.bus.connects();
        tokio::select! {
            () = stop.cancelled() => return,
            message = notices.next() => if message.is_none() { return },
            _ = look.tick() => if read_at == Some(connects) { continue },
        }
        let read = engine.reload_pauses().await.and(engine.reload_workflows().await);
        read_at = match read {
            Ok(()) => Some(connects),
            Err(error) => {
                tracing::warn!(%error, "what is paused and what is deployed could not be read, trying again");
                None
            }
        };
    }
}
