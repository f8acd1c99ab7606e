//! What operators look at first: the state of the engine, its workers and workflows, and what their own key may do.

use std::sync::Arc;

use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::super::admin_state::AdminState;
use super::super::answer::Answer;
use super::super::auth::{Staff, Viewer};
use super::super::error::Code;
use super::super::problem::{Problem, Result};
use super::super::request::{Params, PathName};
use super::super::validation::{Validate, Validation};
use crate::operations::definitions::{self, WorkflowGraph, WorkflowSummary};
use crate::operations::fleet::{self, Fleet};
use crate::operations::overview::Overview;
use crate::store::api_keys::Role;

/// Sagas by where they stand, stuck ones, parked messages, and what was started in the last ten minutes. At most a second old.
#[utoipa::path(get, path = "/v1/ops/overview", tag = "operations", security(("key" = [])),
    responses((status = 200, body = Overview)), extensions(("x-problems" = json!(["forbidden"]))))]
pub async fn show(State(app): State<Arc<AdminState>>, _staff: Staff<Viewer>) -> Result<Answer> {
    Ok(Answer::ok(&app.overviews.get(&app.pool).await?))
}

/// The key of a request.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct OwnKey {
    name: String,
    role: Role,
}

/// The name and the role of the key that this request is made with.
#[utoipa::path(get, path = "/v1/ops/key", tag = "operations", security(("key" = [])),
    responses((status = 200, body = OwnKey)), extensions(("x-problems" = json!(["forbidden"]))))]
pub async fn key(staff: Staff<Viewer>) -> Result<Answer> {
    Ok(Answer::ok(&OwnKey { name: staff.key.name, role: staff.key.role }))
}

/// Workers that are present, and the commands that wait for them. NATS is asked, which takes up to a second.
#[utoipa::path(get, path = "/v1/ops/workers", tag = "operations", security(("key" = [])),
    responses((status = 200, body = Fleet)), extensions(("x-problems" = json!(["forbidden", "unavailable"]))))]
pub async fn workers(State(app): State<Arc<AdminState>>, _staff: Staff<Viewer>) -> Result<Answer> {
    let fleet = fleet::fleet(&app.engine).await.map_err(|error| {
        tracing::warn!(%error, "NATS did not say which workers are present");
        Problem::new(Code::Unavailable, "NATS does not answer.")
    })?;
    Ok(Answer::ok(&fleet))
}

/// Every workflow that this process knows.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Workflows {
    items: Vec<WorkflowSummary>,
}

/// The workflows and their versions, by name.
#[utoipa::path(get, path = "/v1/ops/workflows", tag = "operations", security(("key" = [])),
    responses((status = 200, body = Workflows)), extensions(("x-problems" = json!(["forbidden"]))))]
pub async fn workflows(State(app): State<Arc<AdminState>>, _staff: Staff<Viewer>) -> Result<Answer> {
    Ok(Answer::ok(&Workflows { items: definitions::list(&app.engine.registry) }))
}

/// Which version of a workflow is asked for.
#[derive(Clone, Debug, Default, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub struct WorkflowVersion {
    /// The newest if it is left out.
    #[param(minimum = 1)]
    version: Option<i32>,
}

impl Validate for WorkflowVersion {
    fn check(&self, faults: &mut Validation) {
        faults.expect(self.version.is_none_or(|version| version >= 1), "/version", "must be 1 or more");
    }
}

/// The steps of a workflow, in one version.
#[utoipa::path(get, path = "/v1/ops/workflows/{workflow}", tag = "operations",
    params(("workflow" = String, Path), WorkflowVersion), security(("key" = [])),
    responses((status = 200, body = WorkflowGraph)),
    extensions(("x-problems" = json!(["forbidden", "not_found"]))))]
pub async fn workflow(
    State(app): State<Arc<AdminState>>,
    _staff: Staff<Viewer>,
    PathName(name): PathName,
    Params(wanted): Params<WorkflowVersion>,
) -> Result<Answer> {
    let graph = definitions::graph(&app.engine.registry, &name, wanted.version);
    Ok(Answer::ok(&graph.ok_or_else(|| Problem::not_found("workflow of this name and version"))?))
}
