//! Sagas of workflows of one's own: start, read, signal, cancel. A client sees the sagas of the workflows that its key was made for.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tokio::time::{Instant, timeout_at};
use utoipa::ToSchema;
use uuid::Uuid;

use super::admin_state::AdminState;
use super::answer::Answer;
use super::auth::{ClientOr, Needs, Operator, Viewer};
use super::error::Code;
use super::idempotency::once;
use super::observe::TraceId;
use super::ops::saga_acts::ActReason;
use super::problem::{Fault, Problem, Result, sentence};
use super::request::{Bodied, Command, Params, PathId, PathIdName, PathName};
use super::validation::{Validate, Validation};
use crate::operations::SagaView;
use crate::orchestrator::{NewClientSaga, SagaStartError, Verdict, Waiting};
use crate::saga::{OperatorAction, Signal, Status};

/// The longest that a start waits for the saga.
const MAX_WAIT_SECONDS: u32 = 30;

/// A saga that is to be started.
#[derive(Clone, Debug, Deserialize, ToSchema)]
pub struct StartWanted {
    /// What the saga is about; without one it is about itself.
    #[serde(default)]
    subject_id: Option<Uuid>,
    /// What the first command carries, of 256 KiB at most.
    #[schema(value_type = Object)]
    input: Map<String, Value>,
    /// Up to 8 strings or integers that the saga is found by.
    #[serde(default)]
    #[schema(value_type = Object)]
    attributes: Map<String, Value>,
}

impl Bodied for StartWanted {}

impl Validate for StartWanted {
    fn check(&self, faults: &mut Validation) {
        let new = NewClientSaga {
            id: Uuid::nil(),
            workflow: String::new(),
            subject_id: None,
            input: self.input.clone(),
            attributes: self.attributes.clone(),
            trace: None,
        };
        for (pointer, reason) in new.faults() {
            faults.expect(false, pointer, reason);
        }
    }
}

/// How long a start waits.
#[derive(Clone, Copy, Debug, Default, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(default)]
pub struct WaitWanted {
    /// How many seconds the answer may wait until the saga has ended or waits for a signal.
    #[param(minimum = 0, maximum = 30)]
    wait: Option<u32>,
}

impl Validate for WaitWanted {
    fn check(&self, faults: &mut Validation) {
        let good = self.wait.is_none_or(|wait| wait <= MAX_WAIT_SECONDS);
        faults.expect(good, "/wait", format!("must be between 0 and {MAX_WAIT_SECONDS}"));
    }
}

/// What a signal brings.
#[derive(Clone, Debug, Default, Deserialize, ToSchema)]
pub struct SignalWanted {
    /// Joins what later commands carry, of 256 KiB at most.
    #[serde(default)]
    #[schema(value_type = Object)]
    payload: Map<String, Value>,
}

impl Bodied for SignalWanted {
    const MAY_BE_EMPTY: bool = true;
}

impl Validate for SignalWanted {
    fn check(&self, faults: &mut Validation) {
        faults.expect_storable(&self.payload, "/payload");
    }
}

/// A saga as its client sees it.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = ClientSaga)]
pub struct ClientSagaView {
    #[serde(flatten)]
    saga: SagaView,
    /// The input, the outputs of the steps so far, and the payloads of signals, in one object.
    context: Value,
}

/// Starts a saga of the version that new sagas of the workflow begin with.
#[utoipa::path(post, path = "/v1/workflows/{workflow}/sagas", tag = "workflows", request_body = StartWanted,
    params(("workflow" = String, Path), WaitWanted), security(("key" = [])),
    responses((status = 201, description = "It has ended, or waits for a signal", body = ClientSagaView),
        (status = 202, description = "It is under way", body = ClientSagaView, headers(("Location" = String)))),
    extensions(("x-problems" = json!(["forbidden", "not_found", "workflow_retired", "request_in_progress",
        "idempotency_key_reused"]))))]
pub async fn start(
    State(app): State<Arc<AdminState>>,
    TraceId(trace): TraceId,
    caller: ClientOr<Operator>,
    PathName(workflow): PathName,
    Params(WaitWanted { wait }): Params<WaitWanted>,
    command: Command<StartWanted>,
) -> Result<Response> {
    once(&app.repeats, caller.caller(), command, async |wanted, effect| {
        if !caller.may_use(&workflow) {
            return Err(Problem::not_found("workflow"));
        }
        let StartWanted { subject_id, input, attributes } = wanted;
        let waiting = app.engine.waiting(effect.id);
        let new = NewClientSaga { id: effect.id, workflow, subject_id, input, attributes, trace };
        let is_new = app.engine.start_saga(new).await?;
        let wait = Duration::from_secs(wait.unwrap_or(0).into());
        let view = settled(&app, &waiting, effect.id, wait, is_new).await?;
        Ok(match view.saga.status {
            Status::Running | Status::Compensating | Status::Stuck => {
                Answer::accepted(&location(effect.id), &view)
            }
            _ => Answer::created(&view),
        })
    })
    .await
}

/// A saga of a workflow that the key is for.
#[utoipa::path(get, path = "/v1/sagas/{saga}", tag = "workflows", params(("saga" = Uuid, Path)), security(("key" = [])),
    responses((status = 200, body = ClientSagaView)), extensions(("x-problems" = json!(["forbidden", "not_found"]))))]
