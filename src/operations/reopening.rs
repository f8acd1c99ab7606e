//! Letting a job go on that has ended.

use sqlx::PgPool;
use uuid::Uuid;

use super::batch_jobs::{BatchJob, JobError};
use crate::store::batch_jobs as rows;
use crate::store::operations::{self, ActRow};

/// Lets a job that was stopped or has failed go on from where it was, and one that ended with refusals try those again. One that
/// runs stays as it is. The next look for jobs without a process takes it up, or the caller does.
pub async fn reopen(pool: &PgPool, id: Uuid, actor: &str, reason: &str) -> Result<BatchJob, JobError> {
    let mut tx = pool.begin().await?;
    let before = rows::get(&mut *tx, id).await?.ok_or(JobError::Unknown)?;
    if rows::reopen(&mut *tx, id).await? {
        let target = format!("batch {id}");
        let act = ActRow {
            actor,
            act: "batch.resume",
            saga_id: None,
            target: Some(&target),
            reason,
            from: &before.status,
            to: "running",
            detail: None,
        };
        operations::record_act(&mut *tx, &act).await?;
    }
    let job = rows::get(&mut *tx, id).await?.ok_or(JobError::Unknown)?;
    tx.commit().await?;
    Ok(job.into())
}
