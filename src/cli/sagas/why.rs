//! `saga why`: one line.

use uuid::Uuid;

use super::super::{Context, Ending};
use super::about;
use crate::operations::why::{self, Why};
use crate::saga::WorkflowRegistry;

pub(super) async fn run(context: &Context, id: Uuid) -> anyhow::Result<Ending> {
    let registry = WorkflowRegistry::default();
    let pool = context.database().await?;
    // Without NATS there is still an answer, and it says that NATS is away.
    let bus = context.bus().await.ok();
    let facts = why::ask(&pool, &registry, bus.as_ref(), id).await.map_err(about(id))?;
    context.output.answer(&Why::from(facts), |why| why.sentence.clone())?;
    Ok(Ending::Good)
}
