//! Bookings by users who were admitted before: how much a long line slows them down.

use std::cmp::Reverse;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::bail;
use chrono::TimeDelta;
use tokio::time::Instant;

use super::Load;
use crate::client::Client;
use crate::crowd::Crowd;
use crate::load::steadily;
use crate::progress::Progress;

/// Seconds at the beginning that do not count, alone and beside others: connections are opened then, and statements planned.
pub(super) const LEAD: u32 = 5;

/// How many of the slowest bookings the report lists.
const SLOWEST: usize = 24;

/// How many buyers one run needs.
pub(super) fn buyers(rate: u32, seconds: u32) -> u32 {
    rate * (LEAD + seconds)
}

/// Each buyer from the `first` on reserves a seat of their own and pays, `rate` in every second, for so many seconds after
/// the [`LEAD`].
pub(super) async fn run(
    client: &Client,
    crowd: &Arc<Crowd>,
    first: u32,
    rate: u32,
    seconds: u32,
    progress: &Progress,
) -> Load {
    let total = buyers(rate, seconds);
    progress.begin("bookings", total.into());
    let timings = Arc::new(Mutex::new(Vec::with_capacity(total as usize)));
    let loaded = steadily(rate, total, progress, |number| {
        let (client, crowd, timings) = (client.clone(), Arc::clone(crowd), Arc::clone(&timings));
        async move {
            let (due, number) = (f64::from(number) / f64::from(rate), first + number);
            let buyer = &crowd.buyers[number as usize];
            let begun = Instant::now();
            let reservation = client.reserve(buyer, crowd.performance, number + 1).await?.id()?;
            let paid = client.pay(buyer, reservation).await?;
            let took = TimeDelta::from_std(begun.elapsed()).unwrap_or_default();
            timings.lock().unwrap_or_else(PoisonError::into_inner).push((took, due));
            match paid.status {
                200 | 201 => Ok(()),
                status => bail!("a payment was answered {status} {}", paid.body()),
            }
        }
    })
    .await;
    let mut each = timings.lock().unwrap_or_else(PoisonError::into_inner).clone();
    each.retain(|(_, due)| *due >= f64::from(LEAD));
    let timings = each.iter().map(|(took, _)| *took).collect();
    each.sort_unstable_by_key(|(took, _)| Reverse(*took));
    let slowest =
        each.iter().take(SLOWEST).map(|(took, due)| [*due, took.num_milliseconds() as f64]).collect();
    Load { timings, late: loaded.late, errors: loaded.errors, seconds: loaded.seconds, slowest }
}
