//! A cancelled date: how fast what was sold of it is refunded, and what that does to a sale of another date beside it.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, bail};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::Plan;
use super::client::Client;
use super::counter::Counter;
use super::load::{at_once, steadily};
use super::progress::Progress;
use super::report::{Goal, Measure, Report};
use super::stage::{ALL_ROLES, Meter, Stage, Wanted};
use super::timing::Timings;

/// Reservations that are refunded.
const REFUNDS: u32 = 50_000;
/// Sales per second of the other date.
const BESIDE: u32 = 100;
/// How long they are measured before the cancellation, in seconds.
const SECONDS: u32 = 30;
/// Callers who sell the date that is cancelled.
const SELLERS: u32 = 128;
/// Refunds per second that the job may begin.
const REFUND_RATE: u32 = 200;
/// Sales beside the refunds are prepared for so long, in seconds.
const LONGEST: u32 = 900;
/// How many times the p99 of the other date's sales may be what it was.
const SLOWER: f64 = 1.5;

pub(super) async fn run(plan: &Plan, progress: &Progress) -> anyhow::Result<Report> {
    let refunds = plan.holds.unwrap_or(REFUNDS);
    let (beside, seconds) = (plan.rate.unwrap_or(BESIDE), plan.seconds.unwrap_or(SECONDS));
    let stage = Stage::open(plan, Wanted::default()).await?;
    let service = stage.serve(ALL_ROLES).await?;
    let client = &service.client;
    let cancelled = Counter::open(&stage, client, refunds + 1, progress).await?;
    let most = beside * (seconds + LONGEST.min(refunds / REFUND_RATE * 4 + 60));
    let other = Counter::open(&stage, client, most, progress).await?;
    progress.begin("the date is sold out", refunds.into());
    let performance = cancelled.next()?.performance;
    let sold = at_once(SELLERS, refunds, progress, |_| sell(client.clone(), cancelled.clone())).await;

    progress.begin("another date is sold", (beside * seconds).into());
    let (alone, errors) = sales(client, &other, beside, beside * seconds, progress).await;
    progress.begin("and the first one refunded", refunds.into());
    let meter = Meter::start();
    let (begun, stop) = (Instant::now(), CancellationToken::new());
    let order = json!({ "reason": "the bench", "rate_per_second": REFUND_RATE });
    let path = format!("/v1/admin/performances/{performance}/cancellation");
    let job: Value = client.post(&path, &stage.admin, order).await?.yes()?;
    let job = job["id"].as_str().context("a job has an id")?.to_owned();
    let until_ended = async {
        loop {
            let answer = client.get(&format!("/v1/ops/batches/{job}"), &stage.admin).await?;
            let shown: Value = answer.yes()?;
            if shown["status"] != "running" {
                stop.cancel();
                return Ok::<_, anyhow::Error>((shown, begun.elapsed()));
            }
            sleep(Duration::from_millis(500)).await;
        }
    };
    let selling = sales_until(client, &other, beside, &stop, progress);
    let (ended, (during, more_errors)) = tokio::join!(until_ended, selling);
    let (ended, took) = ended?;
    let cpu = meter.read();
    let p99 = |timings: &Timings| timings.spread().map(|spread| spread.p99_ms);
    let ratio = p99(&during).zip(p99(&alone)).map(|(with, without)| with / without.max(0.1));
    let measures = vec![
        Measure::without_goal("a sale of another date, without the refunds", &alone),
        Measure::without_goal("a sale of another date, beside the refunds", &during),
    ];
    let done = ended["done"].as_u64().unwrap_or(0);
    let mut report = Report::new("refunds", measures).work(done, took.as_secs_f64(), cpu);
    report.goals.push(Goal::at_most("times the p99 of another date's sales is what it was", ratio, SLOWER));
    report.errors = sold.errors + errors + more_errors + u64::from(ended["status"] != "completed");
    let report = report
        .with("refunds", done)
        .with("failed", ended["failed"].clone())
        .with("rate_per_second", REFUND_RATE)
        .with("sales_beside_per_second", beside);
    stage.close(vec![service], report).await
}

/// Sells so many seats at this pace. How long each sale took, and how many failed.
async fn sales(
    client: &Client,
    counter: &Counter,
    rate: u32,
    total: u32,
    progress: &Progress,
) -> (Timings, u64) {
    let timings = Arc::new(Mutex::new(Timings::default()));
    let loaded = steadily(rate, total, progress, |_| {
        let (client, counter, timings) = (client.clone(), counter.clone(), Arc::clone(&timings));
        async move {
            let begun = Instant::now();
            sell(client, counter).await?;
            timings.lock().expect("no holder panics").add_duration(begun.elapsed());
            Ok(())
        }
    })
    .await;
    let timings = std::mem::take(&mut *timings.lock().expect("no holder panics"));
    (timings, loaded.errors)
}

/// The same second by second until the stop.
async fn sales_until(
    client: &Client,
    counter: &Counter,
    rate: u32,
    stop: &CancellationToken,
    progress: &Progress,
) -> (Timings, u64) {
    let (mut all, mut errors) = (Timings::default(), 0);
    while !stop.is_cancelled() {
        let (some, failed) = sales(client, counter, rate, rate, progress).await;
        all.extend(some);
        errors += failed;
    }
    (all, errors)
}

async fn sell(client: Client, counter: Counter) -> anyhow::Result<()> {
    let answer = counter.sell(&client, counter.next()?).await?;
    let status = answer.body()["status"].as_str().unwrap_or_default().to_owned();
    if answer.status == 201 && status == "confirmed" {
        return Ok(());
    }
    bail!("a sale was answered {} with a reservation that is {status:?}", answer.status)
}
