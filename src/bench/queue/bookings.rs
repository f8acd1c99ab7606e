//! Bookings by people who were admitted long ago: what the great line beside them does to them.

use std::sync::{Arc, Mutex, PoisonError};

use anyhow::bail;
use chrono::TimeDelta;
use tokio::time::Instant;

use super::Load;
use crate::bench::client::Client;
use crate::bench::crowd::Crowd;
use crate::bench::load::steadily;
use crate::bench::progress::Progress;
use crate::bench::timing::Timings;

/// Each buyer from the `first` on reserves a seat of their own and pays, `rate` in every second.
pub(super) async fn run(
    client: &Client,
    crowd: &Arc<Crowd>,
    first: u32,
    rate: u32,
    seconds: u32,
    progress: &Progress,
) -> Load {
    let total = rate * seconds;
    progress.begin("bookings", total.into());
    let timings = Arc::new(Mutex::new(Timings::default()));
    let loaded = steadily(rate, total, progress, |number| {
        let (client, crowd, timings) = (client.clone(), Arc::clone(crowd), Arc::clone(&timings));
        async move {
            let number = first + number;
            let buyer = &crowd.buyers[number as usize];
            let begun = Instant::now();
            let reservation = client.reserve(buyer, crowd.performance, number + 1).await?.id()?;
            let paid = client.pay(buyer, reservation).await?;
            let took = TimeDelta::from_std(begun.elapsed()).unwrap_or_default();
            timings.lock().unwrap_or_else(PoisonError::into_inner).add(took);
            match paid.status {
                200 | 201 => Ok(()),
                status => bail!("a payment was answered {status} {}", paid.body()),
            }
        }
    })
    .await;
    let timings = timings.lock().unwrap_or_else(PoisonError::into_inner).clone();
    Load { timings, late: loaded.late, errors: loaded.errors, seconds: loaded.seconds }
}
