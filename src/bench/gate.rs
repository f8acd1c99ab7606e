//! What a booking takes, counted and not timed, against what it took when the figures were agreed on.
//!
//! Two hundred bookings one after the other: nothing is batched, so the counts are the same on every machine.

use std::path::Path;

use anyhow::Context;
use serde::Deserialize;
use serde_json::json;

use super::Plan;
use super::growth::{self, Level, PerBooking};
use super::progress::Progress;
use super::report::{Goal, Measure, Report};
use super::stage::ALL_ROLES;

/// How much more there may be: what the service does by the clock meanwhile is counted too.
const STATEMENTS: f64 = 1.03;
const COMMITS: f64 = 1.05;
const MESSAGES: f64 = 1.03;
const LOG_BYTES: f64 = 1.10;
/// What a single statement writes includes whole pages, whose number is a matter of chance.
const MUCH_MORE: f64 = 1.5;

/// The figures that were agreed on: an earlier report.
#[derive(Debug, Deserialize)]
struct Agreed {
    taken: Taken,
}

/// What a booking took.
#[derive(Debug, Deserialize)]
struct Taken {
    statements: f64,
    commits: f64,
    jetstream_messages: f64,
    log_bytes: f64,
    by_statement: Vec<PerBooking>,
}

pub(super) async fn run(plan: &Plan, progress: &Progress) -> anyhow::Result<Report> {
    let bookings = plan.holds.unwrap_or(200);
    let agreed = plan.against.as_deref().map(read).transpose()?;
    let stage = growth::open(plan).await?;
    let service = stage.serve(ALL_ROLES).await?;
    let level = growth::measure(&stage, &service.client, bookings, 0, progress).await?;
    let measures =
        vec![Measure::told("a payment", &level.timings[1]), Measure::told("a hold", &level.timings[0])];
    let mut report = Report::new("gate", measures).work(bookings.into(), level.seconds, None);
    if let Some(Agreed { taken }) = &agreed {
        let most = |name: &str, figure: f64, agreed: f64, factor: f64| {
            Goal::at_most(
                format!("{name} per booking"),
                Some(figure),
                (agreed * factor * 100.0).round() / 100.0,
            )
        };
        report.goals = vec![
            most("statements", level.statements, taken.statements, STATEMENTS),
            most("commits", level.commits, taken.commits, COMMITS),
            most("bytes of the log", level.log_bytes, taken.log_bytes, LOG_BYTES),
            most("JetStream messages", level.jetstream_messages, taken.jetstream_messages, MESSAGES),
        ];
        report = report.with("grown", json!(grown(taken, &level)));
    }
    let report = report.with("bookings", bookings).with("taken", json!(level));
    stage.close(vec![service], report).await
}

fn read(file: &Path) -> anyhow::Result<Agreed> {
    let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    serde_json::from_str(&text)
        .with_context(|| format!("{} is not a report of this scenario", file.display()))
}

/// The statements that are new, are executed more often or write more than was agreed.
fn grown(agreed: &Taken, level: &Level) -> Vec<String> {
    let known = |statement: &str| agreed.by_statement.iter().find(|known| known.statement == statement);
    let tell = |now: &PerBooking| match known(&now.statement) {
        None => {
            Some(format!("new: {} times, {} bytes of the log: {}", now.calls, now.log_bytes, now.statement))
        }
        Some(before) => {
            let more = now.calls > before.calls * STATEMENTS || now.log_bytes > before.log_bytes * MUCH_MORE;
            more.then(|| {
                format!(
                    "{} times, was {}; {} bytes of the log, was {}: {}",
                    now.calls, before.calls, now.log_bytes, before.log_bytes, now.statement
                )
            })
        }
    };
    level.by_statement.iter().filter_map(tell).collect()
}
