//! `saga batch`: one act on every saga that a filter finds, with a dry run, a pace, a bar, and a clean stop.

use std::io::IsTerminal;

use indicatif::{ProgressBar, ProgressStyle};
use tokio_util::sync::CancellationToken;

use super::super::output::table;
use super::super::{Context, Ending, Misuse, signals};
use super::acting::{Acting, Why};
use super::check;
use crate::operations::SagaFilter;
use crate::operations::batch::{self, Batch, Tally};

/// What to do, to which sagas, and how fast.
#[derive(clap::Args, Debug)]
pub(in crate::cli) struct Order {
    /// retry, skip-undo, cancel, abandon, pause or resume
    act: String,
    #[command(flatten)]
    filter: SagaFilter,
    #[command(flatten)]
    why: Why,
    /// Only look: how many there are, and which of them would be refused
    #[arg(long)]
    dry_run: bool,
    /// At most so many acts per second
    #[arg(long, default_value_t = batch::RATE_DEFAULT, value_parser = clap::value_parser!(u32).range(1..=i64::from(batch::RATE_MAX)))]
    rate: u32,
    /// At most so many sagas, the newest first
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=i64::from(batch::LIMIT_MAX)))]
    limit: u32,
}

pub(super) async fn run(context: &Context, order: Order) -> anyhow::Result<Ending> {
    let Some(act) = batch::act_named(&order.act) else {
        let acts = "retry, skip-undo, cancel, abandon, pause or resume";
        return Err(Misuse(format!("there is no batch of {}; choose {acts}", order.act)).into());
    };
    if order.filter.is_everything() {
        return Err(Misuse("a batch needs a filter, such as --status stuck".to_owned()).into());
    }
    check(&order.filter)?;
    order.why.check()?;
    let stopped = signals::stopped(false)?;
    let acting = Acting::begin(context).await?;
    let wanted = Batch {
        act,
        filter: order.filter,
        actor: acting.actor.clone(),
        reason: order.why.reason,
        dry_run: order.dry_run,
        per_second: order.rate,
        limit: order.limit,
    };
    let stop = CancellationToken::new();
    let bar = bar(context, &wanted);
    let tally = {
        let run = batch::run(&acting.engine, &wanted, &stop, |tally| show(&bar, &wanted, tally));
        tokio::pin!(run, stopped);
        tokio::select! {
            tally = &mut run => tally,
            // The current act is finished, and the result lists what was done.
            () = &mut stopped => {
                stop.cancel();
                run.await
            }
        }
    };
    bar.finish_and_clear();
    acting.end().await;
    let tally = tally?;
    let wrong = tally.refused > 0 || tally.stopped.is_some();
    context.output.answer(&tally, text)?;
    Ok(if wrong && !tally.dry_run { Ending::Wrong } else { Ending::Good })
}

fn bar(context: &Context, wanted: &Batch) -> ProgressBar {
    if context.output.is_json() || wanted.dry_run || !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(0);
    let style = ProgressStyle::with_template("{elapsed:>4} {wide_bar} {pos} of {len}  {msg}");
    bar.set_style(style.expect("the template is well formed"));
    bar
}

fn show(bar: &ProgressBar, wanted: &Batch, tally: &Tally) {
    bar.set_length(u64::try_from(tally.matched).unwrap_or(0).min(wanted.limit.into()));
    bar.set_position(tally.looked_at);
    if tally.refused > 0 {
        bar.set_message(format!("{} refused", tally.refused));
    }
}

fn text(tally: &Tally) -> String {
    let verb = if tally.dry_run { "would be done" } else { "done" };
    let mut text = format!(
        "{}: {} matched, {} looked at, {} {verb}, {} refused.",
        tally.act, tally.matched, tally.looked_at, tally.done, tally.refused
    );
    if !tally.refusals.is_empty() {
        let rows = tally.refusals.iter().map(|(why, count)| [count.to_string(), why.clone()]);
        text.push_str(&format!("\n{}", table(["Refused", "Because"], rows)));
    }
    if let Some(why) = &tally.stopped {
        text.push_str(&format!("\nIt ended early: {why}. What was done stays done."));
    } else if tally.more {
        text.push_str("\nThere are more: run it again, or raise --limit.");
    }
    text
}
