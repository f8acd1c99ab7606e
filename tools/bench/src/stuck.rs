//! From the rejection of an undo until the stuck saga shows: in the list, in the metrics, as an event.

use std::time::Duration;

use anyhow::bail;
use chrono::{DateTime, TimeDelta, Utc};
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use super::client::{Caller, Client};
use super::crowd::{self, Crowd};
use super::progress::Progress;
use super::report::{Measure, Quantile, Report};
use super::stage::{ALL_ROLES, Meter, Stage, Wanted};
use super::timing::Timings;
use super::watch::Watch;
use super::worker::Worker;
use super::{Plan, comes_true};
use boxoffice::saga::{self, Outcome};

const GOAL_MS: f64 = 1_000.0;
/// How long each of the three is waited for.
const PATIENCE: Duration = Duration::from_secs(5);
/// The pause between two looks: what is seen may be older by this and the time of an answer.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// When each of the three was seen.
#[derive(Debug, Default)]
struct Sightings {
    listed: Timings,
    counted: Timings,
    announced: Timings,
    missing: u64,
}

pub(super) async fn run(plan: &Plan, progress: &Progress) -> anyhow::Result<Report> {
    let repeats = plan.repeats.unwrap_or(40);
    let wanted = Wanted { workflow: Some(include_str!("workflows/stuck.toml")), ..Wanted::default() };
    let stage = Stage::open(plan, wanted).await?;
    let service = stage.serve(ALL_ROLES).await?;
    let consent = Worker::of(&stage, "bench.mark", Outcome::done());
    let refusal = Worker::of(&stage, "bench.unmark", Outcome::rejected("refused"));
    let announced = Watch::event(&stage.bus, &stage.clock, saga::STUCK).await?;
    let crowd = crowd::gather(&stage, &service.client, repeats, repeats, progress).await?;

    progress.begin("sagas get stuck", repeats.into());
    let (begun, meter) = (Instant::now(), Meter::start());
    let mut seen = Sightings::default();
    for number in 1..=repeats {
        let saga = get_stuck(&service.client, &crowd, number).await?;
        watch(&stage, &service.client, &refusal, &announced, saga, f64::from(number), &mut seen).await?;
        progress.more(1);
    }
    let (seconds, cpu) = (begun.elapsed().as_secs_f64(), meter.read());
    let goal = |name, timings| Measure::with_goal(name, timings, Quantile::Max, GOAL_MS);
    let measures = vec![
        goal("refusal sent to listed in GET /v1/ops/sagas?status=stuck", &seen.listed),
        goal("refusal sent to counted in /metrics", &seen.counted),
        goal("refusal sent to event saga.stuck received", &seen.announced),
    ];
    let mut report = Report::new("stuck", measures).work(repeats.into(), seconds, cpu);
    report.errors = seen.missing;
    let report = report.with("repeats", repeats);
    drop((consent, refusal));
    stage.close(vec![service], report).await
}

/// A hold that is taken back, whose undo is refused.
async fn get_stuck(client: &Client, crowd: &Crowd, number: u32) -> anyhow::Result<Uuid> {
    let buyer = crowd.buyers[number as usize - 1].clone();
    let saga = client.reserve(&buyer, crowd.performance, number).await?.id()?;
    let client = client.clone();
    tokio::spawn(async move {
        // Answered once the saga is at rest, or after a while: what is measured does not depend on it.
        if let Err(error) = client.cancel(&buyer, saga).await {
            tracing::error!(%error, "a cancellation was not answered");
        }
    });
    Ok(saga)
}

async fn watch(
    stage: &Stage,
    client: &Client,
    refusal: &Worker,
    announced: &Watch,
    saga: Uuid,
    number: f64,
    seen: &mut Sightings,
) -> anyhow::Result<()> {
    let mut at = None;
    let asked = async || {
        at = refusal.answered().get(&saga).copied();
        Ok(at.is_some())
    };
    let Some(at) = comes_true(PATIENCE, asked).await?.then_some(at).flatten() else {
        bail!("the undo of {saga} was not asked for");
    };
    let listed = first(stage, at, async || is_listed(client, &stage.admin, saga).await);
    let counted = first(stage, at, async || Ok(stuck_by_metrics(&client.text("/metrics").await?) >= number));
    let announced_at = first(stage, at, async || Ok(announced.of(saga).is_some()));
    let (listed, counted, announced_at) = tokio::try_join!(listed, counted, announced_at)?;
    // The event was heard before it was looked for.
    let announced_at = announced_at.and(announced.of(saga)).map(|heard| heard - at);
    let kept =
        [(listed, &mut seen.listed), (counted, &mut seen.counted), (announced_at, &mut seen.announced)];
    for (took, timings) in kept {
        match took {
            Some(took) => timings.add(took),
            None => seen.missing += 1,
        }
    }
    Ok(())
}

/// How long after `since` it was first so; none if it was not in time.
async fn first(
    stage: &Stage,
    since: DateTime<Utc>,
    mut check: impl AsyncFnMut() -> anyhow::Result<bool>,
) -> anyhow::Result<Option<TimeDelta>> {
    let end = Instant::now() + PATIENCE;
    while Instant::now() < end {
        if check().await? {
            return Ok(Some(stage.clock.now() - since));
        }
        sleep(LOOK_EVERY).await;
    }
    Ok(None)
}

async fn is_listed(client: &Client, viewer: &Caller, saga: Uuid) -> anyhow::Result<bool> {
    let page = client.get("/v1/ops/sagas?status=stuck&limit=100", viewer).await?;
    let id = saga.to_string();
    Ok(page.body()["items"]
        .as_array()
        .is_some_and(|items| items.iter().any(|item| item["id"] == id.as_str())))
}

/// How many sagas are stuck by what the metrics say: the sum of the gauge over all workflows.
fn stuck_by_metrics(text: &str) -> f64 {
    let lines = text.lines().filter(|line| line.starts_with("boxoffice_") && line.contains("stuck"));
    lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}
