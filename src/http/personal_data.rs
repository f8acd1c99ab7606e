//! What is kept about one user, for requests of that user: all of it as one document, and removing what can be removed.

use std::sync::Arc;

use axum::extract::State;
use axum::http::header;
use axum::response::Response;

use super::admin_state::AdminState;
use super::answer::Answer;
use super::auth::{Admin, Staff};
use super::idempotency::once;
use super::ops::saga_acts::ActReason;
use super::problem::{Fault, Problem, Result, sentence};
use super::request::{Command, PathId};
use crate::operations::personal_data::{self, PersonalDataError, UserData, UserForgotten};
use crate::operations::queues::By;

/// All that is kept about a user, as one document. The export is written down as an act.
#[utoipa::path(get, path = "/v1/admin/users/{user}/export", tag = "admin", params(("user" = Uuid, Path)),
    security(("key" = [])), responses((status = 200, body = UserData)),
    extensions(("x-problems" = json!(["forbidden", "not_found"]))))]
pub async fn export(
    State(app): State<Arc<AdminState>>,
    staff: Staff<Admin>,
    PathId(user): PathId,
) -> Result<Answer> {
    let by = By { actor: &staff.key.name, reason: "" };
    let data = personal_data::export(&app.pool, user, by).await?;
    let file = format!("attachment; filename=\"user-{user}.json\"");
    Ok(Answer::ok(&data).with(header::CONTENT_DISPOSITION, &file))
}

/// Removes the user's name and the free texts about the user. Reservations, ledger entries, tickets and sagas stay: they name the
/// user by id only. Again: removes what has come since.
#[utoipa::path(post, path = "/v1/admin/users/{user}/forgetting", tag = "admin", request_body = ActReason,
    params(("user" = Uuid, Path)), security(("key" = [])), responses((status = 200, body = UserForgotten)),
    extensions(("x-problems" = json!(["forbidden", "not_found", "request_in_progress", "idempotency_key_reused"]))))]
pub async fn forget(
    State(app): State<Arc<AdminState>>,
    staff: Staff<Admin>,
    PathId(user): PathId,
    command: Command<ActReason>,
) -> Result<Response> {
    once(&app.repeats, staff.caller(), command, async |why, _| {
        let by = By { actor: &staff.key.name, reason: &why.reason };
        Ok(Answer::ok(&personal_data::forget(&app.pool, user, by).await?))
    })
    .await
}

impl From<PersonalDataError> for Problem {
    fn from(error: PersonalDataError) -> Self {
        match error {
            PersonalDataError::Unknown => Self::not_found("user"),
            PersonalDataError::TooMuch(_) => Self::invalid(vec![Fault::new("", &sentence(&error))]),
            PersonalDataError::Database(error) => error.into(),
        }
    }
}
