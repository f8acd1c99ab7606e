//! Commands, replies, signals and alarms as they travel: headers, and JSON with a version.
//!
//! This is a published contract; `docs/workers.md` describes it for other languages.

#![warn(clippy::arithmetic_side_effects)] // numbers and times from outside

use std::borrow::Cow;
use std::sync::Arc;

use async_nats::HeaderMap;
use async_nats::header::{NATS_MESSAGE_ID, NATS_SCHEDULE, NATS_SCHEDULE_TARGET};
use async_nats::jetstream::message::PublishMessage;
use chrono::{DateTime, SecondsFormat, Utc};
use saga_core::size::{OUTPUT_BYTES_MAX, json_bytes, truncate_reason};
use saga_core::{Command, Direction, Outcome, Reply, Status, jsonb, message_id, range};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use crate::headers::{
    DEADLINE, Fence, MESSAGE_ID, Malformed, SAGA, TRACE, WORKER, fence, header, parsed, read_fence, set,
};
use crate::spans::trace_of;
use crate::trace::traceparent;
use crate::{Outgoing, subjects};

/// The version of every body here, in [`crate::command_batch`] and in [`crate::fences`].
pub const VERSION: u32 = 1;

/// The step of every command by which `boxoffice worker test` tests a worker. No step of a workflow can have this name, so a reply
/// about it belongs to no saga.
pub const WORKER_TEST_STEP: &str = "worker-test";

/// More of a worker's name is not kept.
const WORKER_CHARS_MAX: usize = 100;

#[derive(Serialize, Deserialize)]
struct CommandBody<'a> {
    version: u32,
    workflow: Cow<'a, str>,
    #[serde(default)]
    reason: Option<Cow<'a, str>>,
    context: Arc<Value>,
}

#[derive(Serialize, Deserialize)]
struct ReplyBody<'a> {
    version: u32,
    #[serde(flatten)]
    outcome: Cow<'a, Outcome>,
}

#[derive(Serialize, Deserialize)]
struct AlarmBody<'a> {
    version: u32,
    sagas: Cow<'a, [Uuid]>,
}

#[derive(Serialize, Deserialize)]
struct SignalBody {
    version: u32,
    signal: String,
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    payload: Map<String, Value>,
}

/// A saga that is to be started. Its id, which the sender chooses, is in the header `Saga`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StartBody {
    /// The version of this body.
    pub version: u32,
    /// The workflow, of which the newest version begins.
    pub workflow: String,
    /// What the saga is about; without one it is about itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject_id: Option<Uuid>,
    /// What the first command carries.
    pub input: Map<String, Value>,
    /// Strings and integers that the saga is found by.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub attributes: Map<String, Value>,
}

/// Notice on core NATS that these sagas came to rest.
#[derive(Debug, Serialize, Deserialize)]
pub struct Settled {
    /// The sagas, in no order.
    pub sagas: Vec<Uuid>,
}

/// A recorded transition of a saga. A notice on core NATS is an array of them: those of one workflow in one commit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transition {
    /// The version of this body.
    pub version: u32,
    /// The saga.
    pub saga_id: Uuid,
    /// The name of its workflow.
    pub workflow: String,
    /// The number of its row in the saga's history.
    pub seq: i64,
    /// When it happened, by the clock of the engine's database.
    pub at: DateTime<Utc>,
    /// What happened, as the history calls it.
    pub event: String,
    /// Where the saga was when it happened.
    pub step: String,
    /// Whether the step was done or undone.
    pub direction: Direction,
    /// The step's visit when it happened.
    pub visit: i32,
    /// The attempt of that visit.
    pub attempt: i32,
    /// The saga's status after it.
    pub status: Status,
    /// The saga's reason after it.
    pub reason: Option<String>,
}

impl Transition {
    /// The notice of a transition; none if the history has no row for it.
    pub fn of(transition: &saga_core::Transition) -> Option<Self> {
        let (saga, entry) = (&transition.saga, transition.entry.as_ref()?);
        Some(Self {
            version: VERSION,
            saga_id: saga.id,
            workflow: saga.workflow.clone(),
            seq: saga.seq,
            at: saga.updated_at,
            event: entry.event.clone(),
            step: entry.step.clone(),
            direction: entry.direction,
            visit: entry.visit,
            attempt: entry.attempt,
            status: saga.status,
            reason: saga.reason.clone(),
        })
    }
}

/// A step command on its way to a worker.
pub fn command(command: &Command) -> Outgoing {
    let mut headers = fence(command.saga_id, &command.step, command.direction, command.visit, command.send);
    let id = command.message_id();
    if let Some(deadline) = command.deadline {
        set(&mut headers, DEADLINE, rfc3339(deadline));
    }
    if command.send > 0 {
        // Only what is sent again needs the broker's memory: the fence is what counts.
        headers.insert(NATS_MESSAGE_ID, id.as_str());
    }
    set(&mut headers, TRACE, traceparent(command.trace, &id));
    set(&mut headers, MESSAGE_ID, id);
    let body = CommandBody {
        version: VERSION,
        workflow: Cow::Borrowed(&command.workflow),
        reason: command.reason.as_deref().map(Cow::Borrowed),
        context: Arc::clone(&command.context),
    };
    outgoing(subjects::step(&command.subject), headers, &body)
}

