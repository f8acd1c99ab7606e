//! What comes from outside as bytes: extreme, mutated or random input is read or refused, and what was read can be worked with.

use async_nats::{HeaderMap, Message, Subject};
use boxoffice::bus::events::{event_batches, read_events};
use boxoffice::bus::{command_batch, messages};
use boxoffice::clock::{EARLIEST, LATEST};
use boxoffice::saga::{
    Decision, Definition, Event, NewSaga, OperatorAction, Outcome, Reply, Saga, apply, start,
};
use bytes::Bytes;
use chrono::{DateTime, TimeDelta, Utc};
use proptest::prelude::*;
use serde_json::{Map, Value, json};
use uuid::Uuid;

const BOOKING: &str = include_str!("../workflows/booking.toml");

fn message(headers: &[(&str, String)], payload: &[u8]) -> Message {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        // A header cannot hold a line break; the server would refuse it.
        map.insert(*name, value.replace(['\r', '\n'], " ").as_str());
    }
    Message {
        subject: Subject::from("steps.seats.hold"),
        reply: None,
        payload: Bytes::copy_from_slice(payload),
        headers: Some(map),
        status: None,
        description: None,
        length: payload.len(),
    }
}

fn time() -> impl Strategy<Value = String> {
    prop::sample::select(vec![
        "+262142-12-31T23:59:59.999999999Z",
        "-262143-01-01T00:00:00Z",
        "9999-12-31T23:59:59Z",
        "2262-04-12T00:00:00Z",
        "2026-01-01T00:00:00Z",
        "0000-01-01T00:00:00Z",
        "noon",
    ])
    .prop_map(str::to_owned)
}

fn number() -> impl Strategy<Value = String> {
    prop::sample::select(vec!["0", "1", "-1", "2147483647", "-2147483648", "18446744073709551615", "1e9", ""])
        .prop_map(str::to_owned)
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        time().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        Just(Value::Null),
        Just(json!({"a\u{0}": "\u{0}"})),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| prop::collection::vec(inner, 0..4).prop_map(Value::from))
}

/// Reads a message as everything that it might be.
fn read_all(message: &Message) {
    if let Ok(command) = messages::read_command(message) {
        assert!(command.deadline.is_none_or(|deadline| (EARLIEST..=LATEST).contains(&deadline)));
        let _ = messages::command(&command);
        let _ = messages::reply(&command, &Outcome::rejected("no"));
    }
    let _ = messages::read_reply(message);
    let _ = messages::read_signal(message);
    let _ = messages::read_alarm(message);
    let _ = read_events(&message.payload).map(|events| event_batches(&events));
    let _ = command_batch::read(message).map(|commands| command_batch::message(&commands));
}

/// Leads a saga of this definition through a few dozen events.
fn lead(definition: &Definition, context: &Map<String, Value>, events: &[u8]) {
    let mut now = DateTime::<Utc>::from_timestamp(1_900_000_000, 0).unwrap();
    let new = NewSaga {
        id: Uuid::from_u128(1),
        subject_id: Uuid::from_u128(1),
        seq: 0,
        trace: None,
        input: context.clone(),
    };
    let mut saga: Saga = start(definition, new, now).saga;
    for event in events {
        let reply = |outcome| {
            let (step, direction) = (saga.step.clone(), saga.direction);
            let (visit, send) = (saga.visit, saga.send);
            Event::Reply(Reply { step, direction, visit, send, outcome, worker: None, service: None })
        };
        let event = match event % 8 {
            0 => reply(Outcome::Done { output: context.clone() }),
            1 => reply(Outcome::rejected("no")),
            2 => reply(Outcome::Failed { code: "busy".to_owned() }),
            3 => reply(Outcome::Unknown { reason: "?".to_owned() }),
            4 => Event::signal("pay"),
            5 => Event::Operator(OperatorAction::Retry),
            6 => Event::TimerFired,
            _ => {
                now = saga.due_at.unwrap_or(now).max(now) + TimeDelta::milliseconds(1);
                if now > LATEST {
                    return;
                }
                Event::TimerFired
            }
        };
        if let Decision::Transition(next) = apply(definition, &saga, &event, now) {
            saga = next.saga;
        }
    }
}

