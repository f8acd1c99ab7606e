//! How old seat maps are: a buyer holds seats, and a reader on every instance looks for them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use chrono::TimeDelta;
use serde::Deserialize;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::Hall;
use crate::client::{Caller, Client};
use crate::comes_true;
use crate::load::steadily;
use crate::progress::Progress;
use crate::timing::Timings;

/// The pause between two looks of one reader.
const LOOK_EVERY: Duration = Duration::from_millis(2);
/// How long it may take until the last hold is shown.
const LONGEST: Duration = Duration::from_secs(10);

/// How long it took until holds were shown.
#[derive(Debug, Default)]
pub(super) struct Staleness {
    /// From the answer to the holder of the seat, on each instance.
    pub shown: [Timings; 2],
    /// From before the request was sent, on the second instance.
    pub since_sent: Timings,
    /// Holds that failed, or were never shown.
    pub lost: u64,
}

/// When something was first known of each seat.
type Moments<T> = Arc<Mutex<BTreeMap<u32, T>>>;

/// Holds seats from `first` on, `rate` in every second, and looks for each of them on both instances; the first of them
/// takes the holds.
pub(super) async fn measure(
    instances: &[&Client; 2],
    hall: &Hall,
    rate: u32,
    total: u32,
    first: u32,
    progress: &Progress,
) -> anyhow::Result<Staleness> {
    let (held, stop): (Moments<(Instant, Instant)>, _) = (Arc::default(), CancellationToken::new());
    let watching = instances.map(|client| {
        let seen: Moments<Instant> = Arc::default();
        let path = format!("/v1/performances/{}/seats?status=held", hall.performance);
        let watch = watch(client.clone(), hall.reader.clone(), path, Arc::clone(&seen));
        let stop = stop.clone();
        (seen, tokio::spawn(async move { stop.run_until_cancelled(watch).await }))
    });
    let loaded = steadily(rate, total, progress, |number| {
        let (client, buyer) = (instances[0].clone(), hall.reader.clone());
        hold(client, buyer, hall.performance, first + number, Arc::clone(&held))
    })
    .await;
    let shown =
        |seen: &Moments<Instant>| locked(held.as_ref()).keys().all(|seat| locked(seen).contains_key(seat));
    comes_true(LONGEST, async || Ok(watching.iter().all(|(seen, _)| shown(seen)))).await?;
    stop.cancel();
    let mut staleness = Staleness { lost: loaded.errors, ..Staleness::default() };
    for (at, (seen, watch)) in watching.into_iter().enumerate() {
        if let Some(ended) = watch.await? {
            ended?;
        }
        let (seen, held) = (locked(&seen), locked(&held));
        for (number, (sent, answered)) in held.iter() {
            let Some(shown) = seen.get(number) else {
                staleness.lost += 1;
                continue;
            };
            staleness.shown[at].add(since(*answered, *shown));
            if at == 1 {
                staleness.since_sent.add(since(*sent, *shown));
            }
        }
    }
    Ok(staleness)
}

/// What was shown before it was answered took no time.
fn since(begun: Instant, shown: Instant) -> TimeDelta {
    TimeDelta::from_std(shown.saturating_duration_since(begun)).unwrap_or(TimeDelta::MAX)
}

async fn hold(
    client: Client,
    buyer: Caller,
    performance: Uuid,
    seat: u32,
    held: Moments<(Instant, Instant)>,
) -> anyhow::Result<()> {
    let sent = Instant::now();
    let answer = client.reserve(&buyer, performance, seat).await?;
    answer.id()?;
    // With 202 it is not held yet.
    if answer.status == 201 {
        locked(&held).insert(seat, (sent, Instant::now()));
    }
    Ok(())
}

/// Looks again and again, and notes when each seat is first shown as held.
async fn watch(client: Client, reader: Caller, path: String, seen: Moments<Instant>) -> anyhow::Result<()> {
    #[derive(Deserialize)]
    struct Map {
        seats: Vec<Seat>,
    }
    #[derive(Deserialize)]
    struct Seat {
        number: u32,
    }
    let mut known: Option<String> = None;
    loop {
        let answer = client.read(&path, &reader, known.as_deref()).await?;
        if answer.status == 200 {
            let now = Instant::now();
            let map: Map = serde_json::from_slice(&answer.bytes)?;
            let mut seen = locked(&seen);
            for seat in map.seats {
                seen.entry(seat.number).or_insert(now);
            }
            known = answer.etag;
        }
        sleep(LOOK_EVERY).await;
    }
}

fn locked<T>(moments: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // A panic elsewhere leaves it usable: each change to it is a single step.
    moments.lock().unwrap_or_else(PoisonError::into_inner)
}
