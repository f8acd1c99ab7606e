//! What is held back, and holding back more than one saga: a workflow, or a step type everywhere.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::super::admin_state::AdminState;
use super::super::answer::Answer;
use super::super::auth::{Operator, Staff, Viewer};
use super::super::error::Code;
use super::super::idempotency::once;
use super::super::problem::{Problem, Result};
use super::super::request::{Bodied, Command, PathName};
use super::super::validation::{Validate, Validation};
use super::saga_acts::{ActReason, check_reason};
use crate::operations::pauses::{self, PauseChange, PauseView, Target};
use crate::orchestrator::ActError;

/// Everything that is paused.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Paused {
    /// Step types and workflows, oldest first, then at most a thousand sagas, newest first.
    items: Vec<PauseView>,
}

/// Why a step type is paused, and whether more may pause with it.
#[derive(Clone, Debug, Deserialize, ToSchema)]
pub struct StepPause {
    /// Written down with the act.
    #[schema(format = "line", min_length = 1, max_length = 1_000)]
    reason: String,
    /// Pause a consumer also if it takes other commands too.
    #[serde(default)]
    whole_consumer: bool,
}

impl Bodied for StepPause {}

impl Validate for StepPause {
    fn check(&self, faults: &mut Validation) {
        check_reason(&self.reason, faults);
    }
}

/// What is paused, by whom, since when and why.
#[utoipa::path(get, path = "/v1/ops/pauses", tag = "operations", security(("key" = [])),
    responses((status = 200, body = Paused)), extensions(("x-problems" = json!(["forbidden"]))))]
pub async fn list(State(app): State<Arc<AdminState>>, _staff: Staff<Viewer>) -> Result<Answer> {
    Ok(Answer::ok(&Paused { items: pauses::list(&app.pool).await? }))
}

/// Holds back the forward commands of a workflow, on every instance. Undos go on, and no clock stops.
#[utoipa::path(post, path = "/v1/ops/workflows/{workflow}/pause", tag = "operations", request_body = ActReason,
    params(("workflow" = String, Path)), security(("key" = [])), responses((status = 200, body = PauseChange)),
    extensions(("x-problems" = json!(["forbidden", "not_found", "request_in_progress", "idempotency_key_reused"]))))]
pub async fn pause_workflow(
    State(app): State<Arc<AdminState>>,
    staff: Staff<Operator>,
    PathName(name): PathName,
    command: Command<ActReason>,
) -> Result<Response> {
    change(&app, &staff, Target::Workflow(&name), true, command).await
}

/// Lets a workflow go on: what was held back is sent.
#[utoipa::path(post, path = "/v1/ops/workflows/{workflow}/resume", tag = "operations", request_body = ActReason,
    params(("workflow" = String, Path)), security(("key" = [])), responses((status = 200, body = PauseChange)),
    extensions(("x-problems" = json!(["forbidden", "not_found", "request_in_progress", "idempotency_key_reused"]))))]
pub async fn resume_workflow(
    State(app): State<Arc<AdminState>>,
    staff: Staff<Operator>,
    PathName(name): PathName,
    command: Command<ActReason>,
) -> Result<Response> {
    change(&app, &staff, Target::Workflow(&name), false, command).await
}

/// Pauses a step type everywhere, also at workers elsewhere: the consumers of its command deliver nothing.
#[utoipa::path(post, path = "/v1/ops/steps/{command}/pause", tag = "operations", request_body = StepPause,
    params(("command" = String, Path, example = "points.deduct")), security(("key" = [])),
    responses((status = 200, body = PauseChange)), extensions(("x-problems" = json!(["forbidden", "not_found",
        "illegal_act", "request_in_progress", "idempotency_key_reused"]))))]
pub async fn pause_step(
    State(app): State<Arc<AdminState>>,
    staff: Staff<Operator>,
    PathName(name): PathName,
    command: Command<StepPause>,
) -> Result<Response> {
    once(&app.repeats, staff.caller(), command, async |why, _| {
        let target = Target::Step { command: &name, whole: why.whole_consumer };
        changed(&app, &staff, target, true, &why.reason).await
    })
    .await
}

/// Lets a step type go on.
#[utoipa::path(post, path = "/v1/ops/steps/{command}/resume", tag = "operations", request_body = ActReason,
    params(("command" = String, Path)), security(("key" = [])), responses((status = 200, body = PauseChange)),
    extensions(("x-problems" = json!(["forbidden", "request_in_progress", "idempotency_key_reused"]))))]
pub async fn resume_step(
    State(app): State<Arc<AdminState>>,
    staff: Staff<Operator>,
    PathName(name): PathName,
    command: Command<ActReason>,
) -> Result<Response> {
    change(&app, &staff, Target::Step { command: &name, whole: false }, false, command).await
}

async fn change(
    app: &AdminState,
    staff: &Staff<Operator>,
    target: Target<'_>,
    paused: bool,
    command: Command<ActReason>,
) -> Result<Response> {
    once(&app.repeats, staff.caller(), command, async |why, _| {
        changed(app, staff, target, paused, &why.reason).await
    })
    .await
}

async fn changed(
    app: &AdminState,
    staff: &Staff<Operator>,
    target: Target<'_>,
    paused: bool,
    reason: &str,
) -> Result<Answer> {
    let changed = pauses::change(&app.engine, target, paused, &staff.key.name, reason).await;
    Ok(Answer::ok(&changed.map_err(named)?))
}

/// What is not there is a workflow here.
fn named(error: ActError) -> Problem {
    match error {
        ActError::Unknown => Problem::new(Code::NotFound, "There is no such workflow."),
        error => error.into(),
    }
}
