//! `saga tail`: sagas as they move, until Ctrl-C.

use futures::StreamExt;

use super::super::{Context, Ending, Misuse, signals};
use crate::operations::tail::{self, TailFilter, Transition};
use crate::text::escape_line;

/// Which sagas to watch.
#[derive(clap::Args, Debug)]
pub(in crate::cli) struct Wanted {
    #[command(flatten)]
    filter: TailFilter,
    /// End after so many transitions
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
}

pub(super) async fn run(context: &Context, wanted: &Wanted) -> anyhow::Result<Ending> {
    if let Some((field, problem)) = wanted.filter.problems().first() {
        return Err(Misuse(format!("{field} {problem}")).into());
    }
    let stopped = signals::stopped(false)?;
    let bus = context.bus().await?;
    let mut told = tail::open(&bus.client, &wanted.filter).await?.take_until(Box::pin(stopped));
    bus.client.flush().await?;
    context.output.sentence("Watching; Ctrl-C ends it.");
    let mut left = wanted.count.unwrap_or(u64::MAX);
    while left > 0
        && let Some(transition) = told.next().await
    {
        context.output.answer(&transition, line)?;
        left -= 1;
    }
    Ok(Ending::Good)
}

fn line(told: &Transition) -> String {
    let reason = told.reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
    let line = format!(
        "{} {} {} #{} {} ({} {}) → {}{reason}",
        told.at.format("%T%.3f"),
        told.workflow,
        told.saga_id,
        told.seq,
        told.event,
        told.direction,
        told.step,
        told.status
    );
    escape_line(&line).into_owned()
}
