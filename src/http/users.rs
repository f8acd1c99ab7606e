//! Users of local mode. In production there is no such route: users live with the identity provider.

use std::sync::Arc;

use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use super::answer::Answer;
use super::error::Code;
use super::problem::{Problem, Result};
use super::request::{Bodied, Command};
use super::state::AppState;
use super::validation::{Validate, Validation};
use crate::{ids, store};

/// A user to be made.
#[derive(Clone, Debug, Deserialize, ToSchema)]
pub struct NewUser {
    #[schema(format = "line", min_length = 1, max_length = 100)]
    name: String,
}

impl Bodied for NewUser {}

impl Validate for NewUser {
    fn check(&self, faults: &mut Validation) {
        faults.expect_line(&self.name, 1..=100, "/name");
    }
}

/// A user, with what proves it.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct UserCreated {
    id: Uuid,
    name: String,
    /// Send it as `Authorization: Bearer`.
    access_token: String,
}

/// Makes a user (local mode only). An `Idempotency-Key` is accepted and has no effect: nothing says who is calling, so a saved
/// answer would give the token to others. A request that is sent again makes another user.
#[utoipa::path(post, path = "/v1/users", tag = "users", request_body = NewUser,
    responses((status = 201, body = UserCreated)))]
pub async fn create(State(app): State<Arc<AppState>>, command: Command<NewUser>) -> Result<Answer> {
    let (id, name) = (ids::new(), command.body.name);
    let access_token = app
        .access
        .issue(id)
        .ok_or_else(|| Problem::new(Code::NotFound, "Users are not made here: this is not local mode."))?;
    store::users::insert(&app.pool, id, &name).await?;
    Ok(Answer::created(&UserCreated { id, name, access_token }))
}
