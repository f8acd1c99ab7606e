//! Tickets at the entrance: different tickets scanned at a fixed rate, by gates that do not wait for each other.
//!
//! The time of a scan counts from when it was due. Before the scans the tickets are sold at the counter, which is not
//! measured. After them one ticket is scanned a thousand times at once, of which one scan must admit.

use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, bail};
use futures::{StreamExt, TryStreamExt};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::Plan;
use super::client::{Caller, Client};
use super::counter::Counter;
use super::load;
use super::progress::Progress;
use super::report::{Goal, Measure, Quantile, Report};
use super::stage::{ALL_ROLES, Meter, Stage, Wanted};
use super::timing::Timings;
use boxoffice::store::api_keys::Role;

/// Scans per second.
const RATE: u32 = 500;
const SECONDS: u32 = 40;
/// What 99 of 100 scans must take at most, in milliseconds.
const P99_GOAL_MS: f64 = 20.0;
/// Tickets that are sold at once before the scans.
const SALES_AT_ONCE: usize = 64;
/// Scans of one ticket at once, after the others.
const SCANS_OF_ONE: u32 = 1_000;
/// Gates that take turns.
const GATES: u32 = 12;
/// The dates are in a month.
const SETTINGS: [(&str, &str); 1] = [("BOXOFFICE_GATE_BEFORE_MINUTES", "525600")];

const PATH: &str = "/v1/tickets/redemptions";

pub(super) async fn run(plan: &Plan, progress: &Progress) -> anyhow::Result<Report> {
    let rate = plan.rate.unwrap_or(RATE);
    let scans = rate * plan.seconds.unwrap_or(SECONDS);
    let stage = Stage::open(plan, Wanted { settings: &SETTINGS, ..Wanted::default() }).await?;
    let scanner = stage.key(Role::Gate).await?;
    let service = stage.serve(ALL_ROLES).await?;
    let counter = Counter::open(&stage, &service.client, scans + 1, progress).await?;
    progress.begin("tickets are sold", u64::from(scans) + 1);
    let sales = futures::stream::iter(0..=scans).map(|_| sell(&service.client, &counter, progress));
    let mut codes: Vec<String> = sales.buffer_unordered(SALES_AT_ONCE).try_collect().await?;
    let last = codes.pop().context("a ticket is left for the scans of one")?;

    progress.begin("tickets are scanned", scans.into());
    let (timings, codes) = (Arc::new(Mutex::new(Timings::default())), Arc::new(codes));
    let meter = Meter::start();
    let loaded = load::on_schedule(rate, scans, progress, |number, due| {
        let (timings, codes) = (Arc::clone(&timings), Arc::clone(&codes));
        let (client, scanner) = (service.client.clone(), scanner.clone());
        async move { admit(&client, &scanner, &codes, number, due, &timings).await }
    })
    .await;
    let cpu = meter.read();
    let admitted = scan_one(&service.client, &scanner, &last).await?;

    let timings = timings.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let measures = vec![Measure::with_goal("a scan", &timings, Quantile::P99, P99_GOAL_MS)];
    let mut report = Report::new("redemptions", measures)
        .work(timings.count(), loaded.seconds, cpu)
        .with("scans_of_one_ticket", SCANS_OF_ONE)
        .with("of_these_admitted", admitted);
    report.errors = loaded.errors;
    report.generator_late = loaded.late.spread();
    report.goals.push(Goal::at_most("scans of one ticket that admit", Some(f64::from(admitted)), 1.0));
    stage.close(vec![service], report).await
}

/// The code of a ticket that was just sold.
async fn sell(client: &Client, counter: &Counter, progress: &Progress) -> anyhow::Result<String> {
    #[derive(Deserialize)]
    struct Sold {
        tickets: Vec<Ticket>,
    }
    #[derive(Deserialize)]
    struct Ticket {
        code: String,
    }
    let sold = counter.sell(client, counter.next()?).await?.yes::<Sold>()?;
    progress.more(1);
    Ok(sold.tickets.into_iter().next().context("a sale has a ticket")?.code)
}

fn scan(code: &str, number: u32) -> Value {
    json!({ "code": code, "gate": format!("gate {}", number % GATES) })
}

async fn admit(
    client: &Client,
    scanner: &Caller,
    codes: &[String],
    number: u32,
    due: Instant,
    timings: &Mutex<Timings>,
) -> anyhow::Result<()> {
    let code = codes.get(number as usize).context("there is a ticket for every scan")?;
    let answer = client.post_once(PATH, scanner, &scan(code, number)).await?;
    if answer.status != 201 {
        bail!("a scan was answered {} {}", answer.status, answer.body());
    }
    timings.lock().unwrap_or_else(PoisonError::into_inner).add_duration(due.elapsed());
    Ok(())
}

/// Scans one ticket many times at once; how many of the scans admit.
async fn scan_one(client: &Client, scanner: &Caller, code: &str) -> anyhow::Result<u32> {
    let scans = futures::stream::iter(0..SCANS_OF_ONE).map(async |number| {
        let answer = client.post_once(PATH, scanner, &scan(code, number)).await?;
        match answer.status {
            201 => anyhow::Ok(1),
            409 => Ok(0),
            other => bail!("a scan was answered {other} {}", answer.body()),
        }
    });
    scans.buffer_unordered(SCANS_OF_ONE as usize).try_fold(0, async |sum, one| Ok(sum + one)).await
}
