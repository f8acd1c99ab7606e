//! A closed-loop load: each caller sends the next request when it has its answer. The measurement begins after a warm-up.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

use super::cost::{Cost, Reading};
use super::progress::Progress;
use super::report::{Goal, Measure, Report};
use super::stage::Stage;
use super::timing::Timings;

/// The pause of a caller whose round failed.
const PAUSE: Duration = Duration::from_secs(1);

/// How many callers, and for how long.
#[derive(Clone, Copy, Debug)]
pub(super) struct Circle {
    pub callers: u32,
    /// Not measured.
    pub warm_up: Duration,
    pub measured: Duration,
}

/// The callers' results within the measured time.
#[derive(Debug)]
pub(super) struct Rounds<const PARTS: usize> {
    pub callers: u32,
    /// How long each part of a round took.
    pub parts: [Timings; PARTS],
    /// Rounds that ended well.
    pub done: u64,
    pub errors: u64,
    pub seconds: f64,
    pub cost: Cost,
}

impl<const PARTS: usize> Rounds<PARTS> {
    /// Rounds per second.
    pub(super) fn per_second(&self) -> f64 {
        self.done as f64 / self.seconds
    }
}

impl Rounds<1> {
    /// The times of rounds that have one part.
    pub(super) fn measures(&self) -> Vec<Measure> {
        let name = match self.callers {
            1 => "one at a time",
            32 => "32 at once",
            256 => "256 at once",
            _ => "at once",
        };
        let [whole] = &self.parts;
        vec![Measure::without_goal(name, whole)]
    }

    /// Rate, times and cost of rounds that have one part.
    pub(super) fn point(&self) -> Value {
        let spread = self.parts[0].spread();
        json!({
            "concurrency": self.callers,
            "per_second": self.per_second().round(),
            "p50_ms": spread.map(|spread| spread.p50_ms),
            "p99_ms": spread.map(|spread| spread.p99_ms),
            "cost": self.cost,
        })
    }
}

/// The report on all rounds of a scenario; at its head stands what the first came to.
pub(super) fn report<const PARTS: usize>(
    scenario: &'static str,
    all: &[Rounds<PARTS>],
    measures: fn(&Rounds<PARTS>) -> Vec<Measure>,
    goals: fn(&Rounds<PARTS>) -> Vec<Goal>,
    point: fn(&Rounds<PARTS>) -> Value,
) -> Report {
    let mut report = Report::new(scenario, all.iter().flat_map(measures).collect());
    if let Some(first) = all.first() {
        report = report.work(first.done, first.seconds, None);
        report.server_cpu_s_per_1000 = first.cost.server_cpu_s_per_1000;
    }
    report.errors = all.iter().map(|rounds| rounds.errors).sum();
    report.goals = all.iter().flat_map(goals).collect();
    report.with("points", all.iter().map(point).collect::<Vec<_>>())
}

/// The results of one caller.
struct Lane<const PARTS: usize> {
    parts: [Timings; PARTS],
    done: u64,
    errors: u64,
}

impl Circle {
    /// Lets every caller do one round after the other; a round answers how long each of its parts took.
    pub(super) async fn run<const PARTS: usize, W>(
        self,
        stage: &Stage,
        progress: &Progress,
        round: impl Fn() -> W + Send + Sync + 'static,
    ) -> anyhow::Result<Rounds<PARTS>>
    where
        W: Future<Output = anyhow::Result<[Duration; PARTS]>> + Send + 'static,
    {
        progress.begin(&format!("{} at once", self.callers), 0);
        let from = Instant::now() + self.warm_up;
        let until = from + self.measured;
        let round = Arc::new(round);
        let mut lanes = JoinSet::new();
        for _ in 0..self.callers {
            lanes.spawn(lane(Arc::clone(&round), from, until));
        }
        sleep_until(from).await;
        let before = Reading::take(stage).await?;
        sleep_until(until).await;
        let after = Reading::take(stage).await?;
        let mut all = Lane { parts: std::array::from_fn(|_| Timings::default()), done: 0, errors: 0 };
        while let Some(lane) = lanes.join_next().await {
            let lane = lane?;
            all.parts.iter_mut().zip(lane.parts).for_each(|(all, some)| all.extend(some));
            all.done += lane.done;
            all.errors += lane.errors;
        }
        Ok(Rounds {
            callers: self.callers,
            cost: after.since(&before, all.done),
            parts: all.parts,
            done: all.done,
            errors: all.errors,
            seconds: self.measured.as_secs_f64(),
        })
    }
}

async fn lane<const PARTS: usize, W>(round: Arc<impl Fn() -> W>, from: Instant, until: Instant) -> Lane<PARTS>
where
    W: Future<Output = anyhow::Result<[Duration; PARTS]>>,
{
    let mut lane = Lane { parts: std::array::from_fn(|_| Timings::default()), done: 0, errors: 0 };
    while Instant::now() < until {
        let took = round().await;
        let counts = (from..until).contains(&Instant::now());
        match took {
            Ok(took) if counts => {
                lane.parts.iter_mut().zip(took).for_each(|(all, one)| all.add_duration(one));
                lane.done += 1;
            }
            Ok(_) => {}
            Err(error) => {
                tracing::error!(%error, "a round failed");
                lane.errors += 1;
                // What fails may fail at once, and would be tried a thousand times a second.
                sleep(PAUSE).await;
            }
        }
    }
    lane
}
