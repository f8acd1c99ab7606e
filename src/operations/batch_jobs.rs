//! Batches as jobs: started by one request, run in the background, looked at and stopped by others. A job whose process ends
//! is taken over by another one, or by the next start.
//!
//! Progress is saved about twice a second. After a crash the acts since then may be done a second time, or count as refused
//! because their sagas have moved on; each act is written down by itself either way.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use serde::Serialize;
use serde_json::{Value, json};
use sqlx::PgPool;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;
use utoipa::ToSchema;
use uuid::Uuid;

use super::batch::{self, Batch, Tally};
use super::dates::CANCEL_DATE;
use super::job_end::Ended;
use super::{AskError, SagaFilter, date_refunds, sagas};
use crate::background::Tasks;
use crate::orchestrator::Engine;
use crate::store::batch_jobs::{self as rows, BatchJobRow, JobEnd, JobProgress, NewBatchJob};
use crate::store::operations::{self, ActRow};
use crate::{ids, store};

/// Most sagas of one job.
pub const JOB_LIMIT_MAX: u32 = 100_000;
/// Most jobs that have not ended.
pub const UNFINISHED_JOBS_MAX: i64 = 5;
/// Most jobs that one statement deletes.
const PURGE_BATCH: i64 = 1_000;
/// How often a running job saves how far it is.
const SAVE_INTERVAL: Duration = Duration::from_millis(500);

/// Deletes the jobs that ended longer than `keep` ago. The records of their acts stay.
pub async fn purge(pool: &PgPool, keep: TimeDelta) -> store::Result<()> {
    let before = store::now(pool).await? - keep;
    while rows::purge(pool, before, PURGE_BATCH).await? == PURGE_BATCH as u64 {}
    Ok(())
}

/// One act on every saga that a filter finds, or the end of what was sold of a cancelled date, as a job.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct BatchJob {
    pub id: Uuid,
    /// `running`, `completed`, `stopped` or `failed`.
    pub status: String,
    pub act: String,
    /// Which sagas are meant, as it was ordered.
    #[schema(value_type = Object)]
    pub filter: Value,
    pub reason: String,
    /// The key that ordered it.
    pub actor: String,
    pub dry_run: bool,
    pub rate_per_second: i32,
    pub limit: i32,
    /// Sagas that matched when it began, at most `limit`; null until they are counted, and if counting took too long.
    pub total: Option<i64>,
    /// Sagas that were looked at so far.
    pub looked_at: i64,
    /// Acts that were done; in a dry run, that would be done.
    pub done: i64,
    /// Acts that were refused.
    pub failed: i64,
    /// Why acts were refused, and how often.
    #[schema(value_type = Object)]
    pub refusals: Value,
    /// Whether matching sagas are left that it did not come to.
    pub more: bool,
    /// Why it failed.
    pub error: Option<String>,
    /// The key that asked for its stop. A job stops within a second after that.
    pub stopped_by: Option<String>,
    pub created_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
    pub finished_at: Option<DateTime<Utc>>,
}

impl From<BatchJobRow> for BatchJob {
    fn from(row: BatchJobRow) -> Self {
        Self {
            id: row.id,
            status: row.status,
            act: row.act,
            filter: row.filter,
            reason: row.reason,
            actor: row.actor,
            dry_run: row.dry_run,
            rate_per_second: row.rate_per_second,
            limit: row.max_sagas,
            total: row.total,
            looked_at: row.looked_at,
            done: row.done,
            failed: row.failed,
            refusals: row.refusals,
            more: row.more,
            error: row.error,
            stopped_by: row.stopped_by,
            created_at: row.created_at,
            updated_at: row.updated_at,
            finished_at: row.finished_at,
        }
    }
}

/// Why a job was not started or stopped.
#[derive(Debug, thiserror::Error)]
pub enum JobError {
    #[error(
        "{UNFINISHED_JOBS_MAX} batches are under way, and no more are allowed; wait for one to end, or stop one"
    )]
    TooMany,
    #[error("there is no such batch")]
    Unknown,
    #[error(transparent)]
    Database(#[from] sqlx::Error),
}

/// Starts jobs in this process, and takes over those that no process runs.
#[derive(Clone, Debug)]
pub struct BatchJobs {
    engine: Engine,
    tasks: Tasks,
    stop: CancellationToken,
}

impl BatchJobs {
    pub fn new(engine: &Engine, tasks: &Tasks, stop: &CancellationToken) -> Self {
        Self { engine: engine.clone(), tasks: tasks.clone(), stop: stop.clone() }
    }