pub async fn show(
    State(app): State<Arc<AdminState>>,
    caller: ClientOr<Viewer>,
    PathId(id): PathId,
) -> Result<Answer> {
    Ok(Answer::ok(&find(&app, &caller, id).await?))
}

/// Gives a waiting saga a signal. It goes on at once; what becomes of it is to be read.
#[utoipa::path(post, path = "/v1/sagas/{saga}/signals/{signal}", tag = "workflows", request_body = SignalWanted,
    params(("saga" = Uuid, Path), ("signal" = String, Path)), security(("key" = [])),
    responses((status = 202, body = ClientSagaView, headers(("Location" = String)))),
    extensions(("x-problems" = json!(["forbidden", "not_found", "not_waiting", "request_in_progress",
        "idempotency_key_reused"]))))]
pub async fn signal(
    State(app): State<Arc<AdminState>>,
    caller: ClientOr<Operator>,
    PathIdName(id, name): PathIdName,
    command: Command<SignalWanted>,
) -> Result<Response> {
    once(&app.repeats, caller.caller(), command, async |SignalWanted { payload }, effect| {
        let before = find(&app, &caller, id).await?;
        let given = app.engine.signal_with(id, Signal { name, payload }).await;
        match given.map_err(|error| Problem::new(Code::Unavailable, sentence(&error)))? {
            Verdict::Moved => {}
            Verdict::Stale => {
                let detail = "The saga does not wait for this signal.";
                let status = before.saga.status.name();
                return Err(Problem::new(Code::NotWaiting, detail).with("saga_status", status));
            }
            Verdict::Illegal(why) => return Err(Problem::invalid(vec![Fault::new("/payload", &why)])),
            Verdict::Undefined(why) => return Err(Problem::new(Code::Unavailable, sentence(&why))),
        }
        let answer = Answer::accepted(&location(id), &find(&app, &caller, id).await?);
        // A repeat under the same key gets this answer: the saga waits for the signal no more.
        effect.save(&app.pool, &answer).await?;
        Ok(answer)
    })
    .await
}

/// Turns a saga back: what it did is undone.
#[utoipa::path(post, path = "/v1/sagas/{saga}/cancel", tag = "workflows", request_body = ActReason,
    params(("saga" = Uuid, Path)), security(("key" = [])), responses((status = 200, body = ClientSagaView)),
    extensions(("x-problems" = json!(["forbidden", "not_found", "illegal_act", "request_in_progress",
        "idempotency_key_reused"]))))]
pub async fn cancel(
    State(app): State<Arc<AdminState>>,
    caller: ClientOr<Operator>,
    PathId(id): PathId,
    command: Command<ActReason>,
) -> Result<Response> {
    once(&app.repeats, caller.caller(), command, async |why, _| {
        find(&app, &caller, id).await?;
        app.engine.act(id, OperatorAction::Cancel, &caller.key.name, &why.reason).await?;
        Ok(Answer::ok(&find(&app, &caller, id).await?))
    })
    .await
}

/// A saga that the caller may see.
async fn find<R: Needs>(app: &AdminState, caller: &ClientOr<R>, id: Uuid) -> Result<ClientSagaView> {
    let view = read(app, id).await?;
    if caller.may_use(&view.saga.workflow) { Ok(view) } else { Err(Problem::not_found("saga")) }
}

async fn read(app: &AdminState, id: Uuid) -> Result<ClientSagaView> {
    let found = app.engine.find_saga(id).await?;
    let (saga, attributes) = found.ok_or_else(|| Problem::not_found("saga"))?;
    let context = Value::clone(&saga.context);
    Ok(ClientSagaView { context, saga: SagaView::from(saga).with_attributes(attributes) })
}

/// The saga once it has ended, waits or is stuck, or as it stands when the time is over or the service stops. A new saga is first
/// read when it has changed: `waiting` was there before it.
async fn settled(
    app: &AdminState,
    waiting: &Waiting,
    id: Uuid,
    wait: Duration,
    is_new: bool,
) -> Result<ClientSagaView> {
    let until = Instant::now() + wait;
    if !is_new || wait.is_zero() {
        let view = read(app, id).await?;
        if view.saga.status.is_settled() || wait.is_zero() {
            return Ok(view);
        }
    }
    while app
        .stop
        .run_until_cancelled(timeout_at(until, waiting.changed()))
        .await
        .is_some_and(|woken| woken.is_ok())
    {
        let view = read(app, id).await?;
        if view.saga.status.is_settled() {
            return Ok(view);
        }
    }
    read(app, id).await
}

fn location(id: Uuid) -> String {
    format!("/v1/sagas/{id}")
}

impl From<SagaStartError> for Problem {
    fn from(error: SagaStartError) -> Self {
        let detail = sentence(&error);
        match error {
            SagaStartError::UnknownWorkflow(_) => Self::not_found("workflow"),
            SagaStartError::Reserved(_) => Self::new(Code::Forbidden, detail),
            SagaStartError::Retired(_) => Self::new(Code::WorkflowRetired, detail),
            SagaStartError::Invalid(faults) => {
                let faults = faults.iter().take(20);
                Self::invalid(faults.map(|(pointer, reason)| Fault::new(pointer, reason)).collect())
            }
            SagaStartError::Undefined(..) => Self::new(Code::Unavailable, detail),
            SagaStartError::Database(error) => error.into(),
        }
    }
}
