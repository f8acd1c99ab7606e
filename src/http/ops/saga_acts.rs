//! What operators can do to one saga. Every act is written down with its reason.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use serde::Deserialize;
use utoipa::ToSchema;

use super::super::answer::Answer;
use super::super::auth::{Operator, Staff};
use super::super::idempotency::once;
use super::super::problem::Result;
use super::super::request::{Bodied, Command, PathId};
use super::super::shape::{Faults, Shape};
use super::super::state::AppState;
use crate::operations::SagaView;
use crate::saga::Act;

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
        let acted = app.engine.act(id, act, &staff.key.name, &why.reason).await?;
        Ok(Answer::ok(&SagaView::from(acted.saga)))
    })
    .await
}
