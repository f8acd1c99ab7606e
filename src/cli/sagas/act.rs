//! `saga retry` and its like: one act on one saga, written down with who and why.

use std::sync::Arc;

use serde_json::json;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use super::super::{Context, Ending, Misuse};
use super::about;
use crate::app;
use crate::operations::{AskError, SagaView};
use crate::orchestrator::{ActError, Engine};
use crate::saga::Act;
use crate::workers::Service;

/// An act, and why.
#[derive(clap::Args, Debug)]
pub(in crate::cli) struct What {
    /// The saga
    id: Uuid,
    /// Why; it is written down
    #[arg(long)]
    reason: String,
}

pub(super) async fn run(context: &Context, act: Act, what: &What) -> anyhow::Result<Ending> {
    if what.reason.trim().is_empty() {
        return Err(Misuse("an act needs a reason".to_owned()).into());
    }
    let pool = context.database().await?;
    let catalogue = Arc::new(app::catalogue(&context.settings)?);
    let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
    let engine = Engine::start(pool, context.bus().await?, catalogue, Service::NAMES, &tasks, &stop).await?;
    let actor = format!("cli:{}", std::env::var("USER").unwrap_or_else(|_| "unknown".to_owned()));
    let done = engine.act(what.id, act, &actor, &what.reason).await;
    // What follows from the act is published before the program ends.
    stop.cancel();
    tasks.close();
    tasks.wait().await;
    match done {
        Ok(acted) => {
            context.output.answer(&SagaView::from(acted.saga), |object| {
                format!("The saga is now {} in {}.", object.status, object.step)
            })?;
            Ok(Ending::Good)
        }
        Err(ActError::Unknown) => Err(about(what.id)(AskError::Unknown)),
        Err(refused @ ActError::Illegal { .. }) => {
            let ActError::Illegal { status, allowed } = &refused else {
                return Err(refused.into());
            };
            let told = json!({ "code": "illegal_act", "saga_status": status, "allowed": allowed });
            context
                .output
                .answer(&told, |_| format!("{refused}; allowed: {}", or_none(&allowed.join(", "))))?;
            Ok(Ending::Wrong)
        }
        Err(error) => Err(error.into()),
    }
}

fn or_none(text: &str) -> &str {
    if text.is_empty() { "none" } else { text }
}
