//! An on-sale seen from the line: all users join within a minute, poll at the asked interval, and are admitted at a rate.
//!
//! ```text
//! alone ─▶ storm ─▶ follow ─▶ polls ─▶ million ─▶ fairness
//! ```
//!
//! Bookings run alone, for comparison. Then a crowd joins at a fixed rate; once the journal has all joins, the crowd
//! polls its places at the asked interval, while some users are admitted and the same bookings run. Then one instance gets
//! as many polls as it can answer. More users join at full speed, up to a million, and a second process reads all of them.
//! In another line on both processes, the order of admission is compared with the order of arrival.

mod fairness;
mod million;
mod follow;
mod storm;
mod bookings;

use std::sync::Arc;
use std::time::Duration;

use anyhow::bail;
use serde_json::{Value, json};
use uuid::Uuid;

use self::fairness::Fairness;
use self::follow::Followed;
use self::million::Grown;
use self::storm::Arrival;
use super::client::Client;
use super::people::People;
use super::progress::Progress;
use super::report::{Measure, Quantile, Report};
use super::stage::{ALL_ROLES, Meter, Stage, Wanted};
use super::timing::Timings;
use super::{Plan, comes_true};
use super::{admitted, crowd};

/// Joins per second, for so many seconds: 200,000 in a minute.
const RATE: u32 = 3_334;
const SECONDS: u32 = 60;
/// The length of the line at its longest.
const WAITING: u32 = 1_000_000;
/// Admissions per minute in the long line.
const ADMISSIONS: u32 = 2_000;
/// Bookings that run beside, per second.
const BOOKINGS: u32 = 20;
/// For how long one instance is asked as often as it can answer, in seconds.
const POLLING: u32 = 15;
/// The goal for polls that follow the hints, in milliseconds.
const POLL_GOAL_MS: f64 = 50.0;
/// How much slower bookings may be beside a great line.
const BESIDE: f64 = 1.5;

/// How long the journal may take for all who joined, how many it may still be behind by, and the time after that.
const JOURNAL: Duration = Duration::from_secs(120);
const STILL_OPEN: f64 = 1_000.0;
const CALM: Duration = Duration::from_secs(15);

pub(super) async fn run(plan: &Plan, progress: &Progress) -> anyhow::Result<Report> {
    let (rate, seconds) = (plan.rate.unwrap_or(RATE), plan.seconds.unwrap_or(SECONDS));
    let total = rate * seconds;
    let stage = Stage::open(plan, Wanted { settings: &admitted::SETTINGS, ..Wanted::default() }).await?;
    let service = stage.serve(ALL_ROLES).await?;
    let client = &service.client;
    let people = Arc::new(People::of(&stage));
    let concert = concert(&stage, client, ADMISSIONS).await?;

    let both = 2 * bookings::buyers(BOOKINGS, seconds);
    let crowd = Arc::new(crowd::gather(&stage, client, both, both, progress).await?);
    let alone = bookings::run(client, &crowd, 0, BOOKINGS, seconds, progress).await;

    let meter = Meter::start();
    let (storm, joins) =
        storm::run(std::slice::from_ref(client), &people, concert, rate, total, progress).await;
    let cpu = meter.read();
    let lost = u64::from(total) - in_line(&stage, client, concert).await?.min(total.into());
    let overtaken = storm::overtaken(&storm);

    calm_down(client, progress).await?;
    let asked = follow::Asked {
        client,
        clock: &stage.clock,
        seconds,
        seed: plan.seed,
        beside: Some((&crowd, BOOKINGS)),
    };
    let (followed, beside) = follow::run(asked, storm, progress).await?;
    let (polls, polled) = follow::as_fast_as_it_goes(client, &followed.line, POLLING, progress).await;

    let waiting = plan.waiting.unwrap_or(WAITING);
    let grown = million::run(&stage, &service, &people, concert, waiting, &followed.line, progress).await?;
    let fair =
        fairness::run(&stage, [client, &grown.second.client], &people, rate, total / 10, progress).await?;

    let outcome =
        Outcome { total, lost, overtaken, alone, joins, followed, beside, polls, polled, grown, fair };
    let report = outcome.counted(outcome.report(cpu)).with("seed", plan.seed);
    stage.close(vec![service, outcome.grown.second], report).await
}

/// The results of all parts.
struct Outcome {
    total: u32,
    lost: u64,
    overtaken: u64,
    alone: Load,
    joins: Load,
    followed: Followed,
    beside: Load,
    polls: Timings,
    polled: f64,
    grown: Grown,
    fair: Fairness,
}

