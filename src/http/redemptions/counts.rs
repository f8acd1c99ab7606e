//! How many tickets of a date are redeemed, once or as a stream of server-sent events.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderName, header};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures::{StreamExt, stream};
use uuid::Uuid;

use super::super::admin_state::AdminState;
use super::super::answer::Answer;
use super::super::auth::RedemptionReader;
use super::super::error::Code;
use super::super::problem::{Problem, Result};
use super::super::request::PathId;
use crate::redemptions::{COUNT_STREAMS_AT_ONCE, Counts};

/// How often a silent stream says that it is still there.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(15);

/// The redeemed tickets of a date, by gate; at most a second old.
#[utoipa::path(get, path = "/v1/performances/{performance}/redemptions", tag = "tickets",
    params(("performance" = Uuid, Path)), security(("key" = [])), responses((status = 200, body = Counts)),
    extensions(("x-problems" = json!(["forbidden", "not_found"]))))]
pub async fn show(
    State(app): State<Arc<AdminState>>,
    _reader: RedemptionReader,
    PathId(performance): PathId,
) -> Result<Answer> {
    Ok(Answer::ok(&*counts(&app, performance).await?))
}

/// The same at once and whenever it changes, at most once a second, as server-sent events.
#[utoipa::path(get, path = "/v1/performances/{performance}/redemptions/events", tag = "tickets",
    params(("performance" = Uuid, Path)), security(("key" = [])),
    responses((status = 200, body = Counts, content_type = "text/event-stream",
        description = "An event for each change; a comment every 15 s")),
    extensions(("x-problems" = json!(["forbidden", "not_found", "rate_limited"]))))]
pub async fn watch(
    State(app): State<Arc<AdminState>>,
    _reader: RedemptionReader,
    PathId(performance): PathId,
) -> Result<Response> {
    let gates = app.redemptions()?;
    let first = counts(&app, performance).await?;
    let place = gates.stream_place().ok_or_else(|| {
        let detail =
            format!("{COUNT_STREAMS_AT_ONCE} streams of counts are open on this instance, the most allowed.");
        Problem::new(Code::RateLimited, detail)
    })?;
    let stop = app.stop.clone();
    let changes = gates.count_changes(performance, Arc::clone(&first));
    let counts = stream::iter([first]).chain(changes).take_until(async move { stop.cancelled().await });
    let events = counts.filter_map(move |counts| {
        // The place is free again when the stream ends or its client has gone.
        let _open = &place;
        let event = Event::default().json_data(&*counts).ok().map(Ok::<_, Infallible>);
        std::future::ready(event)
    });
    let unbuffered =
        [(HeaderName::from_static("x-accel-buffering"), "no"), (header::CACHE_CONTROL, "no-store")];
    Ok((unbuffered, Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE_INTERVAL)))
        .into_response())
}

async fn counts(app: &AdminState, performance: Uuid) -> Result<Arc<Counts>> {
    let counts = app.redemptions()?.counts(performance).await.map_err(|error| Problem::from(&*error))?;
    counts.ok_or_else(|| Problem::not_found("performance"))
}
