//! Whole visits at a fixed rate: people come, join the line, are admitted, look at the seats, hold one and pay for it.
//!
//! An open model: visitors come when they are due, whatever became of those before them, and each of their requests is timed from
//! when it was due. The time of a whole visit leaves out the pauses that the service asked for in line, so it is what the
//! service adds to a visit. The line does not limit visitors; the scenario `queue` measures waiting.
//!
//! Visitors are signed in and have points before the run. The map shows all seats of a date; each visitor takes one that
//! no other visitor wants. Holds and payments have idempotency keys, as those of an application would.

mod visit;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;
use serde_json::{Value, json};

use self::visit::{PARTS, Visitor, Visits};
use super::client::Client;
use super::cost::{Cost, Reading};
use super::halls::Halls;
use super::load::{Loaded, on_schedule};
use super::people::People;
use super::progress::Progress;
use super::report::{Measure, Report};
use super::stage::{ALL_ROLES, Stage, Wanted};
use super::timing::{Spread, Timings};
use super::{Plan, admitted};
use crate::store::rehearsal;

/// Visitors per second, one rate after the other.
const RATES: [u32; 4] = [50, 100, 200, 400];
const SECONDS: u32 = 10;
/// Visitors of the warm-up, in all: it opens connections and prepares statements.
const WARM_UP: u32 = 200;
/// Seats of one date: the size of every visitor's map.
const HALL: u32 = 2_000;
/// Points of each.
const POINTS: i64 = 1_000_000;

/// The result of one rate.
struct Step {
    rate: u32,
    visits: Visits,
    loaded: Loaded,
    cost: Cost,
    cores: Value,
}

pub(super) async fn run(plan: &Plan, progress: &Progress) -> anyhow::Result<Report> {
    let rates = plan.rate.map_or(RATES.to_vec(), |rate| vec![rate]);
    let seconds = plan.seconds.unwrap_or(SECONDS);
    let stage = Stage::open(plan, Wanted { settings: &admitted::SETTINGS, ..Wanted::default() }).await?;
    let service = stage.serve(ALL_ROLES).await?;
    let warm_up = WARM_UP.min(rates[0] * seconds);
    let people = warm_up + seconds * rates.iter().sum::<u32>();
    let mut visitors = gather(&stage, &service.client, people, progress).await?.into_iter();
    let warming = visitors.by_ref().take(warm_up as usize).collect();
    let warmed = come(&stage, &service.client, warming, rates[0], progress).await?;
    let mut steps = Vec::new();
    for rate in rates {
        let due = visitors.by_ref().take((rate * seconds) as usize).collect();
        steps.push(come(&stage, &service.client, due, rate, progress).await?);
    }
    let mut report = report(&steps).with("seconds", seconds).with("seats_of_a_date", HALL);
    report.errors += warmed.loaded.errors;
    stage.close(vec![service], report).await
}

/// Makes the visitors, each with points, and a seat for each, on as many dates as they need.
async fn gather(
    stage: &Stage,
    client: &Client,
    people: u32,
    progress: &Progress,
) -> anyhow::Result<Vec<Visitor>> {
    progress.begin("seats and visitors get ready", 0);
    let queue = json!({ "max_active": 1_000_000, "admit_per_minute": 6_000_000 });
    let halls = Halls::of_size(stage, client, queue, people, HALL).await?;
    let signed = People::of(stage);
    let (mut ids, mut visitors) = (Vec::new(), Vec::new());
    for place in 0..people {
        let (id, caller) = signed.somebody()?;
        let (performance, seat) = halls.seat(place).context("there are fewer seats than visitors")?;
        ids.push(id);
        visitors.push(Visitor { caller, concert: halls.concert, performance, seat });
    }
    rehearsal::endow(&stage.pool, &ids, POINTS).await?;
    Ok(visitors)
}

/// Runs these visits at a rate per second.
async fn come(
    stage: &Stage,
    client: &Client,
    visitors: Vec<Visitor>,
    rate: u32,
    progress: &Progress,
) -> anyhow::Result<Step> {
    let total = visitors.len() as u32;
    progress.begin(&format!("{rate} people a second"), total.into());
    let visits = Arc::new(Mutex::new(Visits::default()));
    let before = Reading::take(stage).await?;
    let loaded = on_schedule(rate, total, progress, |number, due| {
        let (client, visits) = (client.clone(), Arc::clone(&visits));
        let visitor = visitors[number as usize].clone();
        async move {
            let visit = visitor.visit(&client, due).await?;
            visits.lock().unwrap_or_else(PoisonError::into_inner).add(&visit);
            Ok(())
        }
    })
    .await;
    let after = Reading::take(stage).await?;
    let visits = visits.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let cost = after.since(&before, visits.count());
    let cores = json!(after.cores_since(&before, Duration::from_secs_f64(loaded.seconds)));
    Ok(Step { rate, visits, loaded, cost, cores })
}

fn report(steps: &[Step]) -> Report {
    let measures = steps.iter().map(|step| {
        let name = match step.rate {
            50 => "whole visit, 50 a second",
            100 => "whole visit, 100 a second",
            200 => "whole visit, 200 a second",
            400 => "whole visit, 400 a second",
            _ => "whole visit",
        };
        Measure::without_goal(name, &step.visits.parts[0])
    });
    let mut report = Report::new("journey", measures.collect());
    if let Some(last) = steps.last() {
        report = report.work(last.visits.count(), last.loaded.seconds, None);
        report.server_cpu_s_per_1000 = last.cost.server_cpu_s_per_1000;
    }
    report.errors = steps.iter().map(|step| step.loaded.errors).sum();
    let mut late = Timings::default();
    steps.iter().for_each(|step| late.extend(step.loaded.late.clone()));
    report.generator_late = late.spread();
    let header = ["a second", "part", "count", "p50 ms", "p95 ms", "p99 ms", "max ms"];
    report.table = vec![header.map(str::to_owned).into()];
    report.table.extend(steps.iter().flat_map(rows));
    report.with("points", steps.iter().map(point).collect::<Vec<_>>())
}

/// A line for each part, as people read it.
fn rows(step: &Step) -> Vec<Vec<String>> {
    let named = PARTS.iter().zip(&step.visits.parts).chain([(&"(pauses)", &step.visits.paused)]);
    let row = |(part, timings): (&&str, &Timings)| {
        let Spread { count, p50_ms, p95_ms, p99_ms, max_ms } = timings.spread()?;
        let figures = [p50_ms, p95_ms, p99_ms, max_ms].map(|ms| format!("{ms:.1}"));
        let named = [step.rate.to_string(), (*part).to_owned(), count.to_string()];
        Some(named.into_iter().chain(figures).collect())
    };
    named.filter_map(row).collect()
}

fn point(step: &Step) -> Value {
    let paused = step.visits.paused.spread();
    let mut point = json!({
        "rate": step.rate,
        "visits": step.visits.count(),
        "errors": step.loaded.errors,
        "per_second": (step.visits.count() as f64 / step.loaded.seconds).round(),
        "generator_late_p99_ms": step.loaded.late.spread().map(|spread| spread.p99_ms),
        "pauses_asked_for": paused,
        "cores": step.cores,
        "cost": step.cost,
    });
    for (part, timings) in PARTS.iter().zip(&step.visits.parts) {
        let spread = timings.spread();
        point[format!("{part}_p50_ms")] = json!(spread.map(|spread| spread.p50_ms));
        point[format!("{part}_p99_ms")] = json!(spread.map(|spread| spread.p99_ms));
        point[format!("{part}_max_ms")] = json!(spread.map(|spread| spread.max_ms));
    }
    point
}
