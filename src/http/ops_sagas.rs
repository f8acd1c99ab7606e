//! Sagas as operators see them, and what they can do to one. Every act is written down with its reason.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;
use uuid::Uuid;

use super::answer::Answer;
use super::auth::{Operator, Staff, Viewer};
use super::idempotency::once;
use super::page::{ListQuery, Page, check_limit};
use super::problem::{Problem, Result};
use super::request::{Bodied, Command, Params, PathId};
use super::shape::{Faults, Shape};
use super::state::AppState;
use crate::saga::{Act, Direction, Saga, Status};
use crate::store;
use crate::store::sagas::{Filter, HistoryRow};

/// Where a saga stands.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = Saga)]
pub struct SagaView {
    id: Uuid,
    workflow: String,
    version: i32,
    status: Status,
    /// Stopped by an operator; nothing rings until it goes on.
    paused: bool,
    step: String,
    direction: Direction,
    /// Rises whenever a step is entered anew.
    visit: i32,
    /// Failed answers in this visit.
    attempt: i32,
    /// When it is looked at next; null if it has ended, is stuck or paused.
    due_at: Option<DateTime<Utc>>,
    reason: Option<String>,
    input: Value,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
    finished_at: Option<DateTime<Utc>>,
}

impl From<Saga> for SagaView {
    fn from(saga: Saga) -> Self {
        Self {
            id: saga.id,
            workflow: saga.workflow,
            version: saga.version,
            status: saga.status,
            paused: saga.paused,
            step: saga.step,
            direction: saga.direction,
            visit: saga.visit,
            attempt: saga.attempt,
            due_at: saga.due_at,
            reason: saga.reason,
            input: saga.input,
            created_at: saga.created_at,
            updated_at: saga.updated_at,
            finished_at: saga.finished_at,
        }
    }
}

/// A saga with all that happened to it, oldest first.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct SagaWithHistory {
    #[serde(flatten)]
    saga: SagaView,
    history: Vec<Happening>,
}

/// One transition.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Happening {
    seq: i64,
    at: DateTime<Utc>,
    event: String,
    /// Where the saga was when it happened.
    step: String,
    direction: Direction,
    attempt: i32,
    detail: Option<Value>,
}

impl From<HistoryRow> for Happening {
    fn from(row: HistoryRow) -> Self {
        Self {
            seq: row.seq,
            at: row.at,
            event: row.event,
            step: row.step,
            direction: row.direction,
            attempt: row.attempt,
            detail: row.detail,
        }
    }
}

/// Which sagas are asked for; all that is given must hold.
#[derive(Clone, Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub struct SagasQuery {
    workflow: Option<String>,
    #[param(inline)]
    status: Option<Status>,
    step: Option<String>,
    reservation_id: Option<Uuid>,
    user_id: Option<Uuid>,
    #[param(minimum = 1, maximum = 100)]
    limit: Option<i64>,
    cursor: Option<String>,
}

impl Shape for SagasQuery {
    fn check(&self, faults: &mut Faults) {
        check_limit(self.limit, faults);
        for (pointer, text) in [("/workflow", &self.workflow), ("/step", &self.step)] {
            faults.expect_text(text.as_deref().unwrap_or_default(), 0..=200, pointer);
        }
    }
}

/// Sagas, newest first.
#[utoipa::path(get, path = "/v1/ops/sagas", tag = "operations", params(SagasQuery), security(("key" = [])),
    responses((status = 200, body = Page<SagaView>)), extensions(("x-problems" = json!(["forbidden"]))))]
pub async fn list(
    State(app): State<Arc<AppState>>,
    _staff: Staff<Viewer>,
    Params(query): Params<SagasQuery>,
) -> Result<Answer> {
    let page = ListQuery { limit: query.limit, cursor: query.cursor };
    let filter = Filter {
        workflow: query.workflow,
        status: query.status.map(|status| status.name().to_owned()),
        step: query.step,
        subject_id: query.reservation_id,
        owner_id: query.user_id,
        before: page.after()?,
        limit: page.limit() + 1,
    };
    let rows = store::sagas::list(&app.pool, &filter).await?;
    let rows = rows.into_iter().map(SagaView::from).collect();
    Ok(Answer::ok(&Page::cut(rows, page.limit(), |saga: &SagaView| saga.id)))
}

/// One saga with its history.
#[utoipa::path(get, path = "/v1/ops/sagas/{saga}", tag = "operations", params(("saga" = Uuid, Path)),
    security(("key" = [])), responses((status = 200, body = SagaWithHistory)),
    extensions(("x-problems" = json!(["forbidden", "not_found"]))))]
pub async fn show(
    State(app): State<Arc<AppState>>,
    _staff: Staff<Viewer>,
    PathId(id): PathId,
) -> Result<Answer> {
    let saga = store::sagas::get(&app.pool, id).await?.ok_or_else(|| Problem::not_found("saga"))?;
    let history = store::sagas::history(&app.pool, &[id]).await?;
    let history = history.into_iter().map(Happening::from).collect();
    Ok(Answer::ok(&SagaWithHistory { saga: saga.into(), history }))
}

/// Why an operator acts.
#[derive(Clone, Debug, Deserialize, ToSchema)]
pub struct Why {
    /// Written down with the act.
    #[schema(min_length = 1, max_length = 1_000)]
    reason: String,
}

impl Bodied for Why {}

impl Shape for Why {
    fn check(&self, faults: &mut Faults) {
        faults.expect_text(&self.reason, 1..=1_000, "/reason");
    }
}

/// Lets a saga try its step once more, now.
#[utoipa::path(post, path = "/v1/ops/sagas/{saga}/retry", tag = "operations", request_body = Why,
    params(("saga" = Uuid, Path)), security(("key" = [])), responses((status = 200, body = SagaView)),
    extensions(("x-problems" = json!(["forbidden", "not_found", "illegal_act", "request_in_progress",
        "idempotency_key_reused"]))))]
pub async fn retry(
    state: State<Arc<AppState>>,
    staff: Staff<Operator>,
    saga: PathId,
    command: Command<Why>,
) -> Result<Response> {
    act(state, staff, saga, command, Act::Retry).await
}

/// Turns a saga back: what it did is undone.
#[utoipa::path(post, path = "/v1/ops/sagas/{saga}/cancel", tag = "operations", request_body = Why,
    params(("saga" = Uuid, Path)), security(("key" = [])), responses((status = 200, body = SagaView)),
    extensions(("x-problems" = json!(["forbidden", "not_found", "illegal_act", "request_in_progress",
        "idempotency_key_reused"]))))]
pub async fn cancel(
    state: State<Arc<AppState>>,
    staff: Staff<Operator>,
    saga: PathId,
    command: Command<Why>,
) -> Result<Response> {
    act(state, staff, saga, command, Act::Cancel).await
}

async fn act(
    State(app): State<Arc<AppState>>,
    staff: Staff<Operator>,
    PathId(id): PathId,
    command: Command<Why>,
    act: Act,
) -> Result<Response> {
    once(&app.pool, staff.caller(), command, async |why, _| {
        let saga = app.engine.act(id, act, &staff.key.name, &why.reason).await?;
        Ok(Answer::ok(&SagaView::from(saga)))
    })
    .await
}
