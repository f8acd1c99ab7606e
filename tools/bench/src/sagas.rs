//! Whole sagas, one request each: start, hold, pay, confirmed. The engine alone, without a line in front of it.
//!
//! A cashier sells seats to buyers who pay at once, so each request is one saga from its start to its end. The wait for
//! the payment is passed over: no alarm is set for the hold. The four events of a booking are published as always.

use std::time::{Duration, Instant};

use anyhow::bail;
use serde::Deserialize;

use super::Plan;
use super::client::Client;
use super::counter::Counter;
use super::lanes::{self, Circle, Rounds};
use super::progress::Progress;
use super::report::{Goal, Report};
use super::stage::{ALL_ROLES, Stage, Wanted};

/// Callers at once, one number after the other.
const CALLERS: [u32; 3] = [256, 32, 1];
const SECONDS: u32 = 10;
const WARM_UP: Duration = Duration::from_secs(4);
/// Seats for each second: more than any machine sells.
const PER_SECOND: u32 = 12_000;

pub(super) async fn run(plan: &Plan, progress: &Progress) -> anyhow::Result<Report> {
    let callers = plan.concurrency.map_or(CALLERS.to_vec(), |callers| vec![callers]);
    let measured = Duration::from_secs(plan.seconds.unwrap_or(SECONDS).into());
    let stage = Stage::open(plan, Wanted::default()).await?;
    let service = stage.serve(ALL_ROLES).await?;
    let per_run = PER_SECOND.min(plan.rate.unwrap_or(PER_SECOND));
    let seats = per_run * (measured + WARM_UP).as_secs() as u32 * callers.len() as u32;
    let counter = Counter::open(&stage, &service.client, seats, progress).await?;
    let mut all = Vec::new();
    for callers in callers {
        let circle = Circle { callers, warm_up: WARM_UP, measured };
        let (client, counter) = (service.client.clone(), counter.clone());
        let rounds = circle.run(&stage, progress, move || sell(client.clone(), counter.clone())).await?;
        all.push(rounds);
    }
    let report = lanes::report("sagas", &all, Rounds::measures, goals, Rounds::point);
    stage.close(vec![service], report).await
}

/// One saga; how long it took.
async fn sell(client: Client, counter: Counter) -> anyhow::Result<[Duration; 1]> {
    #[derive(Deserialize)]
    struct Sold {
        status: String,
    }
    let lot = counter.next()?;
    let begun = Instant::now();
    let answer = counter.sell(&client, lot).await?;
    let took = begun.elapsed();
    match answer.yes::<Sold>()?.status.as_str() {
        "confirmed" => Ok([took]),
        other => bail!("a sale was answered {} with a reservation that is {other}", answer.status),
    }
}

fn goals(rounds: &Rounds<1>) -> Vec<Goal> {
    let (rate, cpu) = (rounds.per_second(), rounds.cost.server_cpu_s_per_1000);
    let spread = rounds.parts[0].spread();
    match rounds.callers {
        256 => vec![
            Goal::at_least("sagas a second, 256 at once", rate, 6_000.0),
            Goal::at_most("p99 of 256 at once, ms", spread.map(|spread| spread.p99_ms), 60.0),
            Goal::at_most("processor seconds per thousand, 256 at once", cpu, 0.22),
        ],
        32 => vec![
            Goal::at_least("sagas a second, 32 at once", rate, 3_000.0),
            Goal::at_most("processor seconds per thousand, 32 at once", cpu, 0.45),
        ],
        1 => vec![Goal::at_most("p50 of one at a time, ms", spread.map(|spread| spread.p50_ms), 3.0)],
        _ => Vec::new(),
    }
}
