//! Completing a step by hand: the service that serves it writes its fence first, wherever it lives.
//!
//! A request on core NATS, answered at once. The service saves `done` with the given output, unless it knows better: a
//! step that did run tells its own outcome. `docs/workers.md` has the contract.

use async_nats::client::RequestErrorKind;
use async_nats::service::NATS_SERVICE_ERROR;
use async_nats::{HeaderMap, Message};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use uuid::Uuid;

use super::headers::{DIRECTION, Fence, Malformed, fence, read_fence};
use super::messages::{VERSION, check_version};
use super::{Bus, subjects};
use crate::jsonb;
use crate::saga::{Direction, Outcome};

/// The code of the outcome of a step that was undone: it cannot be completed any more.
pub const UNDONE: &str = "undone";
/// The code of the outcome of a visit that is over: the step was entered anew since.
pub const VISIT_OVER: &str = "visit_over";

/// A step that is to be taken as done.
#[derive(Clone, Debug, PartialEq)]
pub struct Completion {
    pub saga: Uuid,
    pub step: String,
    pub visit: i32,
    pub output: Map<String, Value>,
}

/// What became of it.
#[derive(Clone, Debug, PartialEq)]
pub enum Completed {
    /// The service has written `done`; a `do` that comes later is answered with it and does nothing.
    Recorded,
    /// Nothing was written: this is what the service knows of the step.
    Ran(Outcome),
}

/// Why a step could not be completed at its service. Nothing is known to be written.
#[derive(Debug, thiserror::Error)]
pub enum FenceError {
    #[error("nobody serves {service} now; start a worker of it, then try again")]
    NobodyServes { service: String },
    #[error("the service {service} refused: {reason}")]
    Refused { service: String, reason: String },
    #[error(
        "the service {service} gave no answer that can be read ({reason}); the same request may be sent again"
    )]
    NoAnswer { service: String, reason: String },
}

#[derive(Serialize, Deserialize)]
struct RequestBody {
    version: u32,
    #[serde(default)]
    output: Map<String, Value>,
}

#[derive(Serialize, Deserialize)]
struct AnswerBody {
    version: u32,
    recorded: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    outcome: Option<Outcome>,
}

/// Asks a service to write that a step is done.
pub async fn complete(bus: &Bus, service: &str, wanted: &Completion) -> Result<Completed, FenceError> {
    let silent = |reason: String| FenceError::NoAnswer { service: service.to_owned(), reason };
    let (headers, body) = request(wanted);
    let answer = bus.client.request_with_headers(subjects::complete(service), headers, body).await;
    let answer = answer.map_err(|error| match error.kind() {
        RequestErrorKind::NoResponders => FenceError::NobodyServes { service: service.to_owned() },
        _ => silent(error.to_string()),
    })?;
    if let Some(reason) = answer.headers.as_ref().and_then(|headers| headers.get(NATS_SERVICE_ERROR)) {
        return Err(FenceError::Refused { service: service.to_owned(), reason: reason.to_string() });
    }
    read_answer(&answer).map_err(|error| silent(error.to_string()))
}

fn request(wanted: &Completion) -> (HeaderMap, Bytes) {
    let headers = fence(wanted.saga, &wanted.step, Direction::Do, wanted.visit, 0);
    (headers, json(&RequestBody { version: VERSION, output: wanted.output.clone() }))
}

/// Reads such a request, at the service.
pub fn read_request(message: &Message) -> Result<Completion, Malformed> {
    let Fence { saga, step, direction, visit, .. } = read_fence(message)?;
    if direction != Direction::Do {
        return Err(Malformed::Header(DIRECTION));
    }
    let body: RequestBody = serde_json::from_slice(&message.payload)?;
    check_version(body.version)?;
    jsonb::check_object(&body.output).map_err(|error| error.within("output"))?;
    Ok(Completion { saga, step, visit, output: body.output })
}

/// The service's answer.
pub fn answer(completed: Completed) -> Bytes {
    let outcome = match completed {
        Completed::Recorded => None,
        Completed::Ran(outcome) => Some(outcome),
    };
    json(&AnswerBody { version: VERSION, recorded: outcome.is_none(), outcome })
}

fn read_answer(message: &Message) -> Result<Completed, Malformed> {
    let body: AnswerBody = serde_json::from_slice(&message.payload)?;
    check_version(body.version)?;
    match (body.recorded, body.outcome) {
        (true, _) => Ok(Completed::Recorded),
        (false, Some(outcome)) => Ok(Completed::Ran(outcome)),
        (false, None) => Err(Malformed::Missing("outcome")),
    }
}

fn json(body: &impl Serialize) -> Bytes {
    serde_json::to_vec(body).expect("bodies have string keys and no failing parts").into()
}
