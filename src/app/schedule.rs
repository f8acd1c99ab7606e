//! What happens by the clock: one line per job. Each job runs apart from the others.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use anyhow::Context;
use chrono::TimeDelta;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::audit;
use crate::background::Tasks;
use crate::background::jobs::{Job, Jobs, run_once};
use crate::booking::{BookingError, BookingService};
use crate::clock::Clock;
use crate::operations::batch_jobs::{self, BatchJobs};
use crate::orchestrator::{ActError, Engine};
use crate::{store, webhooks};

const SWEEP: Job = Job { name: "sweep", schedule: "* * * * * *", timeout: Duration::from_secs(30) };
const CHARGES: Job =
    Job { name: "announce_charges", schedule: "* * * * * *", timeout: Duration::from_secs(30) };
const PAUSES: Job = Job { name: "keep_pauses", schedule: "*/5 * * * * *", timeout: Duration::from_secs(30) };
const KEYS: Job =
    Job { name: "purge_idempotency_keys", schedule: "0 17 * * * *", timeout: Duration::from_secs(600) };
const ENDED: Job =
    Job { name: "purge_ended_sagas", schedule: "0 37 * * * *", timeout: Duration::from_secs(1_800) };
const BATCHES: Job =
    Job { name: "resume_batches", schedule: "*/15 * * * * *", timeout: Duration::from_secs(30) };
/// In the middle of a minute, when the jobs of full minutes have run.
const AUDIT: Job = Job { name: "audit_recent", schedule: "29 * * * * *", timeout: Duration::from_secs(30) };

/// With no alarm nearer than this, and no charge to announce, nothing is under way.
const SOON: TimeDelta = TimeDelta::minutes(2);
/// How long the database is not asked then; a little less than whole seconds, for the job runs on the second.
const QUIET: Duration = Duration::from_millis(2_900);

/// Starts the jobs, and stops them with the process. The sweeper also runs once now: a start heals at once.
pub(super) async fn start(
    engine: &Engine,
    booking: &BookingService,
    clock: &Clock,
    keep: TimeDelta,
    tasks: &Tasks,
    stop: &CancellationToken,
) -> anyhow::Result<()> {
    let failed = "the scheduler cannot be started";
    let jobs = Jobs::new(stop).await.context(failed)?;
    let watch = Watch { engine: engine.clone(), quiet_until: Arc::default(), charges: Arc::default() };
    let charges = Charges { booking: booking.clone(), are_waiting: Arc::clone(&watch.charges) };
    // Beside the rest of the start: a start after a long stop may find thousands of sagas that are due.
    let (first, stopped) = (sweep(watch.clone()), stop.clone());
    tasks.spawn(async move { run_once(SWEEP, &stopped, first).await });
    jobs.add(SWEEP, &watch, sweep).await.context(failed)?;
    jobs.add(CHARGES, &charges, announce_charges).await.context(failed)?;
    jobs.add(PAUSES, engine, keep_pauses).await.context(failed)?;
    jobs.add(KEYS, &(engine.clone(), clock.clone()), purge_keys).await.context(failed)?;
    jobs.add(BATCHES, &BatchJobs::new(engine, tasks, stop), resume_batches).await.context(failed)?;
    jobs.add(AUDIT, engine, audit_recent).await.context(failed)?;
    let purging = (engine.clone(), keep);
    jobs.add(ENDED, &purging, purge_ended).await.context(failed)?;
    // Also now, for processes that never run for an hour.
    let stopped = stop.clone();
    tasks.spawn(async move { run_once(ENDED, &stopped, purge_ended(purging)).await });
    jobs.start(tasks).await.context(failed)
}

/// Finds out every second whether anything is due: overdue sagas, and charges that are still to be announced.
#[derive(Clone)]
struct Watch {
    engine: Engine,
    /// Nothing is under way: until then the database is not asked.
    quiet_until: Arc<std::sync::Mutex<Option<Instant>>>,
    /// Whether charges wait to be announced.
    charges: Arc<AtomicBool>,
}

impl Watch {
    fn quiet_until(&self) -> std::sync::MutexGuard<'_, Option<Instant>> {
        self.quiet_until.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Sweeps once a second as long as anything is under way, and looks less often while nothing is. It needs Postgres only:
/// what follows from its commits is published apart from it.
async fn sweep(watch: Watch) -> store::Result<()> {
    if watch.quiet_until().is_some_and(|until| Instant::now() < until) {
        return Ok(());
    }
    let pulse = store::pulse::pulse(&watch.engine.pool).await?;
    watch.charges.store(pulse.charges, Ordering::Relaxed);
    if pulse.next_due.is_some_and(|due| due <= pulse.now) {
        watch.engine.sweep().await?;
    }
    let is_busy = pulse.charges || pulse.next_due.is_some_and(|due| due - pulse.now < SOON);
    *watch.quiet_until() = (!is_busy).then(|| Instant::now() + QUIET);
    Ok(())
}

/// The charges of this process's database that wait to be announced.
#[derive(Clone)]
struct Charges {
    booking: BookingService,
    are_waiting: Arc<AtomicBool>,
}

/// Announces charges if the sweeper has found some. Without any it asks neither server.
async fn announce_charges(charges: Charges) -> Result<(), BookingError> {
    if charges.are_waiting.swap(false, Ordering::Relaxed) {
        charges.booking.announce_forgotten_charges().await?;
        charges.booking.announce_direct_events().await?;
    }
    Ok(())
}

async fn keep_pauses(engine: Engine) -> Result<(), ActError> {
    engine.keep_pauses().await
}

async fn purge_keys((engine, clock): (Engine, Clock)) -> store::Result<()> {
    let a_day_ago = clock.now() - TimeDelta::hours(24);
    store::idempotency::purge(&engine.pool, a_day_ago).await.map(drop)
}

async fn purge_ended((engine, keep): (Engine, TimeDelta)) -> store::Result<()> {
    engine.purge(keep).await?;
    batch_jobs::purge(&engine.pool, keep).await?;
    webhooks::purge(&engine.pool).await
}

async fn resume_batches(batches: BatchJobs) -> store::Result<()> {
    batches.resume().await
}

async fn audit_recent(engine: Engine) -> store::Result<()> {
    audit::recent::report(&engine.pool, audit::recent::WINDOW).await
}
