//! Pauses of single sagas, of workflows, and of step types: by whom, since when, and why.

use chrono::{DateTime, Utc};
use serde::Serialize;
use sqlx::PgPool;
use utoipa::ToSchema;
use uuid::Uuid;

use super::AskError;
use crate::orchestrator::{ActError, Engine, StepPause};
use crate::store::operations::{self, PauseKind};

/// Most paused sagas that are listed; `saga list --paused` pages through all.
const SAGAS_MAX: i64 = 1_000;

/// What a pause is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum PauseOf {
    /// One saga: its next forward command is held back.
    Saga,
    /// A workflow: the forward commands of all its sagas are held back.
    Workflow,
    /// A step type: the consumers of its command deliver nothing.
    Step,
}

/// A pause.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct PauseView {
    #[schema(inline)]
    pub kind: PauseOf,
    /// The saga's id, the workflow's name, or the command.
    pub name: String,
    /// Null if the database has no record of the pause.
    pub since: Option<DateTime<Utc>>,
    pub actor: Option<String>,
    pub reason: Option<String>,
}

/// A pause of a workflow or a step type that was made or ended, and whose consumers it is about.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct PauseChange {
    #[schema(inline)]
    pub kind: PauseOf,
    pub name: String,
    /// How it is now.
    pub paused: bool,
    /// Whether this act made it so; false: it was so before, and nothing was written down.
    pub changed: bool,
    /// The consumers of a step type; none: no worker has served it yet, and a later worker is paused too.
    pub consumers: Vec<String>,
}

/// The target of a pause or resume that is more than one saga.
#[derive(Clone, Copy, Debug)]
pub enum Target<'a> {
    /// A workflow, by name.
    Workflow(&'a str),
    /// A step type, by its command; `whole`: pause a consumer also if it takes other commands too.
    Step { command: &'a str, whole: bool },
}

/// Pauses or resumes.
pub async fn change(
    engine: &Engine,
    target: Target<'_>,
    paused: bool,
    actor: &str,
    reason: &str,
) -> Result<PauseChange, ActError> {
    match target {
        Target::Workflow(name) => {
            let changed = if paused {
                engine.pause_workflow(name, actor, reason).await?
            } else {
                engine.resume_workflow(name, actor, reason).await?
            };
            let (kind, name) = (PauseOf::Workflow, name.to_owned());
            Ok(PauseChange { kind, name, paused, changed, consumers: Vec::new() })
        }
        Target::Step { command, whole } => {
            let StepPause { changed, consumers } = if paused {
                engine.pause_step(command, whole, actor, reason).await?
            } else {
                engine.resume_step(command, actor, reason).await?
            };
            let consumers = consumers.into_iter().map(|consumer| consumer.name).collect();
            Ok(PauseChange { kind: PauseOf::Step, name: command.to_owned(), paused, changed, consumers })
        }
    }
}

/// Everything that is paused: step types and workflows, oldest first, then sagas.
pub async fn list(pool: &PgPool) -> Result<Vec<PauseView>, AskError> {
    let mut all: Vec<PauseView> = operations::pauses(pool).await?.into_iter().map(PauseView::from).collect();
    let sagas = operations::paused_sagas(pool, None, SAGAS_MAX).await?;
    all.extend(sagas.into_iter().map(PauseView::from));
    Ok(all)
}

/// The pauses that hold back a saga.
pub async fn of_saga(
    pool: &PgPool,
    id: Uuid,
    workflow: &str,
    command: Option<&str>,
) -> Result<Vec<PauseView>, AskError> {
    let mut found = operations::pauses(pool).await?;
    found.retain(|pause| match pause.kind {
        PauseKind::Workflow => pause.name == workflow,
        PauseKind::Step => Some(pause.name.as_str()) == command,
    });
    let own = operations::paused_sagas(pool, Some(id), 1).await?;
    Ok(found.into_iter().map(PauseView::from).chain(own.into_iter().map(PauseView::from)).collect())
}

impl From<operations::Pause> for PauseView {
    fn from(pause: operations::Pause) -> Self {
        let kind = match pause.kind {
            PauseKind::Workflow => PauseOf::Workflow,
            PauseKind::Step => PauseOf::Step,
        };
        let (since, actor, reason) = (Some(pause.since), Some(pause.actor), Some(pause.reason));
        Self { kind, name: pause.name, since, actor, reason }
    }
}

impl From<operations::PausedSaga> for PauseView {
    fn from(pause: operations::PausedSaga) -> Self {
        let operations::PausedSaga { saga_id, since, actor, reason } = pause;
        Self { kind: PauseOf::Saga, name: saga_id.to_string(), since, actor, reason }
    }
}
