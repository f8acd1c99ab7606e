//! What happens by the clock: one line per job.

use std::future::Future;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use anyhow::Context;
use chrono::TimeDelta;
use tokio::sync::Mutex;
use tokio::time::Instant;
use tokio_cron_scheduler::{Job, JobScheduler};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::booking::{Desk, DeskError};
use crate::clock::Clock;
use crate::orchestrator::Engine;
use crate::store;

/// With no alarm nearer than this, and no charge to announce, nothing is under way.
const SOON: TimeDelta = TimeDelta::minutes(2);
/// How long nobody looks then; a little less than whole seconds, for the job runs on the second.
const QUIET: Duration = Duration::from_millis(2_900);

/// Starts the jobs, and stops them with the process. The sweeper also runs once now: a start heals at once.
pub(super) async fn start(
    engine: &Engine,
    desk: &Desk,
    clock: &Clock,
    keep: TimeDelta,
    tasks: &TaskTracker,
    stop: &CancellationToken,
) -> anyhow::Result<()> {
    let mut jobs = JobScheduler::new().await.context("the scheduler cannot be started")?;
    let watch = Watch { engine: engine.clone(), desk: desk.clone(), quiet_until: Arc::default() };
    look(watch.clone()).await;
    every(&jobs, stop, "* * * * * *", &watch, look).await?;
    every(&jobs, stop, "*/5 * * * * *", engine, look_after_pauses).await?;
    every(&jobs, stop, "0 17 * * * *", &(engine.clone(), clock.clone()), forget_old_keys).await?;
    let forgetting = (engine.clone(), keep);
    every(&jobs, stop, "0 37 * * * *", &forgetting, forget_what_is_over).await?;
    let (forgotten, stopped) = (forget_what_is_over(forgetting), stop.clone());
    // Also now, for those that never run for an hour.
    tasks.spawn(async move { stopped.run_until_cancelled(forgotten).await });
    jobs.start().await.context("the scheduler cannot be started")?;
    let stop = stop.clone();
    tasks.spawn(async move {
        stop.cancelled().await;
        if let Err(error) = jobs.shutdown().await {
            tracing::debug!(%error, "the scheduler did not stop cleanly");
        }
    });
    Ok(())
}

/// Runs a job on a schedule, never twice at the same time: a slow pass takes the place of the next.
async fn every<C, F, Fut>(
    jobs: &JobScheduler,
    stop: &CancellationToken,
    schedule: &str,
    context: &C,
    job: F,
) -> anyhow::Result<()>
where
    C: Clone + Send + Sync + 'static,
    F: Fn(C) -> Fut + Copy + Send + Sync + 'static,
    Fut: Future<Output = ()> + Send + 'static,
{
    let (context, stop) = (context.clone(), stop.clone());
    let running = Arc::new(Mutex::new(()));
    let scheduled = Job::new_async(schedule, move |_, _| {
        let (context, stop, running) = (context.clone(), stop.clone(), Arc::clone(&running));
        Box::pin(async move {
            if let Ok(_alone) = running.try_lock() {
                // A job that is cut short by the stop is done by the next start.
                stop.run_until_cancelled(job(context)).await;
            }
        })
    })?;
    jobs.add(scheduled).await?;
    Ok(())
}

/// What is looked after every second: overdue sagas, and charges that are still to be announced.
#[derive(Clone)]
struct Watch {
    engine: Engine,
    desk: Desk,
    /// Nothing is under way: until then nobody asks the database.
    quiet_until: Arc<std::sync::Mutex<Option<Instant>>>,
}

impl Watch {
    fn quiet_until(&self) -> std::sync::MutexGuard<'_, Option<Instant>> {
        self.quiet_until.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One look: what is due is done. Returns whether anything is due now or soon.
    async fn look(&self) -> Result<bool, DeskError> {
        let pulse = store::pulse::pulse(&self.engine.pool).await?;
        if pulse.next_due.is_some_and(|due| due <= pulse.now) {
            self.engine.sweep().await?;
        }
        if pulse.charges {
            self.desk.announce_forgotten_charges().await?;
        }
        Ok(pulse.charges || pulse.next_due.is_some_and(|due| due - pulse.now < SOON))
    }
}

/// Looks once a second as long as anything is under way, and less often while nothing is.
async fn look(watch: Watch) {
    if watch.quiet_until().is_some_and(|until| Instant::now() < until) {
        return;
    }
    let busy = watch.look().await.unwrap_or_else(|error| {
        tracing::warn!(%error, "what is due could not be looked after; it is tried again in a second");
        true
    });
    *watch.quiet_until() = (!busy).then(|| Instant::now() + QUIET);
}

async fn look_after_pauses(engine: Engine) {
    if let Err(error) = engine.keep_pauses().await {
        tracing::warn!(%error, "what should be paused could not be looked after");
    }
}

async fn forget_old_keys((engine, clock): (Engine, Clock)) {
    let a_day_ago = clock.now() - TimeDelta::hours(24);
    if let Err(error) = store::idempotency::purge(&engine.pool, a_day_ago).await {
        tracing::warn!(%error, "old idempotency keys could not be forgotten");
    }
}

async fn forget_what_is_over((engine, keep): (Engine, TimeDelta)) {
    if let Err(error) = engine.forget(keep).await {
        tracing::warn!(%error, "what is over could not be dropped; it is tried again in an hour");
    }
}
