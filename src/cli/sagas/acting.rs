//! What every act on the command line needs: who acts and why, and an engine that does it.

use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::super::{Context, Ending, Misuse, actor};
use crate::app;
use crate::background::Tasks;
use crate::clock::Clock;
use crate::config::Control;
use crate::operations::repair::reason_problem;
use crate::orchestrator::{ActError, Engine, Pools};
use crate::steps::{self, BookingCache};
use crate::text::escape_line;
use crate::workflows;

/// Why an operator acts.
#[derive(clap::Args, Debug)]
pub(in crate::cli) struct Why {
    /// Why; it is written down
    #[arg(long)]
    pub(super) reason: String,
}

impl Why {
    /// An empty reason is a misuse.
    pub(super) fn check(&self) -> Result<(), Misuse> {
        match reason_problem(&self.reason) {
            Some(problem) => Err(Misuse(format!("--reason {problem}"))),
            None => Ok(()),
        }
    }
}

/// An engine for the length of one command.
pub(super) struct Acting {
    pub(super) engine: Engine,
    pub(super) actor: String,
    tasks: Tasks,
    stop: CancellationToken,
}

impl Acting {
    pub(super) async fn begin(context: &Context) -> anyhow::Result<Self> {
        let pool = context.database().await?;
        let stop = CancellationToken::new();
        let tasks = Tasks::new(&stop);
        let pools =
            Pools { all: pool.clone(), steps: pool, control: Control::Pessimistic, clock: Clock::default() };
        let bus = context.bus().await?;
        let limits = app::limits(&context.settings);
        let participants = steps::participants(limits, &BookingCache::default(), &bus);
        let engine = Engine::start(pools, bus, participants, &tasks, &stop).await?;
        let engine = engine.with_after_act(steps::settle).with_own_workflows(workflows::BUILT_IN_NAMES);
        Ok(Self { engine, actor: actor(), tasks, stop })
    }

    /// What follows from the acts is published before the program ends.
    pub(super) async fn end(self) {
        self.stop.cancel();
        self.tasks.wait().await;
    }
}

/// Says why an act was refused; what is no refusal is an error.
pub(super) fn refused(context: &Context, error: ActError) -> anyhow::Result<Ending> {
    let answer = match &error {
        ActError::Illegal { status, allowed } => {
            json!({ "code": "illegal_act", "detail": error.to_string(), "saga_status": status, "allowed": allowed })
        }
        ActError::Covers { consumers, .. } => {
            json!({ "code": "illegal_act", "detail": error.to_string(), "consumers": consumers })
        }
        ActError::Ran(outcome) => {
            json!({ "code": "illegal_act", "detail": error.to_string(), "outcome": outcome })
        }
        _ => return Err(error.into()),
    };
    context.output.answer(&answer, |answer| {
        let line = match &error {
            ActError::Illegal { allowed, .. } if allowed.is_empty() => format!("{error}; nothing is"),
            ActError::Illegal { allowed, .. } => format!("{error}; allowed: {}", allowed.join(", ")),
            ActError::Ran(_) => format!("{error}: {}", answer["outcome"]),
            _ => format!("{error}; --whole-consumer pauses all of it"),
        };
        escape_line(&line).into_owned()
    })?;
    Ok(Ending::Wrong)
}
