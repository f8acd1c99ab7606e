//! `saga acts`: who did what to which saga, when and why.

use chrono::{DateTime, Utc};

use super::super::output::table;
use super::super::{Context, Ending, Misuse};
use crate::operations::acts::{self, ActsFilter};

/// Which acts to list.
#[derive(clap::Args, Debug)]
pub(in crate::cli) struct Wanted {
    #[command(flatten)]
    filter: ActsFilter,
    /// Only acts before this one: the next page
    #[arg(long, value_name = "ID")]
    before: Option<i64>,
    /// At most so many
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(i64).range(1..=1000))]
    limit: i64,
}

pub(super) async fn run(context: &Context, wanted: &Wanted) -> anyhow::Result<Ending> {
    if let Some((field, problem)) = wanted.filter.problems().first() {
        return Err(Misuse(format!("{field} {problem}")).into());
    }
    let found = acts::list(&context.database().await?, &wanted.filter, wanted.before, wanted.limit).await?;
    context.output.lines(&found, || {
        let rows = found.iter().map(|act| {
            [
                time(act.at),
                act.actor.clone(),
                act.act.clone(),
                act.saga_id.map(|id| id.to_string()).or_else(|| act.target.clone()).unwrap_or_default(),
                format!("{} → {}", act.from_status, act.to_status),
                act.reason.clone(),
            ]
        });
        let listed = table(["At", "Who", "Act", "On", "From, to", "Why"], rows);
        let next = found.last().filter(|_| found.len() as i64 == wanted.limit);
        next.map_or(listed.clone(), |act| format!("{listed}\nThere are more: --before {}", act.id))
    })?;
    Ok(Ending::Good)
}

fn time(at: DateTime<Utc>) -> String {
    at.format("%F %T").to_string()
}
