//! The line as its members see it: join, look, listen, leave.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderName, StatusCode, header};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures::StreamExt;

use super::address::ClientAddress;
use super::answer::Answer;
use super::auth::AuthUser;
use super::gate::{QueuePass, StreamPass};
use super::idempotency::once;
use super::problem::Result;
use super::request::{Command, NoBody, PathId};
use super::state::AppState;
use crate::waiting_room::QueueToken;

/// How often a silent stream says that it is still there.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

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

/// The caller's place at once and whenever it changes, as server-sent events; ends when the place does.
#[utoipa::path(get, path = "/v1/queue-tokens/current/events", tag = "queue",
    params(("queue_token" = Option<String>, Cookie, description = "Instead of the header Queue-Token")),
    security(("user" = [], "queue_token" = [])),
    responses((status = 200, body = QueueToken, content_type = "text/event-stream")),
    extensions(("x-problems" = json!(["queue_token_identity", "unavailable"]))))]
pub async fn events(
    State(app): State<Arc<AppState>>,
    user: AuthUser,
    StreamPass(pass): StreamPass,
) -> Result<Response> {
    let claims = app.room.identify(pass.token(), user.id)?;
    let listener = app.listeners.admit(user.id)?;
    let ended = listener.ended();
    let changes = app.room.changes(claims).map(move |token| {
        // The seat is given back when the stream ends, or the listener goes home.
        let _seated = &listener;
        Event::default().json_data(token)
    });
    // Without this a stop would wait for the last listener to go home.
    let stop = app.stop.clone();
    let events = changes.take_until(async move {
        tokio::select! {
            () = stop.cancelled() => {}
            () = ended.cancelled() => {}
        }
    });
    let events = events.filter_map(async |event| event.ok().map(Ok::<_, Infallible>));
    let unbuffered =
        [(HeaderName::from_static("x-accel-buffering"), "no"), (header::CACHE_CONTROL, "no-store")];
    Ok((unbuffered, Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE))).into_response())
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