    /// Writes the job down and runs it in the background. The same id again is the same job.
    pub async fn start(&self, id: Uuid, order: &Batch) -> Result<BatchJob, JobError> {
        let filter = json!(order.filter);
        let new = NewBatchJob {
            id,
            actor: &order.actor,
            act: order.act.name(),
            filter: &filter,
            reason: &order.reason,
            dry_run: order.dry_run,
            rate_per_second: i32::try_from(order.per_second).unwrap_or(i32::MAX),
            max_sagas: i32::try_from(order.limit).unwrap_or(i32::MAX),
        };
        let mut tx = self.engine.pool.begin().await?;
        let unfinished = rows::lock_and_count_unfinished(&mut tx).await?;
        let known = rows::get(&mut *tx, id).await?;
        if known.is_none() {
            if unfinished >= UNFINISHED_JOBS_MAX {
                return Err(JobError::TooMany);
            }
            rows::insert(&mut *tx, &new).await?;
            let target = format!("batch {id}");
            let detail =
                json!({ "act": new.act, "filter": filter, "dry_run": order.dry_run, "limit": order.limit });
            let act = ActRow {
                actor: &order.actor,
                act: "batch.start",
                saga_id: None,
                target: Some(&target),
                reason: &order.reason,
                from: "",
                to: "running",
                detail: Some(&detail),
            };
            operations::record_act(&mut *tx, &act).await?;
        }
        let job = rows::get(&mut *tx, id).await?.ok_or(JobError::Unknown)?;
        tx.commit().await?;
        self.spawn(id);
        Ok(job.into())
    }

    /// Runs the jobs that no process runs: their processes have ended.
    pub async fn resume(&self) -> Result<(), sqlx::Error> {
        for id in rows::unheld(&self.engine.pool).await? {
            tracing::info!(batch = %id, "a batch that no process runs is taken over");
            self.spawn(id);
        }
        Ok(())
    }

    /// Runs a job in the background, unless another process runs it.
    pub fn spawn(&self, id: Uuid) {
        let (engine, stop) = (self.engine.clone(), self.stop.clone());
        self.tasks.spawn(async move {
            let holder = ids::new();
            let run = Box::pin(run(&engine, id, holder, &stop)).await;
            if let Err(error) = run {
                // The lease runs out, and the job is taken over then.
                tracing::warn!(%error, batch = %id, "a batch was interrupted; it goes on in a while");
            }
        });
    }
}

/// Asks a job to stop; one that has ended stays as it is.
pub async fn stop(pool: &PgPool, id: Uuid, actor: &str, reason: &str) -> Result<BatchJob, JobError> {
    let mut tx = pool.begin().await?;
    if rows::ask_to_stop(&mut *tx, id, actor).await? {
        let target = format!("batch {id}");
        let act = ActRow {
            actor,
            act: "batch.stop",
            saga_id: None,
            target: Some(&target),
            reason,
            from: "running",
            to: "stopped",
            detail: None,
        };
        operations::record_act(&mut *tx, &act).await?;
    }
    let job = rows::get(&mut *tx, id).await?.ok_or(JobError::Unknown)?;
    tx.commit().await?;
    Ok(job.into())
}

/// One job.
pub async fn show(pool: &PgPool, id: Uuid) -> Result<BatchJob, JobError> {
    Ok(rows::get(pool, id).await?.ok_or(JobError::Unknown)?.into())
}

/// Jobs, newest first, before the job `before`.
pub async fn list(pool: &PgPool, before: Option<Uuid>, limit: i64) -> Result<Vec<BatchJob>, sqlx::Error> {
    Ok(rows::list(pool, before, limit).await?.into_iter().map(BatchJob::from).collect())
}

/// Runs a job to its end, unless another process runs it.
async fn run(engine: &Engine, id: Uuid, holder: Uuid, stop: &CancellationToken) -> anyhow::Result<()> {
    let Some(row) = rows::claim(&engine.pool, id, holder).await? else { return Ok(()) };
    let ended = match row.act.as_str() {
        CANCEL_DATE => date_refunds::run(engine, &row, holder, stop).await?,
        _ => run_acts(engine, id, holder, row, stop).await?,
    };
    match ended {
        Ended::Finished { status, more, error } => {
            let end = JobEnd { status, more, error: error.as_deref() };
            rows::finish(&engine.pool, id, holder, end).await?;
        }
        Ended::ProcessStops => rows::release(&engine.pool, id, holder).await?,
        Ended::Lost => {}
    }
    Ok(())
}

