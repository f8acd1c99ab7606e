//! What operators can do to one saga. Every act is written down with its reason.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use serde::Deserialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::super::admin_state::AdminState;
use super::super::answer::Answer;
use super::super::auth::{Operator, Staff};
use super::super::error::Code;
use super::super::idempotency::once;
use super::super::problem::{Problem, Result, sentence};
use super::super::request::{Bodied, Command, PathId};
use super::super::validation::{Validate, Validation};
use crate::operations::Repaired;
use crate::operations::refund::{self, RefundError, Refunded};
use crate::operations::repair::reason_problem;
use crate::saga::OperatorAction;

/// Why an operator acts.
#[derive(Clone, Debug, Deserialize, ToSchema)]
pub struct ActReason {
    /// Written down with the act.
    #[schema(format = "line", min_length = 1, max_length = 1_000)]
    pub reason: String,
}

impl Bodied for ActReason {}

impl Validate for ActReason {
    fn check(&self, faults: &mut Validation) {
        check_reason(&self.reason, faults);
    }
}

/// Notes a reason that says nothing.
pub fn check_reason(reason: &str, faults: &mut Validation) {
    if let Some(problem) = reason_problem(reason) {
        faults.expect(false, "/reason", problem);
    }
}

/// What a step has given, by an operator's hand.
#[derive(Clone, Debug, Deserialize, ToSchema)]
pub struct ByHand {
    /// Written down with the act.
    #[schema(format = "line", min_length = 1, max_length = 1_000)]
    reason: String,
    /// JoinLimits what later commands carry, as the step's own output would.
    #[serde(default)]
    #[schema(value_type = Object)]
    output: Map<String, Value>,
    /// The step; only needed in a group of parallel steps, of which the saga is at several at once.
    #[serde(default)]
    #[schema(max_length = 63)]
    step: Option<String>,
}

impl Bodied for ByHand {}

impl Validate for ByHand {
    fn check(&self, faults: &mut Validation) {
        check_reason(&self.reason, faults);
        faults.expect_storable(&self.output, "/output");
    }
}

/// Takes the step that a saga is at as done, with this output. If it did run, nothing is changed, and the answer has its
/// outcome.
#[utoipa::path(post, path = "/v1/ops/sagas/{saga}/complete", tag = "operations", request_body = ByHand,
    params(("saga" = Uuid, Path)), security(("key" = [])), responses((status = 200, body = Repaired)),
    extensions(("x-problems" = json!(["forbidden", "not_found", "illegal_act", "request_in_progress",
        "idempotency_key_reused"]))))]
pub async fn complete(
    State(app): State<Arc<AdminState>>,
    staff: Staff<Operator>,
    PathId(id): PathId,
    command: Command<ByHand>,
) -> Result<Response> {
    once(&app.repeats, staff.caller(), command, async |ByHand { reason, output, step }, _| {
        let act = OperatorAction::Complete { step, output };
        let acted = app.engine.act(id, act, &staff.key.name, &reason).await?;
        Ok(Answer::ok(&Repaired::from(acted)))
    })
    .await
}

/// Lets a saga try its step again, now; a stuck one with a new visit.
#[utoipa::path(post, path = "/v1/ops/sagas/{saga}/retry", tag = "operations", request_body = ActReason,
    params(("saga" = Uuid, Path)), security(("key" = [])), responses((status = 200, body = Repaired)),
    extensions(("x-problems" = json!(["forbidden", "not_found", "illegal_act", "request_in_progress",
        "idempotency_key_reused"]))))]
pub async fn retry(
    state: State<Arc<AdminState>>,
    staff: Staff<Operator>,
    saga: PathId,
    command: Command<ActReason>,
) -> Result<Response> {
    act(state, staff, saga, command, OperatorAction::Retry).await
}

/// Leaves out the undo that a saga is at; what it would have taken back stays.
#[utoipa::path(post, path = "/v1/ops/sagas/{saga}/skip-undo", tag = "operations", request_body = ActReason,
    params(("saga" = Uuid, Path)), security(("key" = [])), responses((status = 200, body = Repaired)),
    extensions(("x-problems" = json!(["forbidden", "not_found", "illegal_act", "request_in_progress",
        "idempotency_key_reused"]))))]
pub async fn skip_undo(
    state: State<Arc<AdminState>>,
    staff: Staff<Operator>,
    saga: PathId,
    command: Command<ActReason>,
) -> Result<Response> {
    act(state, staff, saga, command, OperatorAction::SkipUndo).await
}

