//! Requests to complete a step by hand, which its service answers.
//!
//! The engine sends the request on core NATS before it takes the step as done. The service writes `done` with the given
//! output into its fence. If its fence knows an outcome of the step already, the service writes nothing and answers with that
//! outcome. `docs/workers.md` has the contract.

use async_nats::{HeaderMap, Message};
use bytes::Bytes;
use saga_core::{Direction, Outcome, jsonb};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use uuid::Uuid;

use crate::headers::{DIRECTION, Fence, Malformed, fence, read_fence};
use crate::messages::{VERSION, check_version};

/// The code of the answer `rejected` where the step was undone.
pub const UNDONE: &str = "undone";
/// The code of the answer `rejected` where the saga has entered the step anew since.
pub const VISIT_OVER: &str = "visit_over";

/// A step that is to be taken as done.
#[derive(Clone, Debug, PartialEq)]
pub struct Completion {
    /// The saga.
    pub saga: Uuid,
    /// The step's name in the workflow.
    pub step: String,
    /// The visit that is completed.
    pub visit: i32,
    /// The output that the step gets.
    pub output: Map<String, Value>,
}

/// The service's answer to a [`Completion`].
#[derive(Clone, Debug, PartialEq)]
pub enum Completed {
    /// The service has written `done`; a `do` that comes later is answered with it and does nothing.
    Recorded,
    /// The service has written nothing. This is the outcome that it knows.
    Ran(Outcome),
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

/// The headers and the body of a request.
pub fn request(wanted: &Completion) -> (HeaderMap, Bytes) {
    let headers = fence(wanted.saga, &wanted.step, Direction::Do, wanted.visit, 0);
    (headers, json(&RequestBody { version: VERSION, output: wanted.output.clone() }))
}

/// Reads a request, at the service.
///
/// # Errors
/// If it is not of the contract, or has an output that a database cannot keep.
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

/// The body of the service's answer.
pub fn answer(completed: Completed) -> Bytes {
    let outcome = match completed {
        Completed::Recorded => None,
        Completed::Ran(outcome) => Some(outcome),
    };
    json(&AnswerBody { version: VERSION, recorded: outcome.is_none(), outcome })
}

/// Reads the service's answer.
///
/// # Errors
/// If it is not of the contract.
pub fn read_answer(message: &Message) -> Result<Completed, Malformed> {
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{Outgoing, subjects};

    fn message(headers: HeaderMap, body: Bytes) -> Message {
        let message = async_nats::jetstream::message::PublishMessage::build().headers(headers).payload(body);
        Outgoing { subject: subjects::complete("printer"), message }.into_message()
    }

    #[test]
    fn request_comes_out_as_it_went_in() {
        let output = Map::from_iter([("badge".to_owned(), json!("B-1"))]);
        let wanted = Completion { saga: Uuid::from_u128(1), step: "print".to_owned(), visit: 2, output };
        let (headers, body) = request(&wanted);
        assert_eq!(read_request(&message(headers, body)).unwrap(), wanted);
    }

    #[test]
    fn answer_comes_out_as_it_went_in() {
        for given in [Completed::Recorded, Completed::Ran(Outcome::rejected(UNDONE))] {
            let answer = message(HeaderMap::new(), answer(given.clone()));
            assert_eq!(read_answer(&answer).unwrap(), given);
        }
        let neither = message(HeaderMap::new(), Bytes::from_static(br#"{"version":1,"recorded":false}"#));
        assert!(matches!(read_answer(&neither), Err(Malformed::Missing("outcome"))));
    }
}
