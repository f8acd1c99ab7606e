//! Users of local mode. In production there is no such route: users live with the identity provider.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use super::answer::Answer;
use super::error::Code;
use super::idempotency::once;
use super::problem::{Problem, Result};
use super::request::{Bodied, Command};
use super::shape::{Faults, Shape};
use super::state::AppState;
use crate::store;

/// A user to be made.
#[derive(Clone, Debug, Deserialize, ToSchema)]
pub struct NewUser {
    #[schema(min_length = 1, max_length = 100)]
    name: String,
}

impl Bodied for NewUser {}

impl Shape for NewUser {
    fn check(&self, faults: &mut Faults) {
        faults.expect_text(&self.name, 1..=100, "/name");
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

/// Makes a user (local mode only).
#[utoipa::path(post, path = "/v1/users", tag = "users", request_body = NewUser,
    responses((status = 201, body = UserCreated)),
    extensions(("x-problems" = json!(["request_in_progress", "idempotency_key_reused"]))))]
pub async fn create(State(app): State<Arc<AppState>>, command: Command<NewUser>) -> Result<Response> {
    once(&app.repeats, "anybody".to_owned(), command, async |user, effect| {
        let token = app.access.issue(effect.id);
        let access_token = token.ok_or_else(|| {
            Problem::new(Code::NotFound, "Users are not made here: this is not local mode.")
        })?;
        let mut tx = app.pool.begin().await?;
        store::users::insert(&mut *tx, effect.id, &user.name).await?;
        let answer = Answer::created(&UserCreated { id: effect.id, name: user.name, access_token });
        effect.save(&mut *tx, &answer).await?;
        tx.commit().await?;
        Ok(answer)
    })
    .await
}
