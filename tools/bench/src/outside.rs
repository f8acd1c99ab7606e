//! Sagas whose three steps are done by a service elsewhere: another process with a database of its own, by the worker SDK.
//!
//! The work of the steps is the same small SQL that other engines are measured with (see `bench/NOTES.md`).

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use serde::Deserialize;
use serde_json::json;
use tokio::process::Child;

use super::Plan;
use super::client::{Caller, Client};
use super::lanes::{self, Circle, Rounds};
use super::outside_worker;
use super::progress::Progress;
use super::report::Report;
use super::stage::{ALL_ROLES, Stage, Wanted};
use crate::store::shop;

/// Callers at once, one number after the other.
const CALLERS: [u32; 3] = [256, 32, 1];
const SECONDS: u32 = 10;
const WARM_UP: Duration = Duration::from_secs(4);
/// Seats for each second: more than any machine sells.
const PER_SECOND: u32 = 4_000;

pub(super) async fn run(plan: &Plan, progress: &Progress) -> anyhow::Result<Report> {
    let callers = plan.concurrency.map_or(CALLERS.to_vec(), |callers| vec![callers]);
    let measured = Duration::from_secs(plan.seconds.unwrap_or(SECONDS).into());
    let wanted = Wanted { workflow: Some(include_str!("workflows/outside.toml")), ..Wanted::default() };
    let stage = Stage::open(plan, wanted).await?;
    let service = stage.serve(ALL_ROLES).await?;
    let seats = PER_SECOND * (measured + WARM_UP).as_secs() as u32 * callers.len() as u32;
    progress.begin("seats and buyers get ready", 0);
    let database = shop::create(stage.superuser_url(), seats).await?;
    let worker = outside_worker::spawn(&database, stage.nats_url())?;
    let customers =
        Customers { admin: stage.admin.clone(), client: service.client.clone(), next: Arc::default() };
    // The worker creates its consumers first.
    customers.book().await?;
    let mut all = Vec::new();
    for callers in callers {
        let (circle, customers) = (Circle { callers, warm_up: WARM_UP, measured }, customers.clone());
        all.push(circle.run(&stage, progress, move || round(customers.clone())).await?);
    }
    let wrong = compare(&database, &customers).await?;
    finish(worker).await?;
    let mut report = lanes::report("outside", &all, Rounds::measures, |_| Vec::new(), Rounds::point);
    report.errors += wrong;
    stage.close(vec![service], report).await
}

#[derive(Clone, Debug)]
struct Customers {
    admin: Caller,
    client: Client,
    next: Arc<AtomicI64>,
}

impl Customers {
    /// Starts a saga and waits for its end.
    async fn book(&self) -> anyhow::Result<()> {
        #[derive(Deserialize)]
        struct Ended {
            status: String,
        }
        let seat = self.next.fetch_add(1, Ordering::Relaxed) + 1;
        let input = json!({ "seat": seat, "user": seat % shop::USERS + 1, "price": 100 });
        let path = "/v1/workflows/outside/sagas?wait=30";
        let answer = self.client.post(path, &self.admin, json!({ "input": input })).await?;
        match answer.yes::<Ended>()?.status.as_str() {
            "completed" => Ok(()),
            other => bail!("a saga was answered {} with the status {other}", answer.status),
        }
    }
}

async fn round(customers: Customers) -> anyhow::Result<[Duration; 1]> {
    let begun = Instant::now();
    customers.book().await?;
    Ok([begun.elapsed()])
}

/// 1 if the service's tables do not have exactly the bookings that were begun.
async fn compare(url: &str, customers: &Customers) -> anyhow::Result<u64> {
    let begun = customers.next.load(Ordering::Relaxed);
    let counts = shop::counts(url).await?;
    let is_right = counts == shop::Counts { sold: begun, held: 0, paid: begun, tickets: begun };
    if !is_right {
        tracing::error!(begun, ?counts, "the tables of the service are not right");
    }
    Ok(u64::from(!is_right))
}

async fn finish(mut worker: Child) -> anyhow::Result<()> {
    ensure!(worker.try_wait()?.is_none(), "the worker has ended before its time");
    worker.kill().await.context("the worker cannot be ended")
}
