//! Sagas as operators see them: the list, the counts, and one with all there is to know about it.

use std::sync::Arc;

use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use super::super::admin_state::AdminState;
use super::super::answer::Answer;
use super::super::auth::{Staff, Viewer};
use super::super::page::{ListQuery, Page, Paged};
use super::super::problem::Result;
use super::super::request::{Params, PathId};
use super::super::validation::{Validate, Validation};
use crate::operations::why::{self, Why};
use crate::operations::{SagaDetail, SagaFilter, SagaView, sagas};
use crate::store::saga_search::Count;

impl Validate for SagaFilter {
    fn check(&self, faults: &mut Validation) {
        for (field, problem) in self.problems() {
            faults.expect(false, format!("/{field}"), problem);
        }
    }
}

/// Sagas, newest first.
#[utoipa::path(get, path = "/v1/ops/sagas", tag = "operations", params(SagaFilter, ListQuery), security(("key" = [])),
    responses((status = 200, body = Page<SagaView>)), extensions(("x-problems" = json!(["forbidden"]))))]
pub async fn list(
    State(app): State<Arc<AdminState>>,
    _staff: Staff<Viewer>,
    Paged { wanted, page }: Paged<SagaFilter>,
) -> Result<Answer> {
    let rows = sagas::list_views(&app.pool, &wanted, page.after()?, page.limit() + 1).await?;
    Ok(Answer::ok(&Page::cut(rows, page.limit(), |saga: &SagaView| saga.id)))
}

/// How many sagas stand where.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Counts {
    items: Vec<Count>,
    total: i64,
}

/// How many sagas there are in each step of each workflow, of those that match.
#[utoipa::path(get, path = "/v1/ops/sagas/counts", tag = "operations", params(SagaFilter), security(("key" = [])),
    responses((status = 200, body = Counts)), extensions(("x-problems" = json!(["forbidden"]))))]
pub async fn counts(
    State(app): State<Arc<AdminState>>,
    _staff: Staff<Viewer>,
    Params(wanted): Params<SagaFilter>,
) -> Result<Answer> {
    let items = sagas::counts(&app.pool, &wanted).await?;
    let total = items.iter().map(|count| count.count).sum();
    Ok(Answer::ok(&Counts { items, total }))
}

/// A saga with its history, and where its trace is shown.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = SagaShown)]
pub struct SagaShown {
    #[serde(flatten)]
    detail: SagaDetail,
    /// The address of its trace, by the setting `BOXOFFICE_TRACE_URL`; absent without it.
    #[serde(skip_serializing_if = "Option::is_none")]
    trace_url: Option<String>,
}

/// One saga with its history, its steps as they stand, and its way back.
#[utoipa::path(get, path = "/v1/ops/sagas/{saga}", tag = "operations", params(("saga" = Uuid, Path)),
    security(("key" = [])), responses((status = 200, body = SagaShown)),
    extensions(("x-problems" = json!(["forbidden", "not_found"]))))]
pub async fn show(
    State(app): State<Arc<AdminState>>,
    _staff: Staff<Viewer>,
    PathId(id): PathId,
) -> Result<Answer> {
    let detail = sagas::show(&app.pool, &app.engine.registry, id).await?;
    let trace_url = app.trace_url.as_ref().map(|template| template.of(&detail.saga.trace_id));
    Ok(Answer::ok(&SagaShown { detail, trace_url }))
}

/// Why a saga is where it is: what it waits for, since when, until when, and who could move it.
#[utoipa::path(get, path = "/v1/ops/sagas/{saga}/why", tag = "operations", params(("saga" = Uuid, Path)),
    security(("key" = [])), responses((status = 200, body = Why)),
    extensions(("x-problems" = json!(["forbidden", "not_found"]))))]
pub async fn why(
    State(app): State<Arc<AdminState>>,
    _staff: Staff<Viewer>,
    PathId(id): PathId,
) -> Result<Answer> {
    let bus = &app.engine.bus;
    let facts = why::ask(&app.pool, &app.engine.registry, Some(bus), id).await?;
    Ok(Answer::ok(&Why::from(facts)))
}
