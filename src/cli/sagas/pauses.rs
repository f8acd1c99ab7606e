//! `saga pause`, `saga resume` and `saga pauses`: holding back one saga, a workflow, or a step type everywhere.

use serde_json::json;
use uuid::Uuid;

use super::super::output::table;
use super::super::{Context, Ending};
use super::acting::{Acting, Why, refused};
use super::{about, act};
use crate::operations::pauses::{self, PauseChange, PauseOf, PauseView};
use crate::operations::{AskError, Repaired};
use crate::orchestrator::ActError;
use crate::saga::OperatorAction;

/// What to hold back, or to let go on.
#[derive(clap::Args, Debug)]
#[group(id = "target", required = true, multiple = false, args = ["id", "workflow", "step"])]
pub(in crate::cli) struct Target {
    /// One saga
    id: Option<Uuid>,
    /// All sagas of this workflow
    #[arg(long)]
    workflow: Option<String>,
    /// One step type everywhere, by its command, for instance points.deduct
    #[arg(long, value_name = "COMMAND")]
    step: Option<String>,
    #[command(flatten)]
    why: Why,
}

/// What to hold back.
#[derive(clap::Args, Debug)]
pub(in crate::cli) struct Hold {
    #[command(flatten)]
    target: Target,
    /// With --step: pause its consumers also if they take other commands too
    #[arg(long, requires = "step")]
    whole_consumer: bool,
}

pub(super) async fn pause(context: &Context, hold: &Hold) -> anyhow::Result<Ending> {
    change(context, &hold.target, Some(hold.whole_consumer)).await
}

pub(super) async fn resume(context: &Context, target: &Target) -> anyhow::Result<Ending> {
    change(context, target, None).await
}

/// Pauses (`whole`: also consumers that take more), or resumes.
async fn change(context: &Context, target: &Target, whole: Option<bool>) -> anyhow::Result<Ending> {
    target.why.check()?;
    let acting = Acting::begin(context).await?;
    let done = apply(&acting, target, whole).await;
    acting.end().await;
    match done {
        Ok(Changed::Saga(repaired)) => context.output.answer(&*repaired, act::text)?,
        Ok(Changed::More(change)) => context.output.answer(&change, text)?,
        Err(ActError::Unknown) => match (&target.workflow, target.id) {
            (Some(name), _) => anyhow::bail!("there is no workflow {name}"),
            (None, id) => return Err(about(id.unwrap_or_default())(AskError::Unknown)),
        },
        Err(error) => return refused(context, error),
    }
    Ok(Ending::Good)
}

enum Changed {
    Saga(Box<Repaired>),
    More(PauseChange),
}

async fn apply(acting: &Acting, target: &Target, whole: Option<bool>) -> Result<Changed, ActError> {
    let (engine, actor, reason) = (&acting.engine, acting.actor.as_str(), target.why.reason.as_str());
    let more = match (&target.workflow, &target.step) {
        (Some(name), _) => Some(pauses::Target::Workflow(name)),
        (_, Some(command)) => Some(pauses::Target::Step { command, whole: whole.unwrap_or_default() }),
        (None, None) => None,
    };
    if let Some(more) = more {
        let changed = pauses::change(engine, more, whole.is_some(), actor, reason).await?;
        return Ok(Changed::More(changed));
    }
    let act = if whole.is_some() { OperatorAction::Pause } else { OperatorAction::Resume };
    let acted = engine.act(target.id.unwrap_or_default(), act, actor, reason).await?;
    Ok(Changed::Saga(Box::new(acted.into())))
}

fn text(change: &PauseChange) -> String {
    let state = match (change.paused, change.changed) {
        (true, true) => "is paused",
        (true, false) => "was paused before",
        (false, true) => "goes on",
        (false, false) => "was not paused",
    };
    let consumers = match (&change.kind, change.consumers.as_slice()) {
        (PauseOf::Step, []) if change.paused => {
            "; no worker serves it yet, and a worker that starts later is paused too".to_owned()
        }
        (PauseOf::Step, names) if !names.is_empty() => format!("; consumers: {}", names.join(", ")),
        _ => String::new(),
    };
    format!("{} {state}{consumers}.", change.name)
}

pub(super) async fn list(context: &Context) -> anyhow::Result<Ending> {
    let found = pauses::list(&context.database().await?).await?;
    context.output.answer(&json!({ "items": found }), |_| {
        table(["Paused", "Name", "Since", "Who", "Why"], found.iter().map(row))
    })?;
    Ok(Ending::Good)
}

fn row(pause: &PauseView) -> [String; 5] {
    let kind = match pause.kind {
        PauseOf::Saga => "saga",
        PauseOf::Workflow => "workflow",
        PauseOf::Step => "step",
    };
    [
        kind.to_owned(),
        pause.name.clone(),
        pause.since.map_or(String::new(), |since| since.format("%F %T").to_string()),
        pause.actor.clone().unwrap_or_default(),
        pause.reason.clone().unwrap_or_default(),
    ]
}
