//! A service that starts after thousands of holds have run out: how long until it answers, and until all holds have ended.

use std::time::{Duration, Instant};

use chrono::TimeDelta;
use tokio::time::sleep;

use super::expiry::{OVER, make_holds, set_to_run_out};
use super::progress::Progress;
use super::report::{Goal, Report};
use super::stage::{ALL_ROLES, Meter, Stage, Wanted};
use super::{Plan, comes_true};
use crate::store::rehearsal;

/// From the start of the process until it is ready.
const READY_GOAL_SECONDS: f64 = 3.0;
const ENDED_PER_SECOND_GOAL: f64 = 2_000.0;
/// How long before the start the last of them ran out: longer than the sweeper leaves a hold to its alarm.
const AGE: TimeDelta = TimeDelta::seconds(5);
const TIMEOUT: Duration = Duration::from_secs(300);

pub(super) async fn run(plan: &Plan, progress: &Progress) -> anyhow::Result<Report> {
    let holds = plan.holds.unwrap_or(20_000);
    let settings = [("BOXOFFICE_HOLD_SECONDS", "3600"), ("BOXOFFICE_QUEUE_SESSION_SECONDS", "3600")];
    let stage = Stage::open(plan, Wanted { settings: &settings, ..Wanted::default() }).await?;
    let service = stage.serve(ALL_ROLES).await?;
    let made = make_holds(plan, &stage, &service.client, holds, progress).await?;
    service.kill().await?;
    let (first, due) = set_to_run_out(&stage, holds).await?;
    let spare = first + OVER + AGE - stage.clock.now();
    sleep(spare.to_std().unwrap_or_default()).await;

    progress.begin("holds end after a start", holds.into());
    let (meter, begun) = (Meter::start(), Instant::now());
    let service = stage.serve(ALL_ROLES).await?;
    let all_ended = comes_true(TIMEOUT, async || Ok(rehearsal::seats_held(&stage.pool).await? == 0)).await?;
    let (seconds, cpu) = (begun.elapsed().as_secs_f64(), meter.read());
    let ready = service.start_took;
    let ended = due.len() as f64;
    let mut report = Report::new("overdue", Vec::new()).work(due.len() as u64, seconds, cpu);
    report.errors = made.errors + u64::from(!all_ended);
    report.goals = vec![
        Goal::at_most("seconds from start to ready", Some(ready), READY_GOAL_SECONDS),
        Goal::at_least(
            "holds ended per second, from the start of the process on",
            ended / seconds,
            ENDED_PER_SECOND_GOAL,
        ),
    ];
    let report = report
        .with("holds", due.len())
        .with("ready_after_seconds", ready)
        .with("all_ended_after_seconds", seconds);
    stage.close(vec![service], report).await
}
