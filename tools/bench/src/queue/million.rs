//! A line of a million: how fast it grows, how much memory it takes, how long a new process needs to read it.

use std::sync::{Arc, Mutex, PoisonError};

use chrono::TimeDelta;
use tokio::time::Instant;
use uuid::Uuid;

use super::follow::as_fast_as_it_goes;
use super::in_line;
use super::storm::{Arrival, join};
use crate::load::at_once;
use crate::people::People;
use crate::process::Process;
use crate::progress::Progress;
use crate::stage::{ALL_ROLES, Stage};
use crate::timing::Timings;

/// Newcomers who join at once.
const AT_ONCE: u32 = 256;
/// For how long polls are counted, in seconds.
const POLLING: u32 = 10;

/// The result.
pub(super) struct Grown {
    pub joins: Timings,
    pub joins_per_second: f64,
    pub waiting: u64,
    pub bytes_per_waiter: Option<u64>,
    pub empty_start: f64,
    pub full_start: f64,
    pub polls: Timings,
    pub polls_per_second: f64,
    pub errors: u64,
    /// The process that read all of it.
    pub second: Process,
}

/// Lets the line grow to `wanted`, and starts a second process that has to read it; some of `line` ask for their places.
pub(super) async fn run(
    stage: &Stage,
    first: &Process,
    people: &Arc<People>,
    concert: Uuid,
    wanted: u32,
    line: &[Arrival],
    progress: &Progress,
) -> anyhow::Result<Grown> {
    let client = &first.client;
    let there = in_line(stage, client, concert).await?;
    let more = wanted.saturating_sub(u32::try_from(there).unwrap_or(u32::MAX));
    progress.begin("more people join", more.into());
    let before = first.resident();
    let joins = Mutex::new(Timings::default());
    let loaded = at_once(AT_ONCE, more, progress, async |_| {
        let arrival = join(client, people.newcomer()?, concert).await?;
        let took = TimeDelta::from_std(arrival.answered - arrival.begun).unwrap_or_default();
        joins.lock().unwrap_or_else(PoisonError::into_inner).add(took);
        Ok(())
    })
    .await;
    let after = first.resident();
    let waiting = in_line(stage, client, concert).await?;
    let grown = waiting.saturating_sub(there);
    let bytes_per_waiter = before.zip(after).filter(|_| grown > 0).map(|(b, a)| a.saturating_sub(b) / grown);

    progress.begin("a second process reads the line", 0);
    let begun = Instant::now();
    let second = stage.serve(ALL_ROLES).await?;
    let full_start = begun.elapsed().as_secs_f64();
    let (polls, polls_per_second) = as_fast_as_it_goes(&second.client, line, POLLING, progress).await;
    Ok(Grown {
        joins: joins.into_inner().unwrap_or_else(PoisonError::into_inner),
        joins_per_second: f64::from(more) / loaded.seconds.max(f64::MIN_POSITIVE),
        waiting,
        bytes_per_waiter,
        empty_start: first.start_took,
        full_start,
        polls,
        polls_per_second,
        errors: loaded.errors + u64::from(more).saturating_sub(grown),
        second,
    })
}
