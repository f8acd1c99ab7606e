//! Thousands of holds that run out within one second: how long until their seats are free.
//!
//! The generator cannot make so many holds within a second. They are made through the service, to run out in an hour; then the
//! rows of all of them are moved so that they run out evenly over one second soon, and their alarms are set anew as the
//! engine sets them. Then the tables are vacuumed, as autovacuum does later.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use tokio::time::sleep;
use uuid::Uuid;

use super::client::Client;
use super::load::{Loaded, at_once};
use super::progress::Progress;
use super::report::{Measure, Quantile, Report};
use super::stage::{ALL_ROLES, Meter, Stage, Wanted};
use super::timing::Timings;
use super::watch::Watch;
use super::{Plan, comes_true, crowd};
use crate::store::rehearsal;
use boxoffice::bus::messages;
use boxoffice::bus::publish::publish;
use boxoffice::saga::Status;

const GOAL_MS: f64 = 2_000.0;
/// Over how long they run out.
pub(super) const OVER: TimeDelta = TimeDelta::seconds(1);
/// The usual grace for payments under way.
const GRACE: TimeDelta = TimeDelta::seconds(15);
/// Holds of one buyer; the service allows twelve seats.
const EACH: u32 = 10;
/// Alarms that are set at once.
const ALARMS: usize = 1_000;
/// Time to set all alarms anew, for each thousand of them, and beside.
const NOTICE: Duration = Duration::from_millis(250);
const NOTICE_AT_LEAST: Duration = Duration::from_secs(3);
/// How long all of it may take at most.
const PATIENCE: Duration = Duration::from_secs(120);

pub(super) async fn run(plan: &Plan, progress: &Progress) -> anyhow::Result<Report> {
    let holds = plan.holds.unwrap_or(10_000);
    let settings = [("BOXOFFICE_HOLD_SECONDS", "3600"), ("BOXOFFICE_QUEUE_SESSION_SECONDS", "3600")];
    let stage = Stage::open(plan, Wanted { settings: &settings, ..Wanted::default() }).await?;
    let service = stage.serve(ALL_ROLES).await?;
    let made = make_holds(plan, &stage, &service.client, holds, progress).await?;

    let freed =
        Watch::transitions(&stage.bus, &stage.clock, |seen| seen.status == Status::Compensated).await?;
    let (first, due) = set_to_run_out(&stage, holds).await?;
    let spare = first - stage.clock.now();
    sleep(spare.to_std().unwrap_or_default()).await;
    progress.begin("holds run out", holds.into());
    let meter = Meter::start();
    // Watchers hear of a change after its commit. Postgres itself is queried at the end, so that the query does not slow
    // down what is measured.
    comes_true(PATIENCE, async || Ok(freed.count() >= due.len())).await?;
    let all_free = rehearsal::seats_held(&stage.pool).await? == 0;
    let empty = stage.clock.now();
    let cpu = meter.read();

    let errors = made.errors + u64::from(!all_free) + u64::from(spare < TimeDelta::zero());
    let report = report(&due, &freed, first, empty);
    let span = (empty - first).as_seconds_f64();
    let mut report = report.work(due.len() as u64, span, cpu);
    report.errors = errors;
    let report = report
        .with("holds", due.len())
        .with("holds_made_per_second", f64::from(holds) / made.seconds)
        .with("seats_free_after_the_first_was_due_ms", (empty - first).num_milliseconds());
    stage.close(vec![service], report).await
}

/// So many holds of ten for each buyer, made through the service.
pub(super) async fn make_holds(
    plan: &Plan,
    stage: &Stage,
    client: &Client,
    holds: u32,
    progress: &Progress,
) -> anyhow::Result<Loaded> {
    let crowd = crowd::gather(stage, client, holds.div_ceil(EACH), holds, progress).await?;
    progress.begin("holds are made", holds.into());
    let made = at_once(plan.concurrency.unwrap_or(64), holds, progress, async |number| {
        let buyer = &crowd.buyers[(number / EACH) as usize];
        client.reserve(buyer, crowd.performance, number + 1).await?.id().map(drop)
    })
    .await;
    Ok(made)
}

/// Lets all holds run out evenly over [`OVER`], soon, and answers when the first of them does, and each.
pub(super) async fn set_to_run_out(
    stage: &Stage,
    holds: u32,
) -> anyhow::Result<(DateTime<Utc>, Vec<(Uuid, DateTime<Utc>)>)> {
    let notice = (NOTICE * holds.div_ceil(1_000)).max(NOTICE_AT_LEAST);
    let first = stage.clock.now() + notice;
    let due = rehearsal::bring_forward(&stage.pool, first, OVER, GRACE).await?;
    rehearsal::tidy(&stage.pool).await?;
    for some in due.chunks(ALARMS) {
        publish(&stage.bus, some, |(saga, at)| messages::alarm(&[*saga], *at)).await?;
    }
    Ok((first, due))
}

fn report(
    due: &[(Uuid, DateTime<Utc>)],
    freed: &Watch,
    first: DateTime<Utc>,
    empty: DateTime<Utc>,
) -> Report {
    let each: Timings = due.iter().filter_map(|(saga, at)| Some(freed.of(*saga)? - at)).collect();
    let all: Timings = [empty - (first + OVER)].into_iter().collect();
    let measures = vec![
        Measure::with_goal("due to seat free, as watchers see it", &each, Quantile::Max, GOAL_MS),
        Measure::with_goal("last due to no seat held in Postgres", &all, Quantile::Max, GOAL_MS),
    ];
    Report::new("expiry", measures)
}