impl Outcome {
    fn measures(&self) -> Vec<Measure> {
        let alone_p99 = self.alone.timings.spread().map_or(0.0, |spread| spread.p99_ms);
        let beside = &self.beside.timings;
        vec![
            Measure::without_goal("join, sent to answered", &self.joins.timings),
            Measure::with_goal(
                "poll that follows the hints",
                &self.followed.polls,
                Quantile::P99,
                POLL_GOAL_MS,
            ),
            Measure::without_goal("poll, as many as one instance gives", &self.polls),
            Measure::without_goal("booking (reserve and pay) alone", &self.alone.timings),
            Measure::with_goal("booking beside a great line", beside, Quantile::P99, alone_p99 * BESIDE),
            Measure::without_goal("join, as many as one instance gives", &self.grown.joins),
            Measure::without_goal("poll while the most wait", &self.grown.polls),
            Measure::without_goal("estimate off by", &self.followed.estimates),
            Measure::without_goal(
                "two instances: someone who came later was put before, by",
                &self.fair.unfair,
            ),
        ]
    }

    fn report(&self, cpu: Option<f64>) -> Report {
        let report = Report::new("queue", self.measures());
        let mut report = report.work(self.total.into(), self.joins.seconds, cpu);
        let failed = self.joins.errors + self.alone.errors + self.beside.errors + self.followed.errors;
        let unfair = self.followed.duplicates + self.overtaken + self.fair.inversions;
        report.errors = failed + self.grown.errors + self.fair.errors + self.lost + unfair;
        report.generator_late = self.joins.late.spread();
        report
    }

    /// The report with what was counted.
    fn counted(&self, report: Report) -> Report {
        let rounded = |figure: f64| (figure * 10.0).round() / 10.0;
        let (followed, grown) = (&self.followed, &self.grown);
        report
            .with("joins_offered", self.total)
            .with("joins_lost", self.lost)
            .with("places_given_twice", followed.duplicates)
            .with("joins_overtaken_by_one_begun_after_their_answer", self.overtaken)
            .with("polls_per_second_by_the_hints", rounded(followed.per_second))
            .with("polls_late_p99_ms", followed.late.spread().map(|spread| spread.p99_ms))
            .with("admitted_meanwhile", followed.admitted)
            .with("slowest_bookings_beside_by_second_and_ms", json!(self.beside.slowest))
            .with("polls_per_second_of_one_instance", rounded(self.polled))
            .with("joins_per_second_of_one_instance", rounded(grown.joins_per_second))
            .with("waiting_in_the_end", grown.waiting)
            .with("bytes_per_waiter", grown.bytes_per_waiter)
            .with("start_with_an_empty_line_s", rounded(grown.empty_start))
            .with("start_with_all_of_them_s", rounded(grown.full_start))
            .with("polls_per_second_while_the_most_wait", rounded(grown.polls_per_second))
            .with("two_instances_joins", self.fair.joins)
            .with("two_instances_admissions_out_of_order", self.fair.inversions)
    }
}

/// The result of a load of one kind.
#[derive(Debug, Default)]
struct Load {
    timings: Timings,
    late: Timings,
    errors: u64,
    seconds: f64,
    /// Of the slowest: in which second they were due, and how many milliseconds they took.
    slowest: Vec<[f64; 2]>,
}

/// A concert with one date and a line that admits so many per minute.
async fn concert(stage: &Stage, client: &Client, per_minute: u32) -> anyhow::Result<Uuid> {
    let queue = json!({ "max_active": 1_000_000, "admit_per_minute": per_minute });
    let (concert, _) = crowd::sale(stage, client, queue, 100).await?;
    Ok(concert)
}

/// How many the service counts in a line, waiting or admitted.
async fn in_line(stage: &Stage, client: &Client, concert: Uuid) -> anyhow::Result<u64> {
    let (waiting, active) = crowd::line(stage, client, concert).await?;
    Ok(waiting + active)
}

/// Waits until the journal has all joins, and a little longer, so that disk writes of the joins do not count as a cost of
/// the waiting line.
async fn calm_down(client: &Client, progress: &Progress) -> anyhow::Result<()> {
    progress.begin("the storm is written down", 0);
    let written = comes_true(JOURNAL, async || {
        let page = client.text("/metrics").await?;
        let lag = page.lines().find_map(|line| line.strip_prefix("boxoffice_queue_journal_lag "));
        let lag = lag.and_then(|lag| lag.trim().parse::<f64>().ok());
        // Admissions go on, so the lag is never quite zero.
        Ok(lag.is_some_and(|lag| lag < STILL_OPEN))
    });
    if !written.await? {
        bail!("the journal was behind for {} s", JOURNAL.as_secs());
    }
    tokio::time::sleep(CALM).await;
    Ok(())
}

/// Changes how a line is run.
async fn set(stage: &Stage, client: &Client, concert: Uuid, settings: Value) -> anyhow::Result<()> {
    let path = format!("/v1/admin/concerts/{concert}/queue");
    let answer = client.patch(&path, &stage.admin, settings).await?;
    match answer.status {
        200 => Ok(()),
        status => bail!("PATCH {path} was answered {status} {}", answer.body()),
    }
}

/// How many places were given to more than one.
fn given_twice(arrivals: &[Arrival]) -> u64 {
    let mut places: Vec<u64> = arrivals.iter().map(|arrival| arrival.place).collect();
    places.sort_unstable();
    places.windows(2).filter(|pair| pair[0] == pair[1]).count() as u64
}
