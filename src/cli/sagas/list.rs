//! `saga list` and `saga counts`.

use serde_json::json;
use uuid::Uuid;

use super::super::output::table;
use super::super::{Context, Ending};
use super::check;
use crate::operations::{SagaFilter, SagaView, sagas};

/// Which sagas to list.
#[derive(clap::Args, Debug)]
pub(in crate::cli) struct Wanted {
    #[command(flatten)]
    filter: SagaFilter,
    /// Only sagas older than this one: the next page
    #[arg(long, value_name = "ID")]
    before: Option<Uuid>,
    /// At most so many
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(i64).range(1..=1000))]
    limit: i64,
}

pub(super) async fn run(context: &Context, wanted: &Wanted) -> anyhow::Result<Ending> {
    check(&wanted.filter)?;
    let pool = context.database().await?;
    let items = sagas::list_views(&pool, &wanted.filter, wanted.before, wanted.limit).await?;
    let next = items.last().map(|saga| saga.id).filter(|_| items.len() as i64 == wanted.limit);
    context.output.answer(&json!({ "items": items, "next_cursor": next }), |_| {
        let listed = table(["Id", "Workflow", "Status", "Step", "Due", "Reason"], items.iter().map(row));
        next.map_or(listed.clone(), |id| format!("{listed}\nThere are more: --before {id}"))
    })?;
    Ok(Ending::Good)
}

pub(super) async fn counts(context: &Context, filter: &SagaFilter) -> anyhow::Result<Ending> {
    check(filter)?;
    let items = sagas::counts(&context.database().await?, filter).await?;
    let total: i64 = items.iter().map(|count| count.count).sum();
    context.output.answer(&json!({ "items": items, "total": total }), |_| {
        let rows = items.iter().map(|count| {
            [
                format!("{} {}", count.workflow, count.version),
                count.status.to_string(),
                format!("{} {}", count.direction, count.step),
                count.count.to_string(),
            ]
        });
        format!("{}\n{total} in all", table(["Workflow", "Status", "Step", "Sagas"], rows))
    })?;
    Ok(Ending::Good)
}

fn row(saga: &SagaView) -> [String; 6] {
    let paused = if saga.paused { " (paused)" } else { "" };
    [
        saga.id.to_string(),
        saga.workflow.clone(),
        format!("{}{paused}", saga.status),
        format!("{} {}", saga.direction, saga.step),
        saga.due_at.map_or(String::new(), |due| due.format("%F %T").to_string()),
        saga.reason.clone().unwrap_or_default(),
    ]
}
