//! Sagas as they move, as a stream of server-sent events.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::HeaderName;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures::StreamExt;

use super::super::admin_state::{AdminState, TAILS_AT_ONCE};
use super::super::auth::{Staff, Viewer};
use super::super::error::Code;
use super::super::problem::{Problem, Result};
use super::super::request::Params;
use super::super::validation::{Validate, Validation};
use crate::operations::tail::{self, TailFilter};
use crate::schemas::SagaTransition;

/// How often a silent stream says that it is still there.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

impl Validate for TailFilter {
    fn check(&self, faults: &mut Validation) {
        for (field, problem) in self.problems() {
            faults.expect(false, format!("/{field}"), problem);
        }
    }
}

/// Transitions of sagas as they are recorded, from now on. Nothing is kept for those who do not listen.
#[utoipa::path(get, path = "/v1/ops/sagas/tail", tag = "operations", params(TailFilter), security(("key" = [])),
    responses((status = 200, body = SagaTransition, content_type = "text/event-stream",
        description = "An event for each transition; a comment every 15 s")),
    extensions(("x-problems" = json!(["forbidden", "rate_limited"]))))]
pub async fn tail(
    State(app): State<Arc<AdminState>>,
    _staff: Staff<Viewer>,
    Params(wanted): Params<TailFilter>,
) -> Result<Response> {
    let Ok(place) = Arc::clone(&app.tails).try_acquire_owned() else {
        let detail = format!("{TAILS_AT_ONCE} tails are open on this instance, and no more are allowed.");
        return Err(Problem::new(Code::RateLimited, detail));
    };
    let transitions = tail::open(&app.engine.bus.client, &wanted).await.map_err(|error| {
        tracing::warn!(%error, "a tail could not be opened");
        Problem::new(Code::Unavailable, "NATS does not answer.")
    })?;
    let stop = app.stop.clone();
    let events =
        transitions.take_until(async move { stop.cancelled().await }).filter_map(move |transition| {
            // The place is given back when the stream ends, or the listener goes home.
            let _held = &place;
            let event = Event::default().json_data(&transition).ok().map(Ok::<_, Infallible>);
            std::future::ready(event)
        });
    let unbuffered = [(HeaderName::from_static("x-accel-buffering"), "no")];
    Ok((unbuffered, Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE))).into_response())
}