proptest! {
    #[test]
    fn messages_are_read_or_refused(
        (saga, step) in (any::<u128>(), "[a-z]{0,6}"),
        (visit, send, deadline) in (number(), number(), time()),
        direction in prop::sample::select(vec!["do", "undo", "sideways"]),
        body in prop_oneof![
            value(),
            (value(), number()).prop_map(|(context, version)| json!({
                "version": version.parse::<i64>().unwrap_or(1), "workflow": "booking", "context": context,
                "outcome": "done", "output": {"expires_at": context}, "signal": "pay", "reason": null,
            })),
        ],
        cut in any::<prop::sample::Index>(),
        noise in prop::collection::vec(any::<u8>(), 0..64),
    ) {
        let headers = [
            ("Saga", Uuid::from_u128(saga).to_string()),
            ("Step", step),
            ("Direction", direction.to_owned()),
            ("Visit", visit),
            ("Send", send),
            ("Deadline", deadline),
        ];
        let body = body.to_string().into_bytes();
        let half = cut.index(body.len() + 1);
        for payload in [&body[..], &body[..half], &noise[..]] {
            read_all(&message(&headers, payload));
            read_all(&message(&[], payload));
        }
    }

    #[test]
    fn workflows_parse_or_are_refused(
        line in any::<prop::sample::Index>(),
        with in prop::sample::select(vec![
            "timeout_ms = 18446744073709551615", "timeout_ms = 9223372036854775807", "timeout_ms = 0",
            "timeout_ms = 315360000000", "deadline = { seconds = 4294967295, reason = \"late\" }",
            "deadline = { seconds = 316000000, reason = \"late\" }",
            "deadline = { at = \"expires_at\", reason = \"late\" }",
            "retry = { first_ms = 9223372036854775807, cap_ms = 9223372036854775807, attempts = 2147483647 }",
            "retry = { first_ms = 315000000000, cap_ms = 315000000000, factor = 10.0, total_seconds = 4294967295 }",
            "retry = { attempts = 2147483647, factor = nan, jitter = inf }",
            "version = -9223372036854775808", "x = 1e999", "", "]]", "\u{0}",
        ]),
        replace in any::<bool>(),
        until in time(),
        events in prop::collection::vec(any::<u8>(), 0..40),
    ) {
        let mut lines: Vec<&str> = BOOKING.lines().collect();
        let at = line.index(lines.len());
        if replace {
            lines[at] = with;
        } else {
            lines.insert(at, with);
        }
        if let Ok(definition) = Definition::parse("mutated", &lines.join("\n")) {
            let context = json!({"expires_at": until, "amount": i64::MAX});
            lead(&definition, context.as_object().unwrap(), &events);
        }
    }
}

#[test]
fn endless_workflows_and_delays_are_refused() {
    let refused = |with: &str, why: &str| {
        let text = format!("name = \"x\"\nversion = 1\n{with}");
        let error = Definition::parse("x", &text).unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
    };
    let step = |with: &str| format!("[[steps]]\nname = \"a\"\ncommand = \"a.b\"\nundo = \"a.c\"\n{with}\n");
    refused(&step("timeout_ms = 9000000000000000000"), "timeout_ms");
    refused(&step("deadline = { seconds = 4000000000, reason = \"late\" }"), "ten years");
    refused(&step("retry = { first_ms = 1, cap_ms = 9000000000000000000, attempts = 1 }"), "ten years");
    let many: String =
        (0..65).map(|number| format!("[[steps]]\nname = \"s{number}\"\nwait = \"go\"\n")).collect();
    refused(&many, "64");
}
