//! Pauses of more than one saga: of a workflow, whose forward commands are held back, and of a step type, whose consumers
//! are paused. A command that is held back is not lost: the row asks for it, and it goes out when the pause ends.
//! Answers and deadlines go on, as with the pause of one saga.

use std::sync::{PoisonError, RwLock};

use async_nats::Subscriber;
use chrono::TimeDelta;
use futures::StreamExt;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::follow::Consequences;
use super::{ActError, Engine};
use crate::bus::consumers::{self, ConsumerState};
use crate::bus::subjects;
use crate::saga::{Command, Direction};
use crate::store;
use crate::store::operations::{ActRow, Pause, PauseKind};

/// Sagas whose commands are sent at once when a workflow goes on.
const CHUNK: usize = 256;
/// JetStream wants an end for every pause; ours end when somebody says so.
const UNTIL_RESUMED: TimeDelta = TimeDelta::days(3_650);

/// What is paused, as this process last heard.
#[derive(Debug, Default)]
pub(super) struct Pauses(RwLock<Vec<Pause>>);

impl Pauses {
    /// Whether a command must wait.
    pub(super) fn hold_back(&self, command: &Command) -> bool {
        command.direction == Direction::Do && self.has(PauseKind::Workflow, &command.workflow)
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

impl Engine {
    /// Reads what is paused.
    pub async fn reload_pauses(&self) -> store::Result<()> {
        self.pauses.replace(store::operations::pauses(&self.pool).await?);
        Ok(())
    }

    /// Holds back the forward commands of a workflow, on every instance. `false` if they are held back already.
    pub async fn pause_workflow(&self, name: &str, actor: &str, reason: &str) -> Result<bool, ActError> {
        if self.catalogue.latest(name).is_none() {
            return Err(ActError::Unknown);
        }
        self.set_pause(PauseKind::Workflow, name, actor, reason).await
    }

    /// Lets a workflow go on: what was held back is sent. `false` if it was not paused.
    pub async fn resume_workflow(&self, name: &str, actor: &str, reason: &str) -> Result<bool, ActError> {
        if !self.lift_pause(PauseKind::Workflow, name, actor, reason).await? {
            return Ok(false);
        }
        let running: Vec<Uuid> = store::sagas::running(&self.pool, name).await?;
        for chunk in running.chunks(CHUNK) {
            let sagas = store::sagas::get_many(&self.pool, chunk).await?;
            let consequences = Consequences::asked_by(&self.catalogue, &sagas);
            if let Err(error) = self.follow(consequences).await {
                tracing::warn!(%error, "the sweeper sends what could not be sent after a pause");
            }
        }
        Ok(true)
    }

    /// Pauses a step type everywhere: nothing is delivered by the consumers that take its command. One that takes other
    /// commands too is only paused with `whole`. Returns the consumers that are paused.
    pub async fn pause_step(
        &self,
        command: &str,
        whole: bool,
        actor: &str,
        reason: &str,
    ) -> Result<Vec<ConsumerState>, ActError> {
        let consumers = consumers::of_command(&self.bus, command).await?;
        let known = self.catalogue.iter().any(|definition| definition.commands().contains(command));
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
        self.set_pause(PauseKind::Step, command, actor, reason).await?;
        self.pause_consumers(command, &consumers).await?;
        Ok(consumers)
    }

    /// Lets a step type go on. Returns the consumers that take it; `None` if it was not paused.
    pub async fn resume_step(
        &self,
        command: &str,
        actor: &str,
        reason: &str,
    ) -> Result<Option<Vec<ConsumerState>>, ActError> {
        if !self.lift_pause(PauseKind::Step, command, actor, reason).await? {
            return Ok(None);
        }
        let consumers = consumers::of_command(&self.bus, command).await?;
        for consumer in &consumers {
            consumers::resume(&self.bus, &consumer.name).await?;
        }
        Ok(Some(consumers))
    }

    /// Pauses again what should be paused and is not: a consumer that was lost and made again. Asks nobody if nothing
    /// is paused.
    pub async fn keep_pauses(&self) -> Result<(), ActError> {
        for command in self.pauses.steps() {
            let consumers = consumers::of_command(&self.bus, &command).await?;
            self.pause_consumers(&command, &consumers).await?;
        }
        Ok(())
    }

    async fn pause_consumers(&self, command: &str, consumers: &[ConsumerState]) -> Result<(), ActError> {
        let going = consumers.iter().filter(|consumer| consumer.paused_until.is_none());
        for consumer in going {
            let until = store::now(&self.pool).await? + UNTIL_RESUMED;
            tracing::info!(command, consumer = consumer.name, "a consumer is paused");
            consumers::pause(&self.bus, &consumer.name, until).await?;
        }
        Ok(())
    }

    async fn set_pause(
        &self,
        kind: PauseKind,
        name: &str,
        actor: &str,
        reason: &str,
    ) -> Result<bool, ActError> {
        let mut tx = self.pool.begin().await?;
        let new = store::operations::pause(&mut *tx, kind, name, actor, reason).await?;
        if new {
            let row = act("pause", kind, name, actor, reason, ["running", "paused"]);
            store::operations::record_act(&mut *tx, &row).await?;
            tx.commit().await?;
            self.tell_pauses().await?;
        }
        Ok(new)
    }

    async fn lift_pause(
        &self,
        kind: PauseKind,
        name: &str,
        actor: &str,
        reason: &str,
    ) -> Result<bool, ActError> {
        let mut tx = self.pool.begin().await?;
        let gone = store::operations::resume(&mut *tx, kind, name).await?;
        if gone {
            let row = act("resume", kind, name, actor, reason, ["paused", "running"]);
            store::operations::record_act(&mut *tx, &row).await?;
            tx.commit().await?;
            self.tell_pauses().await?;
        }
        Ok(gone)
    }

    async fn tell_pauses(&self) -> store::Result<()> {
        self.reload_pauses().await?;
        if let Err(error) = self.bus.client.publish(subjects::PAUSES, Vec::new().into()).await {
            tracing::warn!(%error, "other instances hear of the pause at their next look");
        }
        Ok(())
    }
}

fn act<'a>(
    name: &'static str,
    kind: PauseKind,
    target: &'a str,
    actor: &'a str,
    reason: &'a str,
    [from, to]: [&'a str; 2],
) -> ActRow<'a> {
    let act = match kind {
        PauseKind::Workflow => name,
        PauseKind::Step => {
            if name == "pause" {
                "pause_step"
            } else {
                "resume_step"
            }
        }
    };
    ActRow { actor, act, saga_id: None, target: Some(target), reason, from, to, detail: None }
}

/// Listens for pauses on other instances.
pub(super) async fn listen(engine: Engine, mut changed: Subscriber, stop: CancellationToken) {
    while let Some(Some(_)) = stop.run_until_cancelled(changed.next()).await {
        if let Err(error) = engine.reload_pauses().await {
            tracing::warn!(%error, "what is paused could not be read");
        }
    }
}
