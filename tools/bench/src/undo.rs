//! From the rejection of a booking's last step until its points are back and its seats are free.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::bail;
use chrono::{DateTime, TimeDelta, Utc};
use tokio::sync::Mutex;
use uuid::Uuid;

use super::client::{Caller, Client};
use super::load::steadily;
use super::progress::Progress;
use super::report::{Measure, Quantile, Report};
use super::stage::{ALL_ROLES, Meter, Stage, Wanted};
use super::timing::Timings;
use super::watch::Watch;
use super::worker::Worker;
use super::{Plan, comes_true, crowd};
use boxoffice::saga::{Direction, Outcome, Status};
use boxoffice::store;

const GOAL_MS: f64 = 150.0;
/// How long the last of them may take.
const PATIENCE: Duration = Duration::from_secs(30);

pub(super) async fn run(plan: &Plan, progress: &Progress) -> anyhow::Result<Report> {
    let (rate, seconds) = (plan.rate.unwrap_or(50), plan.seconds.unwrap_or(30));
    let total = rate * seconds;
    let wanted = Wanted { workflow: Some(include_str!("workflows/refused.toml")), ..Wanted::default() };
    let stage = Stage::open(plan, wanted).await?;
    let service = stage.serve(ALL_ROLES).await?;
    let refusal = Worker::of(&stage, "bench.confirm", Outcome::rejected("refused"));
    let undone =
        Watch::transitions(&stage.bus, &stage.clock, |seen| seen.status == Status::Compensated).await?;
    let announced = Watch::event(&stage.bus, &stage.clock, "reservation.failed").await?;
    let buyers = rate.max(20);
    let crowd = crowd::gather(&stage, &service.client, buyers, buyers, progress).await?;

    progress.begin("bookings whose last step is refused", total.into());
    let meter = Meter::start();
    // Each has a seat of their own and comes back for it.
    let hands: Vec<_> = crowd.buyers.into_iter().map(|buyer| Arc::new(Mutex::new(buyer))).collect();
    let loaded = steadily(rate, total, progress, |number| {
        let (client, at) = (service.client.clone(), number as usize % hands.len());
        book(client, Arc::clone(&hands[at]), crowd.performance, at as u32 + 1)
    })
    .await;
    let all_undone = comes_true(PATIENCE, async || Ok(undone.count() >= refusal.answered().len())).await?;
    let cpu = meter.read();

    let answered = refusal.answered();
    let until = |watch: &Watch| -> Timings {
        answered.iter().filter_map(|(saga, at)| Some(watch.of(*saga)? - at)).collect()
    };
    let ids: Vec<Uuid> = answered.keys().copied().collect();
    let measures = vec![
        Measure::with_goal(
            "refusal sent to undone, as watchers see it",
            &until(&undone),
            Quantile::P99,
            GOAL_MS,
        ),
        Measure::without_goal("refusal sent to event reservation.failed received", &until(&announced)),
        Measure::without_goal("refusal taken to last undo, by the history", &by_history(&stage, &ids).await?),
    ];
    let mut report = Report::new("undo", measures).work(answered.len() as u64, loaded.seconds, cpu);
    report.errors = loaded.errors + u64::from(!all_undone);
    report.generator_late = loaded.late.spread();
    let report = report.with("rate", rate).with("seconds", seconds).with("undone", undone.count());
    drop(refusal);
    stage.close(vec![service], report).await
}

/// One booking; its payment is refused in the end.
async fn book(client: Client, buyer: Arc<Mutex<Caller>>, performance: Uuid, seat: u32) -> anyhow::Result<()> {
    let buyer = buyer.lock().await;
    let reservation = client.reserve(&buyer, performance, seat).await?.id()?;
    let paid = client.pay(&buyer, reservation).await?;
    match paid.status {
        // It is undone by the time of the answer, or is being undone.
        202 | 409 => Ok(()),
        status => bail!("a payment that could not succeed was answered {status} {}", paid.body()),
    }
}

/// When a step was rejected, and when the last one was undone.
type Span = (Option<DateTime<Utc>>, Option<DateTime<Utc>>);

async fn by_history(stage: &Stage, ids: &[Uuid]) -> anyhow::Result<Timings> {
    let mut spans: BTreeMap<Uuid, Span> = BTreeMap::new();
    for row in store::history::of_sagas(&stage.pool, ids).await? {
        let span = spans.entry(row.saga_id).or_default();
        match (row.event.as_str(), row.direction) {
            ("rejected", _) => span.0 = Some(row.at),
            ("undone", Direction::Undo) => span.1 = Some(row.at),
            _ => {}
        }
    }
    let took = |span: &Span| -> Option<TimeDelta> { Some(span.1? - span.0?) };
    Ok(spans.values().filter_map(took).collect())
}
