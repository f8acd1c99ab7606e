//! Domain events as they travel: version 2 of the contract, which `docs/events.md` describes. A message carries several
//! events of one name.

use std::collections::HashMap;
use std::sync::Arc;

use async_nats::jetstream::message::PublishMessage;
use bytes::Bytes;
use chrono::{DateTime, Utc};
use saga_core::range;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use crate::trace::traceparent;
use crate::{Malformed, Outgoing, subjects};

/// The version of the body.
const VERSION: u32 = 2;
/// Most events of one message.
const EVENTS_MAX: usize = 256;
/// A message takes no further event that would make its body longer than this. One longer event travels alone.
const BODY_BYTES_MAX: usize = 512 * 1_024;

/// A domain event for other systems.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EventMessage {
    /// Stable: the same event always has the same id, however often it is published.
    pub id: String,
    /// Its name, such as `order.confirmed`; the last part of its subject.
    #[serde(rename = "type")]
    pub name: String,
    /// When it happened, by the clock of the engine's database.
    #[serde(deserialize_with = "range::deserialize")]
    pub at: DateTime<Utc>,
    /// What it is about: an id that the workflow's domain gives.
    pub subject_id: Uuid,
    /// Rises with every event about the same subject.
    pub sequence: i64,
    /// Its place in a trace, as W3C Trace Context has it.
    pub traceparent: String,
    /// What the domain says about it.
    pub data: Arc<Value>,
}

#[derive(Deserialize)]
struct Body {
    version: u32,
    events: Vec<EventMessage>,
}

/// A message with events of one name.
#[derive(Clone, Debug)]
pub struct EventBatch {
    /// The ids of its events.
    pub ids: Vec<String>,
    name: String,
    body: Bytes,
}

/// A message that takes further events.
struct Open {
    ids: Vec<String>,
    name: String,
    body: Vec<u8>,
}

impl EventMessage {
    /// An event that belongs to this trace.
    pub fn new(
        id: String,
        name: &str,
        at: DateTime<Utc>,
        (subject_id, sequence): (Uuid, i64),
        trace: Uuid,
        data: impl Into<Arc<Value>>,
    ) -> Self {
        let traceparent = traceparent(trace, &id);
        Self { id, name: name.to_owned(), at, subject_id, sequence, traceparent, data: data.into() }
    }
}

impl Open {
    fn new(name: &str) -> Self {
        let body = format!("{{\"version\":{VERSION},\"events\":[").into_bytes();
        Self { ids: Vec::new(), name: name.to_owned(), body }
    }

    fn takes(&self, bytes: usize) -> bool {
        self.ids.len() < EVENTS_MAX && self.body.len().saturating_add(bytes) < BODY_BYTES_MAX
    }

    fn add(&mut self, id: &str, event: &[u8]) {
        if !self.ids.is_empty() {
            self.body.push(b',');
        }
        self.ids.push(id.to_owned());
        self.body.extend_from_slice(event);
    }

    fn close(mut self) -> EventBatch {
        self.body.extend_from_slice(b"]}");
        EventBatch { ids: self.ids, name: self.name, body: self.body.into() }
    }
}

impl EventBatch {
    /// The message, on the subject of its events.
    pub fn outgoing(&self) -> Outgoing {
        Outgoing {
            subject: subjects::event(&self.name),
            message: PublishMessage::build().payload(self.body.clone()),
        }
    }
}

/// Puts events of one name together. The events of a subject stay in their order: one never travels in a message before that
/// of an earlier one.
pub fn event_batches(events: &[EventMessage]) -> Vec<EventBatch> {
    let mut batches: Vec<Open> = Vec::new();
    let mut newest: HashMap<&str, usize> = HashMap::new();
    let mut last: HashMap<Uuid, usize> = HashMap::new();
    for event in events {
        let json = serde_json::to_vec(event).expect("an event has string keys and no failing parts");
        let earliest = last.get(&event.subject_id).copied().unwrap_or(0);
        let open = newest.get(event.name.as_str()).copied();
        let at = open.filter(|at| *at >= earliest && batches[*at].takes(json.len())).unwrap_or_else(|| {
            batches.push(Open::new(&event.name));
            batches.len() - 1
        });
        batches[at].add(&event.id, &json);
        newest.insert(&event.name, at);
        last.insert(event.subject_id, at);
    }
    batches.into_iter().map(Open::close).collect()
}

/// Reads the events of a message.
///
/// # Errors
/// If the body is not of version 2 of the contract.
pub fn read_events(payload: &[u8]) -> Result<Vec<EventMessage>, Malformed> {
    let body: Body = serde_json::from_slice(payload)?;
    if body.version == VERSION { Ok(body.events) } else { Err(Malformed::Version(body.version)) }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn event(subject: u128, sequence: i64, name: &str, data: Value) -> EventMessage {
        let subject = Uuid::from_u128(subject);
        let id = format!("{subject}:{sequence}:{name}");
        EventMessage::new(id, name, range::EARLIEST, (subject, sequence), subject, data)
    }

    fn read(batches: &[EventBatch]) -> Vec<Vec<EventMessage>> {
        batches.iter().map(|batch| read_events(&batch.body).unwrap()).collect()
    }

    #[test]
    fn events_are_grouped_and_stay_in_order() {
        let events = [
            event(1, 1, "reserved", json!({})),
            event(2, 1, "reserved", json!({})),
            event(1, 3, "paid", json!({})),
            event(1, 3, "entry", json!({})),
            event(1, 4, "confirmed", json!({})),
            event(1, 7, "entry", json!({})),
            event(2, 3, "entry", json!({})),
        ];
        let batches = event_batches(&events);
        let names: Vec<(&str, usize)> =
            batches.iter().map(|batch| (batch.name.as_str(), batch.ids.len())).collect();
        assert_eq!(names, [("reserved", 2), ("paid", 1), ("entry", 1), ("confirmed", 1), ("entry", 2)]);
        let all: Vec<EventMessage> = read(&batches).concat();
        assert_eq!(all.len(), events.len());
        assert!(events.iter().all(|event| all.contains(event)));
        for subject in [1, 2].map(Uuid::from_u128) {
            let own = all.iter().filter(|event| event.subject_id == subject);
            assert!(own.map(|event| event.sequence).is_sorted());
        }
    }

    #[test]
    fn messages_are_bounded_in_events_and_in_bytes() {
        let many: Vec<EventMessage> =
            (0..600).map(|number| event(number, 1, "reserved", json!({}))).collect();
        let counts: Vec<usize> = event_batches(&many).iter().map(|batch| batch.ids.len()).collect();
        assert_eq!(counts, [256, 256, 88]);
        let long = json!({ "text": "x".repeat(200 * 1_024) });
        let large: Vec<EventMessage> =
            (0..5).map(|number| event(number, 1, "reserved", long.clone())).collect();
        let batches = event_batches(&large);
        assert!(batches.iter().all(|batch| batch.body.len() <= BODY_BYTES_MAX));
        assert_eq!(batches.iter().map(|batch| batch.ids.len()).collect::<Vec<_>>(), [2, 2, 1]);
        assert_eq!(read(&batches).concat(), large);
    }

    #[test]
    fn version_1_is_refused() {
        assert!(matches!(read_events(br#"{"version":1,"events":[]}"#), Err(Malformed::Version(1))));
    }
}
