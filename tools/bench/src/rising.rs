//! Sales at a rate that rises step by step, with people who ask for their places beside them: how long an answer takes at
//! each rate, and what is used up first; on one instance, then on two.
//!
//! An open model: a sale begins when it is due, whether or not those before it were answered, and its time counts from
//! when it was due. So a pause of the service or of the generator is seen in every sale that fell into it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::bail;
use serde_json::{Value, json};

use super::Plan;
use super::client::{Caller, Client};
use super::cost::Reading;
use super::counter::Counter;
use super::load::{Loaded, on_schedule, steadily};
use super::people::stand_in_line;
use super::progress::Progress;
use super::report::{Measure, Report};
use super::stage::{ALL_ROLES, Stage, Wanted};
use super::timing::Timings;
use super::{admitted, crowd};

/// Sales a second, one after the other.
const RATES: [u32; 6] = [100, 200, 400, 600, 800, 1_200];
const SECONDS: u32 = 8;
/// People in line, and how many of them ask in each second.
const WAITING: u32 = 5_000;
const POLLS: u32 = 1_000;
/// Users who join at the same time.
const JOINING: u32 = 64;

/// The result of one rate.
struct Step {
    instances: usize,
    rate: u32,
    sales: Timings,
    sold: Loaded,
    polls: Timings,
    asked: Loaded,
    cores: Value,
}

pub(super) async fn run(plan: &Plan, progress: &Progress) -> anyhow::Result<Report> {
    let rates = plan.rate.map_or(RATES.to_vec(), |rate| vec![rate]);
    let seconds = plan.seconds.unwrap_or(SECONDS);
    let stage = Stage::open(plan, Wanted { settings: &admitted::SETTINGS, ..Wanted::default() }).await?;
    let mut services = vec![stage.serve(ALL_ROLES).await?];
    let first = services[0].client.clone();
    let seats = 2 * seconds * rates.iter().sum::<u32>();
    let counter = Counter::open(&stage, &first, seats, progress).await?;
    let line = Arc::new(line(&stage, &first, plan.waiting.unwrap_or(WAITING), progress).await?);
    let mut steps = Vec::new();
    for instances in 1..=2 {
        if services.len() < instances {
            services.push(stage.serve(ALL_ROLES).await?);
        }
        let clients: Vec<Client> = services.iter().map(|service| service.client.clone()).collect();
        for rate in &rates {
            steps.push(step(&stage, clients.clone(), &counter, &line, *rate, seconds, progress).await?);
        }
    }
    let report = report(&steps).with("seconds", seconds).with("polls_a_second", POLLS);
    stage.close(services, report).await
}

/// Makes a line of users who wait; its rates admit none of them.
async fn line(
    stage: &Stage,
    client: &Client,
    people: u32,
    progress: &Progress,
) -> anyhow::Result<Vec<Caller>> {
    let queue = json!({ "max_active": 1, "admit_per_minute": 0 });
    let (concert, _) = crowd::sale(stage, client, queue, 10).await?;
    let joined = stand_in_line(stage, client, concert, JOINING, people, progress).await?;
    Ok(joined.into_iter().map(|(_, caller)| caller).collect())
}

async fn step(
    stage: &Stage,
    clients: Vec<Client>,
    counter: &Counter,
    line: &Arc<Vec<Caller>>,
    rate: u32,
    seconds: u32,
    progress: &Progress,
) -> anyhow::Result<Step> {
    let instances = clients.len();
    progress.begin(
        &format!("{rate} sales a second on {instances}"),
        u64::from(rate + POLLS) * u64::from(seconds),
    );
    let (sales, polls) = (Arc::new(Mutex::new(Timings::default())), Arc::new(Mutex::new(Timings::default())));
    let before = Reading::take(stage).await?;
    let selling = on_schedule(rate, rate * seconds, progress, |number, due| {
        let (client, counter, sales) =
            (clients[number as usize % instances].clone(), counter.clone(), Arc::clone(&sales));
        async move {
            let answer = counter.sell(&client, counter.next()?).await?;
            if answer.status != 201 && answer.status != 202 {
                bail!("a sale was answered {} {}", answer.status, answer.body());
            }
            sales.lock().unwrap_or_else(PoisonError::into_inner).add_duration(due.elapsed());
            Ok(())
        }
    });
    let asking = steadily(POLLS, POLLS * seconds, progress, |number| {
        let (client, line, polls) =
            (clients[number as usize % instances].clone(), Arc::clone(line), Arc::clone(&polls));
        async move {
            let begun = tokio::time::Instant::now();
            client.look(&line[number as usize % line.len()]).await?;
            polls.lock().unwrap_or_else(PoisonError::into_inner).add_duration(begun.elapsed());
            Ok(())
        }
    });
    let (sold, asked) = tokio::join!(selling, asking);
    let after = Reading::take(stage).await?;
    let of = |timings: Arc<Mutex<Timings>>| timings.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let cores = json!(after.cores_since(&before, Duration::from_secs_f64(sold.seconds)));
    Ok(Step { instances, rate, sales: of(sales), sold, polls: of(polls), asked, cores })
}

fn report(steps: &[Step]) -> Report {
    let measures = steps.iter().filter(|step| step.instances == 1).map(|step| {
        let name = match step.rate {
            100 => "sale, 100 a second",
            200 => "sale, 200 a second",
            400 => "sale, 400 a second",
            600 => "sale, 600 a second",
            800 => "sale, 800 a second",
            1_200 => "sale, 1,200 a second",
            _ => "sale",
        };
        Measure::without_goal(name, &step.sales)
    });
    let mut report = Report::new("load", measures.collect());
    report.errors = steps.iter().map(|step| step.sold.errors + step.asked.errors).sum();
    let done = |step: &Step| step.sales.spread().map_or(0, |spread| spread.count);
    if let Some(last) = steps.first() {
        report = report.work(done(last), last.sold.seconds, None);
    }
    let points = |instances| -> Vec<Value> {
        steps.iter().filter(|step| step.instances == instances).map(point).collect()
    };
    report.with("points", points(1)).with("points_of_two_instances", points(2))
}

fn point(step: &Step) -> Value {
    let spread = step.sales.spread();
    json!({
        "rate": step.rate,
        "per_second": (spread.map_or(0, |spread| spread.count) as f64 / step.sold.seconds).round(),
        "p50_ms": spread.map(|spread| spread.p50_ms),
        "p99_ms": spread.map(|spread| spread.p99_ms),
        "polls_p99_ms": step.polls.spread().map(|spread| spread.p99_ms),
        "generator_late_p99_ms": step.sold.late.spread().map(|spread| spread.p99_ms),
        "cores": step.cores,
    })
}
