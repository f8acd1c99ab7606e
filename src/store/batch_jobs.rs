//! Jobs that do one act to many sagas: what was ordered, how far each is, and which process works on it.

use std::time::Duration;

use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::{PgConnection, PgExecutor};
use uuid::Uuid;

use super::Result;

/// How long a process keeps the lease of a job without saving progress.
pub const JOB_LEASE_TTL: Duration = Duration::from_secs(20);

/// What an operator orders.
#[derive(Clone, Debug)]
pub struct NewBatchJob<'a> {
    pub id: Uuid,
    pub actor: &'a str,
    pub act: &'a str,
    pub filter: &'a Value,
    pub reason: &'a str,
    pub dry_run: bool,
    pub rate_per_second: i32,
    pub max_sagas: i32,
}

/// A job as it stands.
#[derive(Clone, Debug)]
pub struct BatchJobRow {
    pub id: Uuid,
    pub actor: String,
    pub act: String,
    pub filter: Value,
    pub reason: String,
    pub dry_run: bool,
    pub rate_per_second: i32,
    pub max_sagas: i32,
    pub status: String,
    pub total: Option<i64>,
    pub looked_at: i64,
    pub done: i64,
    pub failed: i64,
    pub refusals: Value,
    pub more: bool,
    pub error: Option<String>,
    pub position: Option<Uuid>,
    pub stopped_by: Option<String>,
    pub created_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
    pub finished_at: Option<DateTime<Utc>>,
}

/// How far a job is.
#[derive(Clone, Debug)]
pub struct JobProgress<'a> {
    pub looked_at: i64,
    pub done: i64,
    pub failed: i64,
    pub refusals: &'a Value,
    pub position: Option<Uuid>,
}

/// How a job ended.
#[derive(Clone, Copy, Debug)]
pub struct JobEnd<'a> {
    /// `completed`, `stopped` or `failed`.
    pub status: &'a str,
    pub more: bool,
    pub error: Option<&'a str>,
}

