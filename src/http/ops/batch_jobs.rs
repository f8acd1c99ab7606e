//! Batches as jobs: ordered by one request, looked at and stopped by others.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use serde::Deserialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::super::admin_state::AdminState;
use super::super::answer::Answer;
use super::super::auth::{Operator, Staff, Viewer};
use super::super::error::Code;
use super::super::idempotency::once;
use super::super::page::{ListQuery, Page};
use super::super::problem::{Problem, Result, sentence};
use super::super::request::{Bodied, Command, Params, PathId};
use super::super::validation::{Validate, Validation};
use super::batch::check_order;
use super::saga_acts::ActReason;
use crate::operations::SagaFilter;
use crate::operations::batch::{self, Batch, RATE_DEFAULT};
use crate::operations::batch_jobs::{self, BatchJob, JOB_LIMIT_MAX, JobError};
use crate::operations::reopening;
use crate::saga::OperatorAction;

/// Sagas of a job that names no limit.
const LIMIT_DEFAULT: u32 = 1_000;

/// What to do, to which sagas, and how fast.
#[derive(Clone, Debug, Deserialize, ToSchema)]
pub struct BatchJobOrder {
    /// `retry`, `skip_undo`, `cancel`, `abandon`, `pause` or `resume`.
    act: String,
    filter: SagaFilter,
    /// Written down with every act.
    #[schema(format = "line", min_length = 1, max_length = 1_000)]
    reason: String,
    /// Only look: how many there are, and which of them would be refused.
    #[serde(default)]
    dry_run: bool,
    /// Acts per second, 1 to 1000; 50 if it is left out.
    #[serde(default)]
    #[schema(minimum = 1, maximum = 1_000)]
    rate_per_second: Option<u32>,
    /// At most so many sagas, the newest first; 1000 if it is left out.
    #[serde(default)]
    #[schema(minimum = 1, maximum = 100_000)]
    limit: Option<u32>,
}

impl BatchJobOrder {
    fn rate(&self) -> u32 {
        self.rate_per_second.unwrap_or(RATE_DEFAULT)
    }

    fn limit(&self) -> u32 {
        self.limit.unwrap_or(LIMIT_DEFAULT)
    }
}

impl Bodied for BatchJobOrder {}

impl Validate for BatchJobOrder {
    fn check(&self, faults: &mut Validation) {
        check_order(&self.act, &self.filter, &self.reason, self.rate(), faults);
        let limit = (1..=JOB_LIMIT_MAX).contains(&self.limit());
        faults.expect(limit, "/limit", format!("must be between 1 and {JOB_LIMIT_MAX}"));
    }
}

/// Starts a job that does one act to every saga that a filter finds, paced and bounded; each act is written down by itself.
/// At most five jobs are under way. If the process that runs a job ends, another one goes on with it within a minute.
#[utoipa::path(post, path = "/v1/ops/batches", tag = "operations", request_body = BatchJobOrder,
    security(("key" = [])), responses((status = 202, body = BatchJob, headers(("Location" = String)))),
    extensions(("x-problems" = json!(["forbidden", "rate_limited", "request_in_progress", "idempotency_key_reused"]))))]
pub async fn start(
    State(app): State<Arc<AdminState>>,
    staff: Staff<Operator>,
    command: Command<BatchJobOrder>,
) -> Result<Response> {
    once(&app.repeats, staff.caller(), command, async |order, effect| {
        let wanted = Batch {
            act: batch::act_named(&order.act).unwrap_or(OperatorAction::Retry),
            actor: staff.key.name.clone(),
            dry_run: order.dry_run,
            per_second: order.rate(),
            limit: order.limit(),
            filter: order.filter,
            reason: order.reason,
        };
        let job = app.batches.start(effect.id, &wanted).await?;
        Ok(Answer::accepted(&format!("/v1/ops/batches/{}", job.id), &job))
    })
    .await
}

/// Batches, newest first.
#[utoipa::path(get, path = "/v1/ops/batches", tag = "operations", params(ListQuery), security(("key" = [])),
    responses((status = 200, body = Page<BatchJob>)), extensions(("x-problems" = json!(["forbidden"]))))]
pub async fn list(
    State(app): State<Arc<AdminState>>,
    _staff: Staff<Viewer>,
    Params(page): Params<ListQuery>,
) -> Result<Answer> {
    let before: Option<Uuid> = page.after()?;
    let jobs = batch_jobs::list(&app.pool, before, page.limit() + 1).await?;
    Ok(Answer::ok(&Page::cut(jobs, page.limit(), |job| job.id)))
}

/// One batch, and how far it is.
#[utoipa::path(get, path = "/v1/ops/batches/{batch}", tag = "operations", params(("batch" = Uuid, Path)),
    security(("key" = [])), responses((status = 200, body = BatchJob)),
    extensions(("x-problems" = json!(["forbidden", "not_found"]))))]
pub async fn show(
    State(app): State<Arc<AdminState>>,
    _staff: Staff<Viewer>,
    PathId(id): PathId,
) -> Result<Answer> {
    Ok(Answer::ok(&batch_jobs::show(&app.pool, id).await?))
}

/// Stops a batch within a second. What was done stays done. One that has ended stays as it is.
#[utoipa::path(post, path = "/v1/ops/batches/{batch}/stop", tag = "operations", request_body = ActReason,
    params(("batch" = Uuid, Path)), security(("key" = [])), responses((status = 200, body = BatchJob)),
    extensions(("x-problems" = json!(["forbidden", "not_found", "request_in_progress", "idempotency_key_reused"]))))]
pub async fn stop(
    State(app): State<Arc<AdminState>>,
    staff: Staff<Operator>,
    PathId(id): PathId,
    command: Command<ActReason>,
) -> Result<Response> {
    once(&app.repeats, staff.caller(), command, async |why, _| {
        let job = batch_jobs::stop(&app.pool, id, &staff.key.name, &why.reason).await?;
        Ok(Answer::ok(&job))
    })
    .await
}

/// Lets a batch go on that was stopped or has failed, from where it was; the refunds of a cancelled date also after they ended with
/// some that an operator has mended since. One that runs stays as it is.
#[utoipa::path(post, path = "/v1/ops/batches/{batch}/resume", tag = "operations", request_body = ActReason,
    params(("batch" = Uuid, Path)), security(("key" = [])), responses((status = 200, body = BatchJob)),
    extensions(("x-problems" = json!(["forbidden", "not_found", "request_in_progress", "idempotency_key_reused"]))))]
pub async fn resume(
    State(app): State<Arc<AdminState>>,
    staff: Staff<Operator>,
    PathId(id): PathId,
    command: Command<ActReason>,
) -> Result<Response> {
    once(&app.repeats, staff.caller(), command, async |why, _| {
        let job = reopening::reopen(&app.pool, id, &staff.key.name, &why.reason).await?;
        app.batches.spawn(id);
        Ok(Answer::ok(&job))
    })
    .await
}

impl From<JobError> for Problem {
    fn from(error: JobError) -> Self {
        match error {
            JobError::TooMany => Self::new(Code::RateLimited, sentence(&error)),
            JobError::Unknown => Self::not_found("batch"),
            JobError::Database(error) => error.into(),
        }
    }
}
