//! Compares the counted costs of a booking (statements, rows, bytes; no times) with an agreed baseline.
//!
//! Bookings one at a time, 32 at a time and 256 at a time. One at a time no booking shares its statements with another, except those of the
//! tasks that write ten times a second for all bookings of that time. With more, the sizes of batches depend on the machine, and so do
//! statements, commits, messages and allocations; rows, index entries and bytes of the log do not.

use std::path::Path;

use anyhow::Context;
use serde::Deserialize;
use serde_json::{Value, json};

use super::Plan;
use super::growth::{self, Level, PerBooking};
use super::progress::Progress;
use super::report::{Goal, Measure, Report};
use super::stage::ALL_ROLES;

/// Bookings, and how many of them at a time.
const LOADS: [(u32, u32); 3] = [(200, 1), (320, 32), (768, 256)];
/// The allowed factor for counts: the service's periodic statements are counted too.
const COUNTS: f64 = 1.05;
/// Queue journal, flights and answers under idempotency keys are written by tasks, for all bookings of a tenth of a second. The slower the
/// machine, the fewer those are.
const PARTLY_BY_TASKS: f64 = 1.4;
/// The allowed factor for figures that differ a little from run to run.
const VARYING: f64 = 1.10;
/// The allowed factor for figures that depend on the sizes of batches.
const BATCHED: f64 = 1.6;
/// A growth below this amount is ignored.
const SLACK: f64 = 0.1;
/// The allowed factor for the bytes of one statement: they include whole pages, whose number is random.
const MUCH_MORE: f64 = 1.5;

/// The baseline: an earlier report.
#[derive(Debug, Deserialize)]
struct Agreed {
    taken: Vec<Value>,
}

pub(super) async fn run(plan: &Plan, progress: &Progress) -> anyhow::Result<Report> {
    let loads = match plan.holds {
        Some(bookings) => vec![(bookings, 1)],
        None => LOADS.to_vec(),
    };
    let agreed = plan.against.as_deref().map(read).transpose()?;
    let stage = growth::open(plan).await?;
    let service = stage.serve(ALL_ROLES).await?;
    let mut levels = Vec::new();
    for load in &loads {
        levels.push(growth::measure(&stage, &service, *load, 0, progress).await?);
    }
    let alone = levels.first().context("there is a load")?;
    let measures = vec![
        Measure::without_goal("a payment", &alone.timings[1]),
        Measure::without_goal("a hold", &alone.timings[0]),
    ];
    let bookings: u32 = loads.iter().map(|(bookings, _)| bookings).sum();
    let seconds = levels.iter().map(|level| level.seconds).sum();
    let mut report = Report::new("gate", measures).work(bookings.into(), seconds, None);
    if let Some(Agreed { taken }) = &agreed {
        let mut all_grown = Vec::new();
        for level in &levels {
            let same_load = |earlier: &&Value| earlier["at_once"] == level.at_once;
            let earlier = taken.iter().find(same_load);
            let earlier =
                earlier.with_context(|| format!("no figures were agreed on for {}", level.at_once))?;
            report.goals.extend(goals(level, earlier)?);
            if level.at_once == 1 {
                all_grown = grown(
                    &serde_json::from_value::<Vec<PerBooking>>(earlier["by_statement"].clone())?,
                    level,
                );
            }
        }
        report = report.with("grown", json!(all_grown));
    }
    report.table = table(&levels);
    let report = report.with("bookings", bookings).with("taken", json!(levels));
    stage.close(vec![service], report).await
}

fn read(file: &Path) -> anyhow::Result<Agreed> {
    let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    serde_json::from_str(&text)
        .with_context(|| format!("{} is not a report of this scenario", file.display()))
}

/// The counted figures: the name in the report, a label for people, and the allowed factors with one booking in flight and with more.
const FIGURES: [(&str, &str, f64, f64); 11] = [
    ("statements", "statements", BATCHED, BATCHED),
    ("own_statements", "statements that no other booking shares", VARYING, COUNTS),
    ("commits", "commits", PARTLY_BY_TASKS, BATCHED),
    ("jetstream_messages", "JetStream messages", COUNTS, BATCHED),
    ("rows_inserted", "rows inserted", COUNTS, VARYING),
    ("heap_only_updates", "heap-only updates", VARYING, VARYING),
    ("full_updates", "full updates", COUNTS, BATCHED),
    ("index_entries", "index entries", COUNTS, VARYING),
    ("row_locks", "row locks", PARTLY_BY_TASKS, BATCHED),
    ("log_bytes", "bytes of the log", VARYING, VARYING),
    ("allocations", "allocations in the service", VARYING, BATCHED),
];

/// Compares a load with the baseline: a goal for each figure that it has.
fn goals(level: &Level, agreed: &Value) -> anyhow::Result<Vec<Goal>> {
    let now = json!(level);
    let goal = |(field, name, alone, batched): (&str, &str, f64, f64)| {
        let before =
            agreed[field].as_f64().with_context(|| format!("no figure was agreed on for {field}"))?;
        let factor = if level.at_once == 1 { alone } else { batched };
        let most = ((before * factor).max(before + SLACK) * 100.0).round() / 100.0;
        Ok(Goal::at_most(format!("{name} per booking, {} at once", level.at_once), now[field].as_f64(), most))
    };
    FIGURES.into_iter().map(goal).collect()
}

fn table(levels: &[Level]) -> Vec<Vec<String>> {
    let loads = levels.iter().map(|level| format!("{} at once", level.at_once));
    let header = std::iter::once("per booking".to_owned()).chain(loads).collect();
    let rows = FIGURES.into_iter().map(|(field, name, ..)| {
        let figures = levels.iter().map(|level| json!(level)[field].to_string());
        std::iter::once(name.to_owned()).chain(figures).collect()
    });
    std::iter::once(header).chain(rows).collect()
}

/// The statements that are new, are executed more often or write more than in the baseline.
fn grown(agreed: &[PerBooking], level: &Level) -> Vec<String> {
    let known = |statement: &str| agreed.iter().find(|known| known.statement == statement);
    let change = |now: &PerBooking| match known(&now.statement) {
        None => {
            Some(format!("new: {} times, {} bytes of the log: {}", now.calls, now.log_bytes, now.statement))
        }
        Some(before) => {
            let more = now.calls > before.calls * COUNTS || now.log_bytes > before.log_bytes * MUCH_MORE;
            more.then(|| {
                format!(
                    "{} times, was {}; {} bytes of the log, was {}: {}",
                    now.calls, before.calls, now.log_bytes, before.log_bytes, now.statement
                )
            })
        }
    };
    level.by_statement.iter().filter_map(change).collect()
}