async fn run_acts(
    engine: &Engine,
    id: Uuid,
    holder: Uuid,
    row: BatchJobRow,
    stop: &CancellationToken,
) -> anyhow::Result<Ended> {
    let order = match order(&row) {
        Ok(order) => order,
        Err(error) => {
            let error = Some(format!("it cannot be read: {error}"));
            return Ok(Ended::Finished { status: "failed", more: true, error });
        }
    };
    if row.total.is_none() {
        rows::set_total(&engine.pool, id, count(engine, &order).await?).await?;
    }
    let mut run = Run::new(engine, id, holder, row);
    match run.go_through(&order, stop).await {
        Ok(ended) => {
            run.save().await?;
            Ok(ended)
        }
        Err(error) => {
            // What was done is kept as far as the database takes it.
            let _saved = run.save().await;
            Err(error)
        }
    }
}

fn order(row: &BatchJobRow) -> anyhow::Result<Batch> {
    let act = batch::act_named(&row.act).ok_or_else(|| anyhow::anyhow!("there is no act {}", row.act))?;
    let filter: SagaFilter = serde_json::from_value(row.filter.clone())?;
    Ok(Batch {
        act,
        filter,
        actor: row.actor.clone(),
        reason: row.reason.clone(),
        dry_run: row.dry_run,
        per_second: u32::try_from(row.rate_per_second)?.max(1),
        limit: u32::try_from(row.max_sagas)?,
    })
}

/// Sagas that match, at most the limit; `None` if counting them takes too long.
async fn count(engine: &Engine, order: &Batch) -> Result<Option<i64>, AskError> {
    match sagas::counts(&engine.pool, &order.filter).await {
        Ok(counts) => Ok(Some(counts.iter().map(|count| count.count).sum::<i64>().min(order.limit.into()))),
        Err(AskError::TooWide) => Ok(None),
        Err(error) => Err(error),
    }
}

struct Run<'a> {
    engine: &'a Engine,
    id: Uuid,
    holder: Uuid,
    tally: Tally,
    position: Option<Uuid>,
    saved: Instant,
}

impl<'a> Run<'a> {
    fn new(engine: &'a Engine, id: Uuid, holder: Uuid, row: BatchJobRow) -> Self {
        let count = |number: i64| u64::try_from(number).unwrap_or(0);
        let tally = Tally {
            looked_at: count(row.looked_at),
            done: count(row.done),
            refused: count(row.failed),
            refusals: serde_json::from_value(row.refusals).unwrap_or_default(),
            ..Tally::default()
        };
        Self { engine, id, holder, tally, position: row.position, saved: Instant::now() }
    }

    async fn go_through(&mut self, order: &Batch, stop: &CancellationToken) -> anyhow::Result<Ended> {
        let mut pace = tokio::time::interval(Duration::from_secs(1) / order.per_second);
        pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let page = sagas::list(&self.engine.pool, &order.filter, self.position, batch::PAGE).await;
            let page = match page {
                Ok(page) => page,
                Err(error @ AskError::TooWide) => {
                    let error = Some(error.to_string());
                    return Ok(Ended::Finished { status: "failed", more: true, error });
                }
                Err(error) => return Err(error.into()),
            };
            let is_last = page.len() < usize::try_from(batch::PAGE)?;
            for saga in page {
                if self.tally.looked_at >= u64::from(order.limit) {
                    return Ok(Ended::Finished { status: "completed", more: true, error: None });
                }
                let is_stopping = if order.dry_run {
                    stop.is_cancelled()
                } else {
                    stop.run_until_cancelled(pace.tick()).await.is_none()
                };
                if is_stopping {
                    return Ok(Ended::ProcessStops);
                }
                batch::one(self.engine, order, &saga, &mut self.tally).await?;
                self.position = Some(saga.id);
                if self.saved.elapsed() >= SAVE_INTERVAL {
                    match self.save().await? {
                        None => return Ok(Ended::Lost),
                        Some(true) => {
                            return Ok(Ended::Finished { status: "stopped", more: true, error: None });
                        }
                        Some(false) => {}
                    }
                }
            }
            if is_last {
                return Ok(Ended::Finished { status: "completed", more: false, error: None });
            }
        }
    }

    /// Saves how far it is; whether a stop was asked for, or `None` if another run holds the job.
    async fn save(&mut self) -> Result<Option<bool>, sqlx::Error> {
        let number = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
        let progress = JobProgress {
            looked_at: number(self.tally.looked_at),
            done: number(self.tally.done),
            failed: number(self.tally.refused),
            refusals: &json!(self.tally.refusals),
            position: self.position,
        };
        self.saved = Instant::now();
        rows::save(&self.engine.pool, self.id, self.holder, &progress).await
    }
}
