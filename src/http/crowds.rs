//! Crowds of simulated buyers, in local mode only: for visitors who want to see a sale.

use std::sync::Arc;

use axum::extract::{FromRef, FromRequestParts, State};
use axum::http::StatusCode;
use axum::http::request::Parts;
use serde::Deserialize;
use utoipa::ToSchema;

use super::answer::Answer;
use super::auth::{Access, AuthUser};
use super::error::Code;
use super::problem::{Problem, Result, internal};
use super::request::{Bodied, Command, PathId};

use super::state::AppState;
use super::validation::{Validate, Validation};
use crate::crowd::{BUYERS_MAX, CrowdView};

/// The service is in local mode; else 403.
#[derive(Clone, Copy, Debug)]
pub struct LocalMode;

impl<S> FromRequestParts<S> for LocalMode
where
    S: Send + Sync,
    Access: FromRef<S>,
{
    type Rejection = Problem;

    async fn from_request_parts(_: &mut Parts, state: &S) -> Result<Self> {
        match Access::from_ref(state).is_local() {
            true => Ok(Self),
            false => {
                Err(Problem::new(Code::LocalModeOnly, "Crowds of simulated buyers come in local mode only."))
            }
        }
    }
}

/// A crowd to come.
#[derive(Clone, Debug, Deserialize, ToSchema)]
pub struct NewCrowd {
    #[schema(minimum = 1, maximum = 500)]
    buyers: u32,
}

impl Bodied for NewCrowd {}

impl Validate for NewCrowd {
    fn check(&self, faults: &mut Validation) {
        let reason = format!("must be from 1 to {BUYERS_MAX}");
        faults.expect((1..=BUYERS_MAX).contains(&self.buyers), "/buyers", reason);
    }
}

/// Lets simulated buyers come to a concert (local mode only), one crowd at a time. They use this API as other buyers do: they
/// get users and points, wait in line, and most of them buy. An `Idempotency-Key` is accepted and has no effect: a
/// second crowd is refused while one is there.
#[utoipa::path(post, path = "/v1/concerts/{concert}/crowds", tag = "users", params(("concert" = Uuid, Path)),
    request_body = NewCrowd, security(("user" = [])),
    responses((status = 202, body = CrowdView, description = "They are on the way")),
    extensions(("x-problems" = json!(["local_mode_only", "not_found", "request_in_progress"]))))]
pub async fn start(
    State(app): State<Arc<AppState>>,
    _: AuthUser,
    _: LocalMode,
    PathId(concert): PathId,
    command: Command<NewCrowd>,
) -> Result<Answer> {
    app.catalog.known_concert(concert).await?;
    match app.crowds.start(concert, command.body.buyers) {
        Ok(Some(crowd)) => Ok(Answer::new(StatusCode::ACCEPTED, &crowd)),
        Ok(None) => {
            Err(Problem::new(Code::RequestInProgress, "A crowd is there already; wait until it has gone."))
        }
        Err(error) => Err(internal(&error)),
    }
}

/// The crowd that came last, and what its buyers do (local mode only).
#[utoipa::path(get, path = "/v1/crowds/current", tag = "users", security(("user" = [])),
    responses((status = 200, body = CrowdView)), extensions(("x-problems" = json!(["local_mode_only"]))))]
pub async fn current(State(app): State<Arc<AppState>>, _: AuthUser, _: LocalMode) -> Result<Answer> {
    Ok(Answer::ok(&app.crowds.latest()))
}
