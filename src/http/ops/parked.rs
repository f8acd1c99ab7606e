//! Messages that nobody could act on.

use std::sync::Arc;

use axum::extract::State;

use super::super::answer::Answer;
use super::super::auth::{Staff, Viewer};
use super::super::page::{ListQuery, Page, Paged};
use super::super::problem::{Problem, Result};
use super::super::request::PathNumber;
use super::super::shape::Shape;
use super::super::state::AppState;
use crate::operations::AskError;
use crate::operations::parked::{self, ParkedFilter, ParkedMessage};

impl Shape for ParkedFilter {}

/// Parked messages, newest first.
#[utoipa::path(get, path = "/v1/ops/parked", tag = "operations", params(ParkedFilter, ListQuery), security(("key" = [])),
    responses((status = 200, body = Page<ParkedMessage>)), extensions(("x-problems" = json!(["forbidden"]))))]
pub async fn list(
    State(app): State<Arc<AppState>>,
    _staff: Staff<Viewer>,
    Paged { wanted, page }: Paged<ParkedFilter>,
) -> Result<Answer> {
    let rows = parked::list(&app.pool, &wanted, page.after()?, page.limit() + 1).await?;
    Ok(Answer::ok(&Page::cut(rows, page.limit(), |message| message.id)))
}

/// One parked message, whole.
#[utoipa::path(get, path = "/v1/ops/parked/{message}", tag = "operations", params(("message" = i64, Path)),
    security(("key" = [])), responses((status = 200, body = ParkedMessage)),
    extensions(("x-problems" = json!(["forbidden", "not_found"]))))]
pub async fn show(
    State(app): State<Arc<AppState>>,
    _staff: Staff<Viewer>,
    PathNumber(id): PathNumber,
) -> Result<Answer> {
    Ok(Answer::ok(&parked::show(&app.pool, id).await.map_err(named)?))
}

/// What is not there is a message here.
fn named(error: AskError) -> Problem {
    match error {
        AskError::Unknown => Problem::not_found("parked message"),
        error => error.into(),
    }
}
