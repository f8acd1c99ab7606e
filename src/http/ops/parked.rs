//! Parked messages: those that no program could process.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use serde::Serialize;
use utoipa::ToSchema;

use super::super::admin_state::AdminState;
use super::super::answer::Answer;
use super::super::auth::{Operator, Staff, Viewer};
use super::super::error::Code;
use super::super::idempotency::once;
use super::super::page::{ListQuery, Page, Paged};
use super::super::problem::{Problem, Result};
use super::super::request::{Command, PathNumber};
use super::super::validation::Validate;
use super::saga_acts::ActReason;
use crate::operations::AskError;
use crate::operations::parked::{self, Fate, ParkedError, ParkedFilter, ParkedMessage};

impl Validate for ParkedFilter {}

/// Parked messages, newest first.
#[utoipa::path(get, path = "/v1/ops/parked", tag = "operations", params(ParkedFilter, ListQuery), security(("key" = [])),
    responses((status = 200, body = Page<ParkedMessage>)), extensions(("x-problems" = json!(["forbidden"]))))]
pub async fn list(
    State(app): State<Arc<AdminState>>,
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
    State(app): State<Arc<AdminState>>,
    _staff: Staff<Viewer>,
    PathNumber(id): PathNumber,
) -> Result<Answer> {
    Ok(Answer::ok(&parked::show(&app.pool, id).await.map_err(named)?))
}

/// What became of a parked message.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Unparked {
    id: i64,
    #[schema(inline)]
    outcome: Fate,
}

/// Publishes a parked message again, where it came from: what stood in its way has been mended.
#[utoipa::path(post, path = "/v1/ops/parked/{message}/release", tag = "operations", request_body = ActReason,
    params(("message" = i64, Path)), security(("key" = [])), responses((status = 200, body = Unparked)),
    extensions(("x-problems" = json!(["forbidden", "not_found", "request_in_progress", "idempotency_key_reused"]))))]
pub async fn release(
    State(app): State<Arc<AdminState>>,
    staff: Staff<Operator>,
    PathNumber(id): PathNumber,
    command: Command<ActReason>,
) -> Result<Response> {
    take_out(&app, &staff, id, Fate::Released, command).await
}

/// Throws a parked message away.
#[utoipa::path(post, path = "/v1/ops/parked/{message}/drop", tag = "operations", request_body = ActReason,
    params(("message" = i64, Path)), security(("key" = [])), responses((status = 200, body = Unparked)),
    extensions(("x-problems" = json!(["forbidden", "not_found", "request_in_progress", "idempotency_key_reused"]))))]
pub async fn discard(
    State(app): State<Arc<AdminState>>,
    staff: Staff<Operator>,
    PathNumber(id): PathNumber,
    command: Command<ActReason>,
) -> Result<Response> {
    take_out(&app, &staff, id, Fate::Dropped, command).await
}

async fn take_out(
    app: &AdminState,
    staff: &Staff<Operator>,
    id: i64,
    fate: Fate,
    command: Command<ActReason>,
) -> Result<Response> {
    once(&app.repeats, staff.caller(), command, async |why, _| {
        parked::take_out(&app.engine, id, fate, &staff.key.name, &why.reason).await?;
        Ok(Answer::ok(&Unparked { id, outcome: fate }))
    })
    .await
}

impl From<ParkedError> for Problem {
    fn from(error: ParkedError) -> Self {
        match error {
            ParkedError::Unknown => Self::not_found("parked message"),
            ParkedError::Publish(error) => Self::new(
                Code::Unavailable,
                format!("JetStream did not take the message: {error}. It is still parked."),
            ),
            ParkedError::Database(error) => error.into(),
        }
    }
}

/// What is not there is a message here.
fn named(error: AskError) -> Problem {
    match error {
        AskError::Unknown => Problem::not_found("parked message"),
        error => error.into(),
    }
}
