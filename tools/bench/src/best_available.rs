//! Buyers who want two good seats next to each other at the same moment: they choose on the seat map, then the service chooses.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use anyhow::{Context, bail};
use serde::Deserialize;
use serde_json::json;
use uuid::Uuid;

use super::Plan;
use super::client::{Caller, Client};
use super::crowd::{self, Crowd};
use super::load::at_once;
use super::progress::Progress;
use super::report::{Goal, Measure, Report};
use super::stage::{ALL_ROLES, Meter, Stage, Wanted};
use super::timing::Timings;

/// Buyers of each round.
const BUYERS: u32 = 1_000;
/// Seats that each buyer wants.
const EACH: u32 = 2;
/// Seats of a date for each buyer: as long as so many are left over, there is a free pair.
const SEATS_FOR_EACH: u32 = 2 * EACH;
/// How many of the first free pairs of a map a buyer chooses among.
const GOOD_PAIRS: usize = 50;
/// A buyer who loses so often has found a defect.
const MAX_TRIES: usize = 1_000;
/// Batches that met changed rows, as `/metrics` counts them.
const DONE_AGAIN: &str = "boxoffice_batches_done_again_total";

/// What a round came to.
#[derive(Default)]
struct Round {
    took: Mutex<Timings>,
    refused: AtomicU64,
}

pub(super) async fn run(plan: &Plan, progress: &Progress) -> anyhow::Result<Report> {
    let buyers = plan.concurrency.unwrap_or(BUYERS);
    let stage = Stage::open(plan, Wanted::default()).await?;
    let service = stage.serve(ALL_ROLES).await?;
    let client = &service.client;
    let crowd = crowd::gather(&stage, client, buyers, buyers * SEATS_FOR_EACH, progress).await?;
    let second = crowd::date(&stage, client, crowd.concert, buyers * SEATS_FOR_EACH).await?;

    progress.begin("buyers choose on the map", buyers.into());
    let by_hand = Round::default();
    let chosen = at_once(buyers, buyers, progress, async |number| {
        by_hand.follow(choose_by_hand(client, &crowd, number)).await
    })
    .await;
    let again = done_again(client).await?;
    progress.begin("the service chooses", buyers.into());
    let (by_service, meter) = (Round::default(), Meter::start());
    let served = at_once(buyers, buyers, progress, async |number| {
        by_service.follow(ask_for_best(client, second, &crowd.buyers[number as usize])).await
    })
    .await;
    let cpu = meter.read();

    let refused = by_service.refused.into_inner();
    let of = |took: Mutex<Timings>| took.into_inner().unwrap_or_else(PoisonError::into_inner);
    let measures = vec![
        Measure::without_goal("best seats asked for to held", &of(by_service.took)),
        Measure::without_goal("map asked for to seats held", &of(by_hand.took)),
    ];
    let mut report = Report::new("best-available", measures).work(buyers.into(), served.seconds, cpu);
    report.goals = vec![Goal::at_most("refused while seats were free", Some(refused as f64), 0.0)];
    report.errors = chosen.errors + served.errors;
    let report = report
        .with("buyers", buyers)
        .with("refused_by_hand", by_hand.refused.into_inner())
        .with("refused_best", refused)
        .with("batches_done_again_by_hand", again)
        .with("batches_done_again_best", done_again(client).await? - again);
    stage.close(vec![service], report).await
}

impl Round {
    /// Notes how long a buyer took, who answers how often the service refused.
    async fn follow(&self, buyer: impl Future<Output = anyhow::Result<u64>>) -> anyhow::Result<()> {
        let begun = Instant::now();
        self.refused.fetch_add(buyer.await?, Ordering::Relaxed);
        self.took.lock().unwrap_or_else(PoisonError::into_inner).add_duration(begun.elapsed());
        Ok(())
    }
}

/// Reads the map and chooses one of the best free pairs, until one is held.
async fn choose_by_hand(client: &Client, crowd: &Crowd, number: u32) -> anyhow::Result<u64> {
    #[derive(Deserialize)]
    struct Map {
        seats: Vec<Seat>,
    }
    #[derive(Deserialize)]
    struct Seat {
        number: u32,
    }
    let (buyer, performance) = (&crowd.buyers[number as usize], crowd.performance);
    let path = format!("/v1/performances/{performance}/seats?status=free");
    let mut refused = 0;
    for attempt in 0..MAX_TRIES {
        let map: Map = client.get(&path, buyer).await?.yes()?;
        let pairs = map.seats.windows(2).filter(|pair| pair[0].number + 1 == pair[1].number);
        let good: Vec<u32> = pairs.take(GOOD_PAIRS).map(|pair| pair[0].number).collect();
        // Each buyer likes another one of the good pairs.
        let liked = (number as usize * 31 + attempt * 17).checked_rem(good.len());
        let Some(first) = liked.map(|liked| good[liked]) else { continue };
        let seats = [first, first + 1];
        let order = json!({ "performance_id": performance, "seats": seats });
        let answer = client.post("/v1/reservations", buyer, order).await?;
        match answer.status {
            201 => return Ok(refused),
            409 => refused += 1,
            status => bail!("a buyer of two seats was answered {status} {}", answer.body()),
        }
    }
    bail!("a buyer got no seats in {MAX_TRIES} tries")
}

/// Leaves the choice to the service.
async fn ask_for_best(client: &Client, performance: Uuid, buyer: &Caller) -> anyhow::Result<u64> {
    let order = json!({ "performance_id": performance, "best": { "count": EACH } });
    let answer = client.post("/v1/reservations", buyer, order).await?;
    match answer.status {
        201 => Ok(0),
        409 => Ok(1),
        status => bail!("a buyer of the best seats was answered {status} {}", answer.body()),
    }
}

/// How many batches met rows that had changed meanwhile, since the service started.
async fn done_again(client: &Client) -> anyhow::Result<u64> {
    let metrics = client.text("/metrics").await?;
    let line = metrics.lines().find_map(|line| line.strip_prefix(DONE_AGAIN)?.trim().parse::<f64>().ok());
    Ok(line.with_context(|| format!("/metrics has no {DONE_AGAIN}"))? as u64)
}
