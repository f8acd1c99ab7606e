//! Two instances take joins for one line; who is admitted first?

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use serde::Deserialize;
use serde_json::json;
use tokio::time::{Instant, timeout_at};

use super::{concert, given_twice, set, storm};
use crate::client::Client;
use crate::people::People;
use crate::progress::Progress;
use crate::stage::Stage;
use crate::timing::Timings;
use boxoffice::bus::subjects;

/// How long all admissions may take.
const PATIENCE: Duration = Duration::from_secs(120);
/// The highest admission rate of a line, per minute.
const FASTEST: u32 = 6_000_000;

/// The result.
pub(super) struct Fairness {
    pub joins: u32,
    /// By how much a user who came later was put before.
    pub unfair: Timings,
    /// Admissions of a place behind one that was admitted before.
    pub inversions: u64,
    pub errors: u64,
}

/// A place as it is written when it is admitted.
#[derive(Deserialize)]
struct Written {
    status: String,
    place: Option<u64>,
}

/// `total` join, every other one at the other instance; then all are admitted.
pub(super) async fn run(
    stage: &Stage,
    clients: [&Client; 2],
    people: &Arc<People>,
    rate: u32,
    total: u32,
    progress: &Progress,
) -> anyhow::Result<Fairness> {
    let concert = concert(stage, clients[0], 0).await?;
    let (arrivals, load) =
        storm::run(&clients.map(Client::clone), people, concert, rate, total, progress).await;
    let mut written = stage.bus.client.subscribe(subjects::queue_key(&format!("{concert}.*"))).await?;
    stage.bus.client.flush().await?;
    set(stage, clients[0], concert, json!({ "admit_per_minute": FASTEST })).await?;
    progress.begin("all are admitted", arrivals.len() as u64);
    let end = Instant::now() + PATIENCE;
    let (mut admitted, mut last, mut inversions) = (0, 0, 0);
    while admitted < arrivals.len()
        && let Ok(Some(message)) = timeout_at(end, written.next()).await
    {
        let Ok(Written { status, place: Some(place) }) = serde_json::from_slice(&message.payload) else {
            continue;
        };
        if status == "active" {
            admitted += 1;
            inversions += u64::from(place < last);
            last = last.max(place);
            progress.more(1);
        }
    }
    let missing = (arrivals.len() - admitted) as u64;
    let unfair = storm::unfairness(&arrivals);
    Ok(Fairness { joins: total, unfair, inversions, errors: load.errors + missing + given_twice(&arrivals) })
}