/// Reads a step command.
///
/// # Errors
/// If it is not of the contract, or has a reason that a database cannot keep.
pub fn read_command(message: &async_nats::Message) -> Result<Command, Malformed> {
    let fence = read_fence(message)?;
    let body: CommandBody = serde_json::from_slice(&message.payload)?;
    check_version(body.version)?;
    // The context is only read. The reason may be written down with what the command undoes.
    jsonb::check_text(body.reason.as_deref().unwrap_or_default()).map_err(|error| error.within("reason"))?;
    let deadline =
        header(message, DEADLINE).map(|_| parsed::<DateTime<Utc>>(message, DEADLINE)).transpose()?;
    if deadline.is_some_and(|deadline| !range::is_plausible(deadline)) {
        return Err(Malformed::Header(DEADLINE));
    }
    Ok(Command {
        saga_id: fence.saga,
        workflow: body.workflow.into_owned(),
        subject: subjects::command(&message.subject).to_owned(),
        step: fence.step,
        direction: fence.direction,
        visit: fence.visit,
        send: fence.send,
        deadline,
        reason: body.reason.map(Cow::into_owned),
        context: body.context,
        trace: header(message, TRACE).and_then(trace_of).unwrap_or(fence.saga),
    })
}

/// A worker's answer on its way to the engine. `worker` is what the worker's process calls itself.
pub fn reply(command: &Command, outcome: &Outcome, worker: &str) -> Outgoing {
    let mut headers = fence(command.saga_id, &command.step, command.direction, command.visit, command.send);
    let id = command.message_id();
    set(&mut headers, TRACE, traceparent(command.trace, &id));
    set(&mut headers, MESSAGE_ID, id);
    set(&mut headers, WORKER, worker);
    outgoing(
        subjects::reply(subjects::service_of(&command.subject)),
        headers,
        &ReplyBody { version: VERSION, outcome: Cow::Borrowed(outcome) },
    )
}

/// Reads a worker's answer: the saga and the reply.
///
/// # Errors
/// If it is not of the contract, has something in it that a database cannot keep, or names one command by its `Message-Id`
/// and another by its other headers.
pub fn read_reply(message: &async_nats::Message) -> Result<(Uuid, Reply), Malformed> {
    let Fence { saga, step, direction, visit, send } = read_fence(message)?;
    let own = message_id(saga, &step, direction, visit, send);
    if let Some(given) = header(message, MESSAGE_ID).filter(|given| *given != own) {
        return Err(Malformed::Foreign { given: given.to_owned(), own });
    }
    let body: ReplyBody = serde_json::from_slice(&message.payload)?;
    check_version(body.version)?;
    body.outcome.check()?;
    let kept = |name: &str| name.chars().filter(|letter| *letter != '\0').take(WORKER_CHARS_MAX).collect();
    let worker = header(message, WORKER).map(kept);
    let outcome = bounded(body.outcome.into_owned());
    let service = subjects::replying_service(&message.subject).map(str::to_owned);
    Ok((saga, Reply { step, direction, visit, send, outcome, worker, service }))
}

/// An outcome whose texts have their bounds. The size of an output is checked together with the saga.
fn bounded(outcome: Outcome) -> Outcome {
    match outcome {
        Outcome::Rejected { code, detail } => {
            let bytes = json_bytes(&detail);
            let detail = if bytes > OUTPUT_BYTES_MAX {
                json!({ "omitted": format!("{bytes} bytes; at most {OUTPUT_BYTES_MAX} are kept") })
            } else {
                detail
            };
            Outcome::Rejected { code: truncate_reason(&code), detail }
        }
        Outcome::Failed { code } => Outcome::Failed { code: truncate_reason(&code) },
        Outcome::Unknown { reason } => Outcome::Unknown { reason: truncate_reason(&reason) },
        Outcome::Done { .. } => outcome,
    }
}

/// A signal to a saga, on its way to the engine. The payload joins the saga's context.
pub fn signal(saga: Uuid, name: &str, payload: &Map<String, Value>) -> Outgoing {
    let mut headers = HeaderMap::new();
    set(&mut headers, SAGA, saga.to_string());
    let body = SignalBody { version: VERSION, signal: name.to_owned(), payload: payload.clone() };
    outgoing(subjects::SIGNALS.to_owned(), headers, &body)
}

/// Reads a signal: the saga, the signal's name, and its payload.
///
/// # Errors
/// If it is not of the contract, or has something in it that a database cannot keep.
pub fn read_signal(message: &async_nats::Message) -> Result<(Uuid, String, Map<String, Value>), Malformed> {
    let body: SignalBody = serde_json::from_slice(&message.payload)?;
    check_version(body.version)?;
    jsonb::check_text(&body.signal).map_err(|error| error.within("signal"))?;
    jsonb::check_object(&body.payload).map_err(|error| error.within("payload"))?;
    Ok((parsed(message, SAGA)?, body.signal, body.payload))
}