/// Keeps others from adding a job until the transaction ends, and counts those that have not ended. A cancelled date has its job in
/// any case, so those are not counted.
pub async fn lock_and_count_unfinished(conn: &mut PgConnection) -> Result<i64> {
    sqlx::query!("lock table batch_jobs in share row exclusive mode").execute(&mut *conn).await?;
    sqlx::query_scalar!(r#"select count(*) as "count!" from batch_jobs where finished_at is null and act <> 'cancel_performance'"#)
        .fetch_one(conn)
        .await
}

/// Adds a job; one of this id may be there already.
pub async fn insert(db: impl PgExecutor<'_>, job: &NewBatchJob<'_>) -> Result<bool> {
    let inserted = sqlx::query!(
        r#"
        insert into batch_jobs (id, actor, act, filter, reason, dry_run, rate_per_second, max_sagas)
        values ($1, $2, $3, $4, $5, $6, $7, $8)
        on conflict (id) do nothing
        "#,
        job.id,
        job.actor,
        job.act,
        job.filter,
        job.reason,
        job.dry_run,
        job.rate_per_second,
        job.max_sagas,
    )
    .execute(db)
    .await?;
    Ok(inserted.rows_affected() > 0)
}

/// One job.
pub async fn get(db: impl PgExecutor<'_>, id: Uuid) -> Result<Option<BatchJobRow>> {
    sqlx::query_as!(
        BatchJobRow,
        r#"
        select id, actor, act, filter, reason, dry_run, rate_per_second, max_sagas, status, total, looked_at, done, failed,
               refusals, more, error, position, stopped_by, created_at, updated_at, finished_at
        from batch_jobs where id = $1
        "#,
        id
    )
    .fetch_optional(db)
    .await
}

/// Deletes up to `limit` jobs that ended before this moment.
pub async fn purge(db: impl PgExecutor<'_>, before: DateTime<Utc>, limit: i64) -> Result<u64> {
    let deleted = sqlx::query!(
        "delete from batch_jobs where id = any (array(select id from batch_jobs where finished_at < $1 order by id limit $2))",
        before,
        limit,
    );
    Ok(deleted.execute(db).await?.rows_affected())
}

/// Jobs, newest first, before the job `before`.
pub async fn list(db: impl PgExecutor<'_>, before: Option<Uuid>, limit: i64) -> Result<Vec<BatchJobRow>> {
    sqlx::query_as!(
        BatchJobRow,
        r#"
        select id, actor, act, filter, reason, dry_run, rate_per_second, max_sagas, status, total, looked_at, done, failed,
               refusals, more, error, position, stopped_by, created_at, updated_at, finished_at
        from batch_jobs where $1::uuid is null or id < $1
        order by id desc limit $2
        "#,
        before,
        limit,
    )
    .fetch_all(db)
    .await
}

/// Takes over a job that has not ended and that no other run holds; `None` if there is no such job.
pub async fn claim(db: impl PgExecutor<'_>, id: Uuid, holder: Uuid) -> Result<Option<BatchJobRow>> {
    sqlx::query_as!(
        BatchJobRow,
        r#"
        update batch_jobs set holder = $2, lease_until = clock_timestamp() + make_interval(secs => $3), updated_at = clock_timestamp()
        where id = $1 and finished_at is null and (lease_until is null or lease_until < clock_timestamp())
        returning id, actor, act, filter, reason, dry_run, rate_per_second, max_sagas, status, total, looked_at, done, failed,
                  refusals, more, error, position, stopped_by, created_at, updated_at, finished_at
        "#,
        id,
        holder,
        JOB_LEASE_TTL.as_secs_f64(),
    )
    .fetch_optional(db)
    .await
}

/// Jobs that have not ended and that no run holds.
pub async fn unheld(db: impl PgExecutor<'_>) -> Result<Vec<Uuid>> {
    sqlx::query_scalar!(
        r#"
        select id from batch_jobs
        where finished_at is null and (lease_until is null or lease_until < clock_timestamp())
        order by id
        "#
    )
    .fetch_all(db)
    .await
}

/// Notes how many sagas a job is about.
pub async fn set_total(db: impl PgExecutor<'_>, id: Uuid, total: Option<i64>) -> Result<()> {
    sqlx::query!("update batch_jobs set total = $2 where id = $1", id, total).execute(db).await?;
    Ok(())
}

/// Saves progress and keeps the lease. Returns whether a stop was asked for; `None` if another run holds the job.
pub async fn save(
    db: impl PgExecutor<'_>,
    id: Uuid,
    holder: Uuid,
    progress: &JobProgress<'_>,
) -> Result<Option<bool>> {
    sqlx::query_scalar!(
        r#"
        update batch_jobs
        set looked_at = $3, done = $4, failed = $5, refusals = $6, position = $7, updated_at = clock_timestamp(),
            lease_until = clock_timestamp() + make_interval(secs => $8)
        where id = $1 and holder = $2 and finished_at is null
        returning stopped_by is not null as "stopped!"
        "#,
        id,
        holder,
        progress.looked_at,
        progress.done,
        progress.failed,
        progress.refusals,
        progress.position,
        JOB_LEASE_TTL.as_secs_f64(),
    )
    .fetch_optional(db)
    .await
}

/// Gives a job back, so that another process goes on with it at once.
pub async fn release(db: impl PgExecutor<'_>, id: Uuid, holder: Uuid) -> Result<()> {
    sqlx::query!(
        "update batch_jobs set holder = null, lease_until = null where id = $1 and holder = $2 and finished_at is null",
        id,
        holder,
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Ends a job.
pub async fn finish(db: impl PgExecutor<'_>, id: Uuid, holder: Uuid, end: JobEnd<'_>) -> Result<()> {
    sqlx::query!(
        r#"
        update batch_jobs
        set status = $3, more = $4, error = $5, holder = null, lease_until = null,
            updated_at = clock_timestamp(), finished_at = clock_timestamp()
        where id = $1 and holder = $2 and finished_at is null
        "#,
        id,
        holder,
        end.status,
        end.more,
        end.error,
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Lets a job go on that was stopped, has failed, or ended with refusals; false if it is none of these.
pub async fn reopen(db: impl PgExecutor<'_>, id: Uuid) -> Result<bool> {
    let reopened = sqlx::query!(
        "update batch_jobs set status = 'running', finished_at = null, stopped_by = null, error = null, more = false,
             updated_at = clock_timestamp()
         where id = $1 and (status in ('stopped', 'failed') or status = 'completed' and failed > 0
             and act = 'cancel_performance')",
        id,
    )
    .execute(db)
    .await?;
    Ok(reopened.rows_affected() > 0)
}

/// Asks for the stop of a job that has not ended; false if it has, or was asked before.
pub async fn ask_to_stop(db: impl PgExecutor<'_>, id: Uuid, actor: &str) -> Result<bool> {
    let asked = sqlx::query!(
        "update batch_jobs set stopped_by = $2, updated_at = clock_timestamp()
         where id = $1 and finished_at is null and stopped_by is null",
        id,
        actor,
    )
    .execute(db)
    .await?;
    Ok(asked.rows_affected() > 0)
}