/// Turns a saga back: what it did is undone.
#[utoipa::path(post, path = "/v1/ops/sagas/{saga}/cancel", tag = "operations", request_body = ActReason,
    params(("saga" = Uuid, Path)), security(("key" = [])), responses((status = 200, body = Repaired)),
    extensions(("x-problems" = json!(["forbidden", "not_found", "illegal_act", "request_in_progress",
        "idempotency_key_reused"]))))]
pub async fn cancel(
    state: State<Arc<AdminState>>,
    staff: Staff<Operator>,
    saga: PathId,
    command: Command<ActReason>,
) -> Result<Response> {
    act(state, staff, saga, command, OperatorAction::Cancel).await
}

/// Gives a saga up as it is. The answer names the steps whose effects may be left behind.
#[utoipa::path(post, path = "/v1/ops/sagas/{saga}/abandon", tag = "operations", request_body = ActReason,
    params(("saga" = Uuid, Path)), security(("key" = [])), responses((status = 200, body = Repaired)),
    extensions(("x-problems" = json!(["forbidden", "not_found", "illegal_act", "request_in_progress",
        "idempotency_key_reused"]))))]
pub async fn abandon(
    state: State<Arc<AdminState>>,
    staff: Staff<Operator>,
    saga: PathId,
    command: Command<ActReason>,
) -> Result<Response> {
    act(state, staff, saga, command, OperatorAction::Abandon).await
}

/// Gives back the points of a reservation whose saga has ended without a ticket for them. A second request changes nothing and
/// answers with the same ledger entry.
#[utoipa::path(post, path = "/v1/ops/sagas/{saga}/refund", tag = "operations", request_body = ActReason,
    params(("saga" = Uuid, Path)), security(("key" = [])), responses((status = 200, body = Refunded)),
    extensions(("x-problems" = json!(["forbidden", "not_found", "illegal_act", "request_in_progress",
        "idempotency_key_reused"]))))]
pub async fn refund(
    State(app): State<Arc<AdminState>>,
    staff: Staff<Operator>,
    PathId(id): PathId,
    command: Command<ActReason>,
) -> Result<Response> {
    once(&app.repeats, staff.caller(), command, async |why, _| {
        let refunded = refund::refund(&app.engine.pool, id, &staff.key.name, &why.reason).await?;
        Ok(Answer::ok(&refunded))
    })
    .await
}

/// Holds back the next forward command of a saga. No clock stops, a hold's least of all.
#[utoipa::path(post, path = "/v1/ops/sagas/{saga}/pause", tag = "operations", request_body = ActReason,
    params(("saga" = Uuid, Path)), security(("key" = [])), responses((status = 200, body = Repaired)),
    extensions(("x-problems" = json!(["forbidden", "not_found", "illegal_act", "request_in_progress",
        "idempotency_key_reused"]))))]
pub async fn pause(
    state: State<Arc<AdminState>>,
    staff: Staff<Operator>,
    saga: PathId,
    command: Command<ActReason>,
) -> Result<Response> {
    act(state, staff, saga, command, OperatorAction::Pause).await
}

/// Lets a paused saga go on.
#[utoipa::path(post, path = "/v1/ops/sagas/{saga}/resume", tag = "operations", request_body = ActReason,
    params(("saga" = Uuid, Path)), security(("key" = [])), responses((status = 200, body = Repaired)),
    extensions(("x-problems" = json!(["forbidden", "not_found", "illegal_act", "request_in_progress",
        "idempotency_key_reused"]))))]
pub async fn resume(
    state: State<Arc<AdminState>>,
    staff: Staff<Operator>,
    saga: PathId,
    command: Command<ActReason>,
) -> Result<Response> {
    act(state, staff, saga, command, OperatorAction::Resume).await
}

async fn act(
    State(app): State<Arc<AdminState>>,
    staff: Staff<Operator>,
    PathId(id): PathId,
    command: Command<ActReason>,
    act: OperatorAction,
) -> Result<Response> {
    once(&app.repeats, staff.caller(), command, async |why, _| {
        let acted = app.engine.act(id, act, &staff.key.name, &why.reason).await?;
        Ok(Answer::ok(&Repaired::from(acted)))
    })
    .await
}

impl From<RefundError> for Problem {
    fn from(error: RefundError) -> Self {
        let detail = sentence(&error);
        match error {
            RefundError::Unknown => Self::not_found("saga"),
            RefundError::NotEnded(status) => {
                Self::new(Code::IllegalAct, detail).with("saga_status", status.name())
            }
            RefundError::HasTickets | RefundError::NothingTaken => Self::new(Code::IllegalAct, detail),
            RefundError::Database(error) => error.into(),
        }
    }
}
