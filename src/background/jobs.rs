//! Periodic jobs. Each runs apart from the others, has a bound that ends it, and shows its last success as a metric.

use std::fmt::Display;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex as SyncMutex, PoisonError};
use std::time::Duration;

use futures::FutureExt;
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep, timeout};
use tokio_cron_scheduler::{Job as CronJob, JobScheduler, JobSchedulerError};
use tokio_util::sync::CancellationToken;

use super::Tasks;
use crate::clock::Clock;

/// For so long the scheduler may start nothing before it counts as dead.
const SCHEDULER_TIMEOUT: Duration = Duration::from_secs(60);
/// How often it is looked whether the scheduler starts jobs.
const WATCH_INTERVAL: Duration = Duration::from_secs(5);
/// So many looks in a row must find it silent: a process that was frozen finds it silent once.
const SILENT_LOOKS: u32 = 3;
const EVERY_SECOND: &str = "* * * * * *";

/// A job that runs on a schedule.
#[derive(Clone, Copy, Debug)]
pub struct Job {
    /// Its name in metrics and logs.
    pub name: &'static str,
    /// When it runs: a cron expression with seconds.
    pub schedule: &'static str,
    /// A run that takes longer is ended. The next run starts it anew.
    pub timeout: Duration,
}

/// The periodic jobs of a process.
pub struct Jobs {
    scheduler: JobScheduler,
    stop: CancellationToken,
    /// When the scheduler last started a job.
    ticked: Arc<SyncMutex<Instant>>,
}

impl Jobs {
    /// No jobs yet.
    pub async fn new(stop: &CancellationToken) -> Result<Self, JobSchedulerError> {
        let scheduler = JobScheduler::new().await?;
        let ticked = Arc::new(SyncMutex::new(Instant::now()));
        let tick = Arc::clone(&ticked);
        let heartbeat = CronJob::new_async(EVERY_SECOND, move |_, _| {
            let tick = Arc::clone(&tick);
            Box::pin(async move { *tick.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now() })
        })?;
        scheduler.add(heartbeat).await?;
        Ok(Self { scheduler, stop: stop.clone(), ticked })
    }

    /// Adds a job. It never runs twice at the same time in this process: a slow run takes the place of the next.
    pub async fn add<C, F, Fut, E>(&self, job: Job, context: &C, run: F) -> Result<(), JobSchedulerError>
    where
        C: Clone + Send + Sync + 'static,
        F: Fn(C) -> Fut + Copy + Send + Sync + 'static,
        Fut: Future<Output = Result<(), E>> + Send + 'static,
        E: Display + Send + 'static,
    {
        // An alert on the age of the last success must see a job that never succeeds, and one on failures the first of them.
        note_success(job.name);
        metrics::counter!("boxoffice_job_failures_total", "job" => job.name).increment(0);
        let (context, stop) = (context.clone(), self.stop.clone());
        let running = Arc::new(Mutex::new(()));
        let scheduled = CronJob::new_async(job.schedule, move |_, _| {
            let (context, stop, running) = (context.clone(), stop.clone(), Arc::clone(&running));
            Box::pin(async move {
                if let Ok(_alone) = running.try_lock() {
                    run_once(job, &stop, run(context)).await;
                }
            })
        })?;
        self.scheduler.add(scheduled).await?;
        Ok(())
    }

    /// Starts the jobs, and stops them with the process. A scheduler that starts no jobs any more counts as a dead task.
    pub async fn start(mut self, tasks: &Tasks) -> Result<(), JobSchedulerError> {
        self.scheduler.start().await?;
        tasks.supervise("job scheduler", async move {
            if self.stop.run_until_cancelled(watch(&self.ticked)).await.is_none()
                && let Err(error) = self.scheduler.shutdown().await
            {
                tracing::debug!(%error, "the scheduler did not stop cleanly");
            }
        });
        Ok(())
    }
}

/// Returns when the scheduler has started nothing for too long.
async fn watch(ticked: &SyncMutex<Instant>) {
    let mut silent = 0;
    while silent < SILENT_LOOKS {
        sleep(WATCH_INTERVAL).await;
        let since = ticked.lock().unwrap_or_else(PoisonError::into_inner).elapsed();
        silent = if since > SCHEDULER_TIMEOUT { silent + 1 } else { 0 };
    }
    tracing::error!("the scheduler of periodic jobs starts none any more");
}

/// Runs a job once, until it ends, its time is over, or the process stops. What a stop cuts short is done by the next start.
pub async fn run_once<E: Display>(
    job: Job,
    stop: &CancellationToken,
    run: impl Future<Output = Result<(), E>>,
) {
    let Job { name, timeout: bound, .. } = job;
    let bounded = timeout(bound, AssertUnwindSafe(run).catch_unwind());
    let Some(ended) = stop.run_until_cancelled(bounded).await else {
        return;
    };
    match ended {
        Ok(Ok(Ok(()))) => {
            note_success(name);
            return;
        }
        Ok(Ok(Err(error))) => {
            tracing::warn!(job = name, %error, "a periodic job failed; the next run tries again")
        }
        Ok(Err(_panic)) => tracing::error!(job = name, "a periodic job panicked; the next run tries again"),
        Err(_elapsed) => {
            tracing::error!(
                job = name,
                ?bound,
                "a periodic job took too long and was ended; the next run tries again"
            );
        }
    }
    metrics::counter!("boxoffice_job_failures_total", "job" => name).increment(1);
}

fn note_success(job: &'static str) {
    let now = Clock::default().now().timestamp_millis() as f64 / 1_000.0;
    metrics::gauge!("boxoffice_job_last_success_timestamp_seconds", "job" => job).set(now);
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[tokio::test]
    async fn hanging_job_ends_and_delays_no_other() {
        let stop = CancellationToken::new();
        let jobs = Jobs::new(&stop).await.unwrap();
        let (hung, healthy) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
        let job = |name| Job { name, schedule: EVERY_SECOND, timeout: Duration::from_millis(300) };
        let hang = |runs: Arc<AtomicU32>| async move {
            runs.fetch_add(1, Ordering::Relaxed);
            std::future::pending::<Result<(), Infallible>>().await
        };
        let work = |runs: Arc<AtomicU32>| async move {
            runs.fetch_add(1, Ordering::Relaxed);
            assert!(runs.load(Ordering::Relaxed) != 1, "the first run panics on purpose");
            Ok::<(), Infallible>(())
        };
        jobs.add(job("hanging"), &hung, hang).await.unwrap();
        jobs.add(job("working"), &healthy, work).await.unwrap();
        let tasks = Tasks::new(&stop);
        jobs.start(&tasks).await.unwrap();
        let both = async {
            while hung.load(Ordering::Relaxed) < 3 || healthy.load(Ordering::Relaxed) < 3 {
                sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(Duration::from_secs(30), both).await.expect("each runs again and again");
        stop.cancel();
        tasks.wait().await;
        assert_eq!(tasks.dead(), None);
    }
}
