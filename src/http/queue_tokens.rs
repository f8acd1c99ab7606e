//! The line as its members see it: join, look, leave. `queue_streams.rs` has the event stream.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::address::ClientAddress;
use super::answer::Answer;
use super::auth::AuthUser;
use super::gate::QueuePass;
use super::idempotency::once;
use super::problem::Result;
use super::request::{Command, NoBody, PathId};
use super::state::AppState;
use crate::waiting_room::QueueToken;

/// Joins the line of a concert; asking again gives the same place. A client with a token sends it, so that a lost
/// place can be restored.
#[utoipa::path(post, path = "/v1/concerts/{concert}/queue-tokens", tag = "queue",
    params(("concert" = Uuid, Path), ("Queue-Token" = Option<String>, Header, description = "A token from before")),
    security(("user" = [])),
    responses((status = 201, body = QueueToken, description = "A new place",
                  headers(("Retry-After" = u64, description = "Seconds until it is worth asking for it"))),
              (status = 200, body = QueueToken, description = "The place there was",
                  headers(("Retry-After" = u64, description = "Seconds until it is worth asking for it")))),
    extensions(("x-problems" = json!(["not_found", "sold_out", "queue_closed", "rate_limited",
        "request_in_progress", "idempotency_key_reused"]))))]
pub async fn join(
    State(app): State<Arc<AppState>>,
    user: AuthUser,
    PathId(concert): PathId,
    ClientAddress(address): ClientAddress,
    pass: QueuePass,
    command: Command<NoBody>,
) -> Result<Response> {
    app.joins.check(user.id, address)?;
    once(&app.repeats, user.caller(), command, async |_, _| {
        let joined = app.room.join_again(user.id, concert, pass.token()).await?;
        let status = if joined.created { StatusCode::CREATED } else { StatusCode::OK };
        let pause = joined.token.retry_after_seconds().to_string();
        Ok(Answer::new(status, &joined.token).with(header::RETRY_AFTER, &pause))
    })
    .await
}

/// The caller's place as it stands now.
#[utoipa::path(get, path = "/v1/queue-tokens/current", tag = "queue", security(("user" = [], "queue_token" = [])),
    responses((status = 200, body = QueueToken,
        headers(("Retry-After" = u64, description = "poll_after_ms in seconds, rounded up")))),
    extensions(("x-problems" = json!(["queue_token_identity"]))))]
pub async fn current(
    State(app): State<Arc<AppState>>,
    user: AuthUser,
    pass: QueuePass,
) -> Result<impl IntoResponse> {
    let place = app.room.ask(pass.token(), user.id)?;
    // Nothing is asked as often. It is written down as it is: no answer here is saved, to be given again.
    Ok(([(header::RETRY_AFTER, place.retry_after_seconds().to_string())], Json(place)))
}

/// Gives the place up. Holds are kept.
#[utoipa::path(delete, path = "/v1/queue-tokens/current", tag = "queue",
    security(("user" = [], "queue_token" = [])), responses((status = 204, description = "Given up")),
    extensions(("x-problems" = json!(["queue_token_identity"]))))]
pub async fn leave(State(app): State<Arc<AppState>>, user: AuthUser, pass: QueuePass) -> Result<StatusCode> {
    let claims = app.room.identify(pass.token(), user.id)?;
    app.room.end(&claims).await;
    Ok(StatusCode::NO_CONTENT)
}
