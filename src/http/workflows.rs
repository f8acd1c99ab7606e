//! Workflow definitions: deploying them, and what is deployed.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::admin_state::AdminState;
use super::answer::Answer;
use super::auth::{Admin, ClientOr, Staff, Viewer};
use super::error::Code;
use super::idempotency::once;
use super::ops::saga_acts::check_reason;
use super::page::{ListQuery, Page, Paged};
use super::problem::{Problem, Result, internal, sentence};
use super::request::{Bodied, Command, Params, PathName};
use super::validation::{Validate, Validation};
use crate::operations::deployments::{self as operation, DeployError, Order, RetireError};
use crate::operations::repair::reason_problem;
use crate::store::definitions::{self, Deployment};

/// A check beside requests uses one processor.
const CHECK_THREADS: usize = 1;

/// A definition that is to be deployed.
#[derive(Clone, Debug, Deserialize, ToSchema)]
pub struct DefinitionWanted {
    /// The definition as TOML, of 64 KiB at most.
    definition: String,
    /// Why it is deployed even if the model checker does not find it good; written down.
    #[serde(default)]
    #[schema(format = "line", min_length = 1, max_length = 1_000)]
    accept_risk: Option<String>,
}

impl Bodied for DefinitionWanted {}

impl Validate for DefinitionWanted {
    fn check(&self, faults: &mut Validation) {
        if let Some(problem) = self.accept_risk.as_deref().and_then(reason_problem) {
            faults.expect(false, "/accept_risk", problem);
        }
    }
}

/// A version that is to be retired.
#[derive(Clone, Debug, Deserialize, ToSchema)]
pub struct RetirementWanted {
    #[schema(minimum = 1)]
    version: i32,
    /// Written down with the act.
    #[schema(format = "line", min_length = 1, max_length = 1_000)]
    reason: String,
}

impl Bodied for RetirementWanted {}

impl Validate for RetirementWanted {
    fn check(&self, faults: &mut Validation) {
        faults.expect(self.version >= 1, "/version", "must be 1 or more");
        check_reason(&self.reason, faults);
    }
}

/// Which version is asked for.
#[derive(Clone, Copy, Debug, Default, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(default)]
pub struct VersionWanted {
    /// Without it: the version that new sagas begin with.
    #[param(minimum = 1)]
    version: Option<i32>,
}

impl Validate for VersionWanted {
    fn check(&self, faults: &mut Validation) {
        faults.expect(self.version.is_none_or(|version| version >= 1), "/version", "must be 1 or more");
    }
}

/// Narrows the list of deployed versions.
#[derive(Clone, Debug, Default, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(default)]
pub struct WorkflowFilter {
    /// Only this workflow.
    name: Option<String>,
}

impl Validate for WorkflowFilter {
    fn check(&self, faults: &mut Validation) {
        if let Some(name) = &self.name {
            faults.expect_line(name, 1..=200, "/name");
        }
    }
}

/// A deployed version of a workflow.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = Workflow)]
pub struct WorkflowView {
    name: String,
    version: i32,
    deployed_by: Option<String>,
    deployed_at: Option<DateTime<Utc>>,
    /// What the model checker found: `good`, `broken` or `unfinished` (both deployed with an accepted risk), or `unchecked`.
    verdict: String,
    accepted_risk: Option<String>,
    retired_by: Option<String>,
    /// Since when no new sagas begin with it.
    retired_at: Option<DateTime<Utc>>,
}

/// A deployed version with its text.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = WorkflowDefinition)]
pub struct DefinitionView {
    #[serde(flatten)]
    workflow: WorkflowView,
    /// The definition as TOML, as it was deployed.
    definition: String,
    /// What the model checker looked at, and what it found.
    check: Value,
}

/// A version that was deployed.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = DeployedWorkflow)]
pub struct DeployedView {
    name: String,
    version: i32,
    verdict: String,
}

impl From<Deployment> for WorkflowView {
    fn from(one: Deployment) -> Self {
        let verdict = one.verdict.as_ref().and_then(|verdict| verdict["verdict"].as_str());
        Self {
            verdict: verdict.unwrap_or("unchecked").to_owned(),
            name: one.name,
            version: one.version,
            deployed_by: one.deployed_by,
            deployed_at: one.deployed_at,
            accepted_risk: one.accepted_risk,
            retired_by: one.retired_by,
            retired_at: one.retired_at,
        }
    }
}

/// Deployed versions, those that were registered last first. A client sees those of its workflows.
#[utoipa::path(get, path = "/v1/workflows", tag = "workflows", params(WorkflowFilter, ListQuery), security(("key" = [])),
    responses((status = 200, body = Page<WorkflowView>)), extensions(("x-problems" = json!(["forbidden"]))))]
pub async fn list(
    State(app): State<Arc<AdminState>>,
    caller: ClientOr<Viewer>,
    Paged { wanted, page }: Paged<WorkflowFilter>,
) -> Result<Answer> {
    let names = match wanted.name {
        Some(name) => Some(Vec::from_iter(caller.may_use(&name).then_some(name))),
        None => caller.workflows(),
    };
    let rows = definitions::list(&app.pool, names.as_deref(), page.after()?, page.limit() + 1).await?;
    let page = Page::cut(rows, page.limit(), |one: &Deployment| one.code);
    let items: Vec<WorkflowView> = page.items.into_iter().map(WorkflowView::from).collect();
    Ok(Answer::ok(&Page { items, next_cursor: page.next_cursor }))
}

