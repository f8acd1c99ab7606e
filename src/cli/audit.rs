//! `audit`: the verdict over the database, invariant by invariant.

use super::output::table;
use super::{Context, Ending};
use crate::audit::{self, Invariant, Report, Verdict};
use crate::text::escape_line;

/// Examples of a broken invariant that people are shown; JSON has more.
const SHOWN: usize = 10;

#[derive(clap::Args, Debug)]
pub(super) struct Arguments {
    /// Also end with 1 if a saga is stuck or points are left to settle
    #[arg(long)]
    strict: bool,
}

pub(super) async fn run(context: &Context, arguments: &Arguments) -> anyhow::Result<Ending> {
    let pool = context.database().await?;
    let report = audit::run(&pool).await?;
    context.output.answer(&report, text)?;
    Ok(if report.is_good(arguments.strict) { Ending::Good } else { Ending::Wrong })
}

/// The report as people read it.
pub fn text(report: &Report) -> String {
    let rows = Invariant::ALL.map(|invariant| {
        let broken = report.broken.iter().find(|broken| broken.invariant == invariant);
        let verdict = broken.map_or("ok".to_owned(), |broken| format!("BROKEN: {}", broken.count));
        [invariant.name().to_owned(), invariant.sentence().to_owned(), verdict]
    });
    let mut lines = vec![table(["Invariant", "Demands", "Verdict"], rows)];
    for broken in &report.broken {
        lines.push(format!("\n{} does not hold:", broken.invariant.name()));
        for example in broken.examples.iter().take(SHOWN) {
            lines.push(escape_line(&format!("  {}  {}", example.id, example.problem)).into_owned());
        }
        let more = broken.count - broken.examples.len().min(SHOWN) as i64;
        if more > 0 {
            lines.push(format!("  and {more} more"));
        }
    }
    for saga in &report.stuck {
        let line = format!(
            "stuck: {} {} in {} ({}) since {}: {}",
            saga.workflow,
            saga.id,
            saga.step,
            saga.direction,
            saga.since.format("%F %T"),
            saga.reason.as_deref().unwrap_or("no reason given")
        );
        lines.push(escape_line(&line).into_owned());
    }
    for left in &report.unsettled_points {
        let what = match left.what.as_str() {
            "owed" => "points are owed for tickets that were not paid",
            _ => "points are taken and there is no ticket",
        };
        lines.push(format!(
            "to settle: {} {what}; user {}, reservation {}, saga {} ({})",
            left.points, left.user_id, left.reservation_id, left.saga_id, left.saga_status
        ));
    }
    lines.push(summary(report));
    lines.join("\n")
}

fn summary(report: &Report) -> String {
    let counted = &report.counted;
    let verdict = match report.verdict {
        Verdict::Good => "good",
        Verdict::Broken => "BROKEN",
    };
    format!(
        "The audit is {verdict}: {} seats sold, {} tickets, {} confirmed reservations, {} held seats, \
         {} ledger entries, {} points taken, {} sagas ended, {} under way, {} stuck.",
        counted.seats_sold,
        counted.tickets_valid,
        counted.confirmed_reservations,
        counted.seats_held,
        counted.ledger_entries,
        counted.points_taken,
        counted.sagas_ended,
        counted.sagas_open,
        counted.sagas_stuck
    )
}
