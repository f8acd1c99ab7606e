//! The pace of the generator: it begins what is due whatever became of what was begun before.

use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use chrono::TimeDelta;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use super::progress::Progress;
use super::timing::Timings;

/// What a load came to.
#[derive(Debug)]
pub(super) struct Loaded {
    /// Seconds from the first begun to the last ended.
    pub seconds: f64,
    /// What failed.
    pub errors: u64,
    /// How late each was begun.
    pub late: Timings,
}

/// Begins `total` pieces of work, `rate` in every second, evenly, and waits for all of them.
pub(super) async fn steadily<W>(rate: u32, total: u32, progress: &Progress, work: impl Fn(u32) -> W) -> Loaded
where
    W: Future<Output = anyhow::Result<()>> + Send + 'static,
{
    on_schedule(rate, total, progress, |number, _due| work(number)).await
}

/// The same for work whose time counts from when it was due: what came late is slow, whatever made it late.
pub(super) async fn on_schedule<W>(
    rate: u32,
    total: u32,
    progress: &Progress,
    work: impl Fn(u32, Instant) -> W,
) -> Loaded
where
    W: Future<Output = anyhow::Result<()>> + Send + 'static,
{
    let (begun, mut late, mut running) = (Instant::now(), Timings::default(), JoinSet::new());
    let mut tally = Tally::default();
    for number in 0..total {
        let due = begun + Duration::from_secs_f64(f64::from(number) / f64::from(rate.max(1)));
        sleep_until(due).await;
        late.add(TimeDelta::from_std(due.elapsed()).unwrap_or_default());
        running.spawn(work(number, due));
        while let Some(ended) = running.try_join_next() {
            tally.add(ended, progress);
        }
    }
    while let Some(ended) = running.join_next().await {
        tally.add(ended, progress);
    }
    Loaded { seconds: begun.elapsed().as_secs_f64(), errors: tally.errors, late }
}

/// Works off `total` pieces of work, so many at once, as fast as they go.
pub(super) async fn at_once<W>(
    concurrency: u32,
    total: u32,
    progress: &Progress,
    work: impl Fn(u32) -> W,
) -> Loaded
where
    W: Future<Output = anyhow::Result<()>>,
{
    use futures::StreamExt;
    let begun = Instant::now();
    let errors = AtomicU64::new(0);
    let pieces = futures::stream::iter((0..total).map(work));
    pieces
        .for_each_concurrent(concurrency.max(1) as usize, |piece| async {
            if let Err(error) = piece.await {
                tracing::error!(%error, "a piece of the load failed");
                errors.fetch_add(1, Ordering::Relaxed);
            }
            progress.more(1);
        })
        .await;
    let (seconds, late) = (begun.elapsed().as_secs_f64(), Timings::default());
    Loaded { seconds, errors: errors.into_inner(), late }
}

#[derive(Default)]
struct Tally {
    errors: u64,
}

impl Tally {
    fn add(&mut self, ended: Result<anyhow::Result<()>, tokio::task::JoinError>, progress: &Progress) {
        progress.more(1);
        let failed = match ended {
            Ok(Ok(())) => return,
            Ok(Err(error)) => error.to_string(),
            Err(error) => error.to_string(),
        };
        tracing::error!(error = failed, "a piece of the load failed");
        self.errors += 1;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[tokio::test]
    async fn work_is_due_evenly_whenever_it_is_begun() {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let loaded = on_schedule(1_000, 5, &Progress::new(true), |number, due| {
            // The generator is held up: what comes next is begun late, and due as before.
            std::thread::sleep(Duration::from_millis(3));
            let seen = Arc::clone(&seen);
            async move {
                seen.lock().unwrap().push((number, due));
                if number == 4 { anyhow::bail!("it fails") } else { Ok(()) }
            }
        })
        .await;
        let mut seen = seen.lock().unwrap().clone();
        seen.sort_unstable();
        let first = seen[0].1;
        for (number, due) in &seen {
            assert_eq!((*due - first).as_micros(), u128::from(*number) * 1_000);
        }
        assert_eq!((seen.len(), loaded.errors), (5, 1));
        assert!(loaded.late.spread().unwrap().max_ms >= 3.0);
    }
}