/// One deployed version with its definition.
#[utoipa::path(get, path = "/v1/workflows/{workflow}", tag = "workflows",
    params(("workflow" = String, Path), VersionWanted), security(("key" = [])),
    responses((status = 200, body = DefinitionView)), extensions(("x-problems" = json!(["forbidden", "not_found"]))))]
pub async fn show(
    State(app): State<Arc<AdminState>>,
    caller: ClientOr<Viewer>,
    PathName(name): PathName,
    Params(VersionWanted { version }): Params<VersionWanted>,
) -> Result<Answer> {
    let unknown = || Problem::not_found("workflow, or version of it");
    if !caller.may_use(&name) {
        return Err(unknown());
    }
    let found = definitions::find(&app.pool, &name, version).await?.ok_or_else(unknown)?;
    let definition = definitions::source(&app.pool, &found.name, found.version).await?.ok_or_else(unknown)?;
    let check = found.verdict.clone().unwrap_or_default();
    Ok(Answer::ok(&DefinitionView { workflow: found.into(), definition, check }))
}

/// Checks a definition with the model checker and deploys it: new sagas may begin with it at once, on every process.
#[utoipa::path(post, path = "/v1/workflows", tag = "workflows", request_body = DefinitionWanted, security(("key" = [])),
    responses((status = 201, body = DeployedView)), extensions(("x-problems" = json!(["forbidden", "version_exists",
        "invalid_definition", "unsafe_definition", "check_unfinished", "request_in_progress", "idempotency_key_reused"]))))]
pub async fn deploy(
    State(app): State<Arc<AdminState>>,
    staff: Staff<Admin>,
    command: Command<DefinitionWanted>,
) -> Result<Response> {
    once(&app.repeats, staff.caller(), command, async |wanted, _| {
        let Ok(_permit) = app.checks.try_acquire() else {
            let detail = "This instance is checking another definition. Try again when it is done.";
            return Err(Problem::new(Code::Unavailable, detail).after(app.check_time));
        };
        let order = Order {
            text: wanted.definition,
            source_name: "in the request".to_owned(),
            accept_risk: wanted.accept_risk,
            actor: staff.key.name.clone(),
            check_time: app.check_time,
            check_threads: CHECK_THREADS,
        };
        let done = operation::deploy(&app.pool, order).await?;
        app.engine.workflows_changed().await?;
        let operation::Done { name, version, verdict, .. } = done;
        Ok(Answer::created(&DeployedView { name, version, verdict: verdict.to_owned() }))
    })
    .await
}

/// Ends a version: no new sagas begin with it, those under way go on.
#[utoipa::path(post, path = "/v1/workflows/{workflow}/retire", tag = "workflows", request_body = RetirementWanted,
    params(("workflow" = String, Path)), security(("key" = [])), responses((status = 200, body = WorkflowView)),
    extensions(("x-problems" = json!(["forbidden", "not_found", "illegal_act", "request_in_progress",
        "idempotency_key_reused"]))))]
pub async fn retire(
    State(app): State<Arc<AdminState>>,
    staff: Staff<Admin>,
    PathName(name): PathName,
    command: Command<RetirementWanted>,
) -> Result<Response> {
    once(&app.repeats, staff.caller(), command, async |RetirementWanted { version, reason }, _| {
        operation::retire(&app.pool, &name, version, &staff.key.name, &reason).await?;
        let found = definitions::find(&app.pool, &name, Some(version)).await?;
        let found = found.ok_or_else(|| Problem::not_found("workflow, or version of it"))?;
        app.engine.workflows_changed().await?;
        Ok(Answer::ok(&WorkflowView::from(found)))
    })
    .await
}

impl From<DeployError> for Problem {
    fn from(error: DeployError) -> Self {
        let detail = sentence(&error);
        match error {
            DeployError::Invalid(invalid) => {
                let problem = Self::new(Code::InvalidDefinition, detail).with("reason", invalid.problem);
                invalid.line.map_or(problem.clone(), |line| problem.with("line", line))
            }
            DeployError::Exists { .. } => Self::new(Code::VersionExists, detail),
            DeployError::Unsafe { finding, workers, .. } => {
                let example = json!({ "problem": finding.problem, "way": finding.way, "workers": workers });
                Self::new(Code::UnsafeDefinition, detail).with("counter_example", example)
            }
            DeployError::Unfinished { .. } => Self::new(Code::CheckUnfinished, detail),
            DeployError::Reason(problem) => {
                Self::invalid(vec![super::problem::Fault::new("/accept_risk", &problem)])
            }
            DeployError::Checker(error) => internal(&error),
            DeployError::Database(error) => error.into(),
        }
    }
}

impl From<RetireError> for Problem {
    fn from(error: RetireError) -> Self {
        match error {
            RetireError::InUse(_) => Self::new(Code::IllegalAct, sentence(&error)),
            RetireError::Database(error) => error.into(),
        }
    }
}