/// Asks for a saga to be started under this id.
pub fn start(saga: Uuid, body: &StartBody) -> Outgoing {
    let mut headers = HeaderMap::new();
    set(&mut headers, SAGA, saga.to_string());
    outgoing(subjects::STARTS.to_owned(), headers, body)
}

/// Reads a start: the id, what is to be started, and its trace.
///
/// # Errors
/// If it is not of the contract.
pub fn read_start(message: &async_nats::Message) -> Result<(Uuid, StartBody, Option<Uuid>), Malformed> {
    let body: StartBody = serde_json::from_slice(&message.payload)?;
    check_version(body.version)?;
    jsonb::check_text(&body.workflow).map_err(|error| error.within("workflow"))?;
    Ok((parsed(message, SAGA)?, body, header(message, TRACE).and_then(trace_of)))
}

/// An alarm for several sagas, which the server keeps until `at`. The saga's row decides what happens then. `id` must be new: an
/// alarm with the same id takes the place of this one.
pub fn alarm(id: Uuid, sagas: &[Uuid], at: DateTime<Utc>) -> Outgoing {
    let mut headers = HeaderMap::new();
    headers.insert(NATS_SCHEDULE, format!("@at {}", rfc3339(at)));
    headers.insert(NATS_SCHEDULE_TARGET, subjects::timer_due(id));
    outgoing(subjects::timer_schedule(id), headers, &AlarmBody { version: VERSION, sagas: sagas.into() })
}

/// An alarm of one saga that rings at once.
pub fn rung_alarm(saga: Uuid) -> Outgoing {
    let body = AlarmBody { version: VERSION, sagas: Cow::Owned(vec![saga]) };
    outgoing(subjects::timer_due(saga), HeaderMap::new(), &body)
}

/// Reads an alarm that rang: its sagas.
///
/// # Errors
/// If it is not of the contract.
pub fn read_alarm(message: &async_nats::Message) -> Result<Vec<Uuid>, Malformed> {
    let body: AlarmBody = serde_json::from_slice(&message.payload)?;
    check_version(body.version)?;
    Ok(body.sagas.into_owned())
}

/// Checks the version of a body.
///
/// # Errors
/// If it is not [`VERSION`].
pub fn check_version(version: u32) -> Result<(), Malformed> {
    if version == VERSION { Ok(()) } else { Err(Malformed::Version(version)) }
}

fn rfc3339(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::Micros, true)
}

fn outgoing(subject: String, headers: HeaderMap, body: &impl Serialize) -> Outgoing {
    let payload = serde_json::to_vec(body).expect("bodies have string keys and no failing parts");
    Outgoing { subject, message: PublishMessage::build().headers(headers).payload(payload.into()) }
}

#[cfg(test)]
#[allow(clippy::arithmetic_side_effects)]
mod tests {
    use super::*;
    use crate::headers::{DIRECTION, SEND, STEP, VISIT};

    /// The JSON of the page that others are written from, each reply and command by its own type.
    #[test]
    fn worker_page_shows_real_messages() {
        let page = include_str!("../../../docs/workers.md");
        for name in [SAGA, STEP, DIRECTION, VISIT, SEND, DEADLINE, MESSAGE_ID, TRACE] {
            assert!(page.contains(&format!("| `{name}` |")), "{name}");
        }
        assert!(
            page.contains(&format!("`{}`", subjects::reply("<service>")))
                && page.contains(&format!("`{}`", subjects::REPLIES))
                && page.contains(&format!("`{}`", subjects::SIGNALS))
                && page.contains(&format!("`{}`", subjects::STARTS))
        );
        let mut outcomes = Vec::new();
        for block in page.split("```json\n").skip(1) {
            let text = block.split("```").next().unwrap();
            let shown: Value = serde_json::from_str(text).unwrap();
            let by_hand =
                shown["recorded"].is_boolean() || shown.get("workflow").or(shown.get("outcome")).is_none();
            if by_hand && !shown["signal"].is_string() {
                continue;
            }
            let read = if shown["outcome"].is_string() {
                let reply: ReplyBody = serde_json::from_str(text).unwrap();
                outcomes.push(shown["outcome"].clone());
                serde_json::to_value(reply)
            } else if shown["signal"].is_string() {
                serde_json::to_value(serde_json::from_str::<SignalBody>(text).unwrap())
            } else if shown["input"].is_object() {
                serde_json::to_value(serde_json::from_str::<StartBody>(text).unwrap())
            } else {
                serde_json::to_value(serde_json::from_str::<CommandBody>(text).unwrap())
            };
            assert_eq!(read.unwrap(), shown, "nothing is lost and nothing is missing");
            assert!(check_version(u32::try_from(shown["version"].as_u64().unwrap()).unwrap()).is_ok());
        }
        assert_eq!(outcomes, ["done", "rejected", "failed", "unknown"]);
    }
}
