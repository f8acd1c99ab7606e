//! How late alarms ring, and how late seats are free again, while a great many alarms are pending.
//!
//! Each pending alarm is a schedule of the broker and a saga that waits for it. The sweeper, which would look once a
//! second and come before some alarms, is stopped: what is measured is the broker and the orchestrator alone.

use std::sync::Arc;
use std::time::Duration;

use chrono::TimeDelta;

use super::load::steadily;
use super::progress::Progress;
use super::report::{Measure, Quantile, Report};
use super::stage::{Meter, Stage, Wanted};
use super::timing::Timings;
use super::watch::Watch;
use super::{Plan, comes_true, crowd};
use crate::store::rehearsal;
use boxoffice::bus::messages;
use boxoffice::bus::publish::publish;
use boxoffice::ids;
use boxoffice::saga::Status;

const RUNG_GOAL_MS: f64 = 300.0;
const FREE_GOAL_MS: f64 = 500.0;
/// How long a hold lives.
const HOLD: Duration = Duration::from_secs(10);
/// Holds of one buyer; the service allows twelve seats.
const EACH: u32 = 10;
/// When the pending alarms are due.
const LATER: TimeDelta = TimeDelta::days(1);
/// Pending alarms that are added at once.
const CHUNK: u32 = 5_000;
/// How long the last holds may take beyond their end.
const PATIENCE: Duration = Duration::from_secs(60);

pub(super) async fn run(plan: &Plan, progress: &Progress) -> anyhow::Result<Report> {
    let (rate, seconds) = (plan.rate.unwrap_or(50), plan.seconds.unwrap_or(30));
    let pending = plan.pending.unwrap_or(100_000);
    let total = rate * seconds;
    let settings = [("BOXOFFICE_HOLD_SECONDS", "10"), ("BOXOFFICE_QUEUE_SESSION_SECONDS", "3600")];
    let stage = Stage::open(plan, Wanted { settings: &settings, ..Wanted::default() }).await?;
    let sweeper = stage.serve("api,scheduler").await?;
    let service = stage.serve("api,orchestrator,worker").await?;
    add_pending(&stage, pending, progress).await?;
    let crowd = crowd::gather(&stage, &service.client, total.div_ceil(EACH), total, progress).await?;
    sweeper.stop().await;

    let freed =
        Watch::transitions(&stage.bus, &stage.clock, |seen| seen.status == Status::Compensated).await?;
    progress.begin("holds are made and run out", total.into());
    let meter = Meter::start();
    let crowd = Arc::new(crowd);
    let loaded = steadily(rate, total, progress, |number| {
        let (client, crowd) = (service.client.clone(), Arc::clone(&crowd));
        async move {
            let buyer = &crowd.buyers[(number / EACH) as usize];
            client.reserve(buyer, crowd.performance, number + 1).await?.id().map(drop)
        }
    })
    .await;
    let made = u64::from(total) - loaded.errors;
    let all = comes_true(HOLD + PATIENCE, async || Ok(freed.count() as u64 >= made)).await?;
    let cpu = meter.read();

    let ran_out = rehearsal::ran_out(&stage.pool).await?;
    let rung: Timings = ran_out.iter().map(|hold| hold.rung - hold.due).collect();
    let free: Timings = ran_out.iter().filter_map(|hold| Some(freed.of(hold.id)? - hold.due)).collect();
    let measures = vec![
        Measure::with_goal("due to alarm in the orchestrator's hands", &rung, Quantile::P99, RUNG_GOAL_MS),
        Measure::with_goal("due to seat free, as watchers see it", &free, Quantile::P99, FREE_GOAL_MS),
    ];
    let mut report = Report::new("timers", measures).work(made, loaded.seconds, cpu);
    report.errors = loaded.errors + u64::from(!all);
    report.generator_late = loaded.late.spread();
    let report = report.with("rate", rate).with("seconds", seconds).with("pending", pending);
    stage.close(vec![service], report).await
}

async fn add_pending(stage: &Stage, pending: u32, progress: &Progress) -> anyhow::Result<()> {
    progress.begin("alarms are set for later", pending.into());
    let mut left = pending;
    while left > 0 {
        let ids: Vec<_> = (0..left.min(CHUNK)).map(|_| ids::new()).collect();
        let due = stage.clock.now() + LATER;
        rehearsal::add_waiting(&stage.pool, &ids, due).await?;
        publish(&stage.bus, &ids, |saga| messages::alarm(&[*saga], due)).await?;
        left -= ids.len() as u32;
        progress.more(ids.len() as u64);
    }
    Ok(())
}
