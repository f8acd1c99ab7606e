//! The headers of messages: what they are called, and how they are set and read.

#![warn(clippy::arithmetic_side_effects)] // numbers and times from outside

use async_nats::HeaderMap;
use async_nats::header::{HeaderName, IntoHeaderValue};
use saga_core::Direction;
use saga_core::jsonb::{self, NotStorable};
use uuid::Uuid;

/// The saga a message is about.
pub const SAGA: &str = "Saga";
/// The step that is done or undone.
pub const STEP: &str = "Step";
/// `do` or `undo`.
pub const DIRECTION: &str = "Direction";
/// The fence: rises whenever the saga enters the step anew.
pub const VISIT: &str = "Visit";
/// How often the command was sent before.
pub const SEND: &str = "Send";
/// RFC 3339; a `do` that is handled later is refused.
pub const DEADLINE: &str = "Deadline";
/// Saga, step, direction, visit and send: names this send of the command.
pub const MESSAGE_ID: &str = "Message-Id";

/// How many items a message of the engine to itself carries.
pub const ITEMS: &str = "Items";

/// Optional, on a reply: what the worker calls itself.
pub const WORKER: &str = "Worker";
/// The trace that the saga belongs to, as W3C Trace Context has it.
pub const TRACE: &str = "traceparent";

/// Why a message cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum Malformed {
    #[error("the header {0} is missing or not of its form")]
    Header(&'static str),
    #[error("the body is not the JSON it should be: {0}")]
    Body(#[from] serde_json::Error),
    #[error("the body lacks {0}")]
    Missing(&'static str),
    #[error("the body cannot be kept: {0}")]
    NotStorable(#[from] NotStorable),
    #[error("it carries {given} items; it may carry 1 to {most}")]
    Count { given: usize, most: usize },
    #[error("version {0} is not known")]
    Version(u32),
    #[error("it answers another command: its Message-Id is {given}, and its other headers name {own}")]
    Foreign { given: String, own: String },
}

/// Which command a message is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fence {
    /// The saga.
    pub saga: Uuid,
    /// The step's name in the workflow.
    pub step: String,
    /// Whether the step is done or undone.
    pub direction: Direction,
    /// How often the saga has entered the step, this time included; 1 or more.
    pub visit: i32,
    /// How often the command was sent before in this visit; 0 where the header is missing.
    pub send: i32,
}

/// The headers [`SAGA`], [`STEP`], [`DIRECTION`], [`VISIT`] and [`SEND`].
pub fn fence(saga: Uuid, step: &str, direction: Direction, visit: i32, send: i32) -> HeaderMap {
    let mut headers = HeaderMap::new();
    set(&mut headers, SAGA, saga.to_string());
    set(&mut headers, STEP, step);
    set(&mut headers, DIRECTION, direction.name());
    set(&mut headers, VISIT, visit.to_string());
    set(&mut headers, SEND, send.to_string());
    headers
}

/// Reads what [`fence`] wrote.
///
/// # Errors
/// If a header is missing or not of its form, or if a database cannot keep the step's name.
pub fn read_fence(message: &async_nats::Message) -> Result<Fence, Malformed> {
    let direction = match header(message, DIRECTION) {
        Some("do") => Direction::Do,
        Some("undo") => Direction::Undo,
        _ => return Err(Malformed::Header(DIRECTION)),
    };
    let step: String = parsed(message, STEP)?;
    jsonb::check_text(&step).map_err(|_| Malformed::Header(STEP))?;
    Ok(Fence {
        saga: parsed(message, SAGA)?,
        step,
        direction,
        visit: parsed(message, VISIT)?,
        send: if header(message, SEND).is_some() { parsed(message, SEND)? } else { 0 },
    })
}

/// Sets a header. Names that are known when the program is compiled are neither copied nor looked through.
pub fn set(headers: &mut HeaderMap, name: &'static str, value: impl IntoHeaderValue) {
    headers.insert(HeaderName::from_static(name), value);
}

/// The value of a header, if the message has it.
pub fn header<'a>(message: &'a async_nats::Message, name: &'static str) -> Option<&'a str> {
    let headers = message.headers.as_ref()?;
    headers.get(HeaderName::from_static(name)).map(async_nats::HeaderValue::as_str)
}

/// How many items a message carries: 1 unless [`ITEMS`] gives another number.
pub fn items(message: &async_nats::Message) -> usize {
    header(message, ITEMS).and_then(|count| count.parse().ok()).unwrap_or(1)
}

/// The value of a header that must be there, parsed.
///
/// # Errors
/// If the header is missing or cannot be parsed.
pub fn parsed<T: std::str::FromStr>(
    message: &async_nats::Message,
    name: &'static str,
) -> Result<T, Malformed> {
    header(message, name).and_then(|value| value.parse().ok()).ok_or(Malformed::Header(name))
}
