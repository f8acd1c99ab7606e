//! The event stream of a place in line, and the keys with which browsers open it.
//!
//! A browser's `EventSource` sends no headers of a page's choosing, so a page asks for a stream key first and names it in the
//! address. A key is signed, lasts half a minute and opens one stream, on whichever instance: using it claims its id in Postgres,
//! as an `Idempotency-Key` is claimed. What an address leaks into logs is of no use afterwards.
//!
//! Each event carries a signed id. A browser that loses its connection asks again for the same address with `Last-Event-ID`: the
//! id proves that the stream was its own, so the spent key is taken once more. Every event is the whole object, so nothing has to
//! be sent again. When the place has ended, the answer is 204, which ends the attempts of an `EventSource`.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{FromRequestParts, State};
use axum::http::request::Parts;
use axum::http::{HeaderName, StatusCode, header};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures::StreamExt;
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::answer::Answer;
use super::auth::AuthUser;
use super::error::Code;
use super::gate::{QueuePass, StreamPass};
use super::problem::{Problem, Result};
use super::request::{Command, NoBody};
use super::state::AppState;
use crate::ids;
use crate::waiting_room::{Claims, QueueToken, STREAM_KEY_TTL, Status};

/// How often a silent stream says that it is still there.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(15);
/// The header that a browser sends when it opens a stream again.
const LAST_EVENT_ID: &str = "last-event-id";
/// What the use of a key is claimed for.
const ROUTE: &str = "GET /v1/queue-tokens/current/events";

/// Opens one event stream without headers.
#[derive(Debug, Serialize, ToSchema)]
pub struct StreamKeyIssued {
    /// For `?key=` of the stream's address.
    key: String,
    /// How long it may be used from now on.
    expires_in_seconds: u64,
}

/// A key for the event stream of the caller's place, for one use within half a minute: a browser's EventSource sends no headers.
#[utoipa::path(post, path = "/v1/queue-tokens/current/stream-keys", tag = "queue",
    security(("user" = [], "queue_token" = [])), responses((status = 201, body = StreamKeyIssued)),
    extensions(("x-problems" = json!(["queue_token_identity"]))))]
pub async fn add_key(
    State(app): State<Arc<AppState>>,
    user: AuthUser,
    pass: QueuePass,
    _command: Command<NoBody>,
) -> Result<Answer> {
    let claims = app.room.identify(pass.token(), user.id)?;
    let key = app.room.stream_key(claims, ids::new());
    Ok(Answer::created(&StreamKeyIssued { key, expires_in_seconds: STREAM_KEY_TTL.as_secs() }))
}

/// Whose stream is asked for, and how.
pub struct StreamCaller {
    place: Claims,
    /// Names the stream.
    id: Uuid,
    /// Whether it was open before, by the id of its last event.
    is_again: bool,
}

impl FromRequestParts<Arc<AppState>> for StreamCaller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<AppState>) -> Result<Self> {
        let last = parts.headers.get(LAST_EVENT_ID).and_then(|id| id.to_str().ok());
        let last = last.and_then(|id| app.room.read_stream_key(id));
        let query = parts.uri.query().unwrap_or_default().as_bytes();
        let sent = url::form_urlencoded::parse(query)
            .find(|(name, _)| name == "key")
            .map(|(_, key)| key.into_owned());
        let Some(sent) = sent else {
            let user = AuthUser::from_request_parts(parts, app).await?;
            let Ok(StreamPass(pass)) = StreamPass::from_request_parts(parts, app).await;
            let place = app.room.identify(pass.token(), user.id)?;
            let is_again = last.is_some_and(|last| last.is_of(&place));
            return Ok(Self { place, id: ids::new(), is_again });
        };
        let key = app.room.read_stream_key(&sent).ok_or_else(|| refused("is malformed or forged"))?;
        let is_again = last.is_some_and(|last| last.id == key.id && last.is_of(&key.place));
        if is_again || app.room.look(&key.place).status == Status::Expired {
            return Ok(Self { place: key.place, id: key.id, is_again: true });
        }
        if app.room.is_stream_key_over(&key) {
            return Err(refused("has expired"));
        }
        let caller = format!("user:{}", key.place.user);
        match app.repeats.use_once(caller, ROUTE, key.id).await? {
            true => Ok(Self { place: key.place, id: key.id, is_again }),
            false => Err(refused("has been used")),
        }
    }
}

fn refused(how: &str) -> Problem {
    let detail =
        format!("The stream key {how}. Ask for a new one: POST /v1/queue-tokens/current/stream-keys.");
    Problem::new(Code::Unauthenticated, detail)
}

/// The caller's place at once and whenever it changes, as server-sent events; ends when the place does.
#[utoipa::path(get, path = "/v1/queue-tokens/current/events", tag = "queue",
    params(("queue_token" = Option<String>, Cookie, description = "Instead of the header Queue-Token"),
           ("key" = Option<String>, Query, description = "A stream key, instead of the headers Authorization and Queue-Token"),
           ("Last-Event-ID" = Option<String>, Header, description = "The id of the last event, where a stream is opened again")),
    security(("user" = [], "queue_token" = []), ()),
    responses((status = 200, body = QueueToken, content_type = "text/event-stream"),
              (status = 204, description = "The place has ended, and so has its stream: do not open it again")),
    extensions(("x-problems" = json!(["queue_token_identity", "unauthenticated", "unavailable"]))))]
pub async fn events(State(app): State<Arc<AppState>>, caller: StreamCaller) -> Result<Response> {
    let StreamCaller { place, id, is_again } = caller;
    if is_again && app.room.look(&place).status == Status::Expired {
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    let listener = app.listeners.admit(place.user)?;
    let ended = listener.ended();
    let event_id = app.room.stream_key(Claims { activated_at: None, expires_at: None, ..place }, id);
    let changes = app.room.changes(place).map(move |token| {
        // The stream counts as open until it ends or its client has gone.
        let _open = &listener;
        Event::default().id(&event_id).json_data(token)
    });
    // Without this a stop would wait until the last client has gone.
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
    let events = Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE_INTERVAL));
    Ok((unbuffered, events).into_response())
}
