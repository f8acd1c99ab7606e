//! The AsyncAPI document, held to the code: names and subjects, and real messages against its schemas.

use std::collections::{BTreeMap, BTreeSet};

use boxoffice::bus::events::EventMessage;
use boxoffice::bus::fences::{self, Completed, Completion};
use boxoffice::bus::{headers, messages, publish, subjects};
use boxoffice::ids;
use boxoffice::saga::{Command, Direction, Outcome};
use futures::StreamExt;
use serde_json::{Map, Value, json};

use crate::common::app::until;
use crate::common::http::{Caller, Entrance};

fn document() -> Value {
    serde_json::from_str(include_str!("../docs/asyncapi.json")).unwrap()
}

/// A schema of the document, with all that it refers to.
fn validator(schema: &Value) -> jsonschema::Validator {
    let mut whole = document();
    whole["allOf"] = json!([schema]);
    let draft = jsonschema::Draft::Draft202012;
    jsonschema::options().with_draft(draft).should_validate_formats(true).build(&whole).unwrap()
}

fn component(name: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{name}") })
}

#[track_caller]
fn assert_fits(schema: &Value, shown: &Value) {
    let faults: Vec<String> = validator(schema)
        .iter_errors(shown)
        .map(|error| format!("{error} at {}", error.instance_path()))
        .collect();
    assert!(faults.is_empty(), "{faults:#?}\n{shown:#}");
}

/// The messages that the document has for a subject, by name.
fn described(subject: &str) -> Map<String, Value> {
    let document = document();
    let fits = |address: &str| {
        let filter: Vec<&str> =
            address.split('.').map(|part| if part.starts_with('{') { "*" } else { part }).collect();
        let whole = filter.join(".").replace("steps.*", "steps.>").replace("events.*", "events.>");
        subjects::covers(&whole, subject)
    };
    let channels = document["channels"].as_object().unwrap();
    let found = channels.values().find(|channel| channel["address"].as_str().is_some_and(fits));
    let found = found.unwrap_or_else(|| panic!("no channel has the address of {subject}"));
    let named = found["messages"].as_object().unwrap();
    named.keys().map(|name| (name.clone(), document["components"]["messages"][name].clone())).collect()
}

#[test]
fn document_names_all_subjects_headers_events() {
    let document = document();
    assert_eq!(document["asyncapi"], "3.0.0");
    let addresses: BTreeSet<&str> = document["channels"]
        .as_object()
        .unwrap()
        .values()
        .filter_map(|channel| channel["address"].as_str())
        .collect();
    let (step, event, fence) =
        (subjects::step("{command}"), subjects::event("{event}"), subjects::complete("{service}"));
    let reply = subjects::reply("{service}");
    let known = [&*step, &*event, &*fence, &*reply, subjects::REPLIES, subjects::SIGNALS, subjects::STARTS];
    assert_eq!(addresses, BTreeSet::from(known));
    let names = |schema: &str| {
        let headers = &document["components"]["schemas"][schema]["properties"];
        headers.as_object().unwrap().keys().cloned().collect::<BTreeSet<_>>()
    };
    let fence = [headers::SAGA, headers::STEP, headers::DIRECTION, headers::VISIT, headers::SEND];
    let set =
        |more: &[&str]| fence.iter().chain(more).map(|name| (*name).to_owned()).collect::<BTreeSet<_>>();
    let (id, trace) = (headers::MESSAGE_ID, headers::TRACE);
    assert_eq!(names("CommandHeaders"), set(&[headers::DEADLINE, id, trace, "Nats-Msg-Id"]));
    assert_eq!(names("ReplyHeaders"), set(&[id, trace, headers::WORKER]));
    let rows = include_str!("../docs/events.md")
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split('`').next());
    let told: BTreeSet<&str> = rows.filter(|name| name.contains('.')).collect();
    let listed = document["channels"]["events"]["parameters"]["event"]["enum"].as_array().unwrap();
    assert_eq!(listed.iter().map(|name| name.as_str().unwrap()).collect::<BTreeSet<_>>(), told);
}

/// Every reference in the document, with what it leads to.
fn references(at: &Value, into: &mut Vec<String>) {
    match at {
        Value::Object(fields) => {
            into.extend(fields.get("$ref").and_then(Value::as_str).map(str::to_owned));
            fields.values().for_each(|field| references(field, into));
        }
        Value::Array(items) => items.iter().for_each(|item| references(item, into)),
        _ => {}
    }
}

#[test]
fn references_resolve_and_schemas_are_valid() {
    let document = document();
    let mut found = Vec::new();
    references(&document, &mut found);
    assert!(found.len() > 40);
    for reference in found {
        assert!(document.pointer(reference.trim_start_matches('#')).is_some(), "{reference}");
    }
    for name in document["components"]["schemas"].as_object().unwrap().keys() {
        validator(&component(name));
    }
}

#[test]
fn examples_of_pages_match_the_schema() {
    for block in include_str!("../docs/workers.md").split("```json\n").skip(1) {
        let shown: Value = serde_json::from_str(block.split("```").next().unwrap()).unwrap();
        let has = |field: &str| shown.get(field).is_some();
        let schema = match () {
            () if has("recorded") => "CompletionAnswer",
            () if has("outcome") => "Reply",
            () if has("signal") => "Signal",
            () if has("input") => "Start",
            () if has("workflow") => "Command",
            () => "CompletionRequest",
        };
        assert_fits(&component(schema), &shown);
    }
    for block in include_str!("../docs/events.md").split("```json\n").skip(1) {
        let shown: Value = serde_json::from_str(block.split("```").next().unwrap()).unwrap();
        let name = shown["events"][0]["type"].as_str().unwrap();
        assert_fits(&document()["components"]["messages"][name]["payload"], &shown);
    }
    let reply = validator(&component("Reply"));
    for wrong in [
        json!({ "version": 2, "outcome": "done" }),
        json!({ "version": 1, "outcome": "perhaps" }),
        json!({ "version": 1, "outcome": "rejected" }),
        json!({ "outcome": "done" }),
    ] {
        assert!(!reply.is_valid(&wrong), "{wrong}");
    }
    let headers = validator(&component("ReplyHeaders"));
    let good = json!({ "Saga": ids::new(), "Step": "print", "Direction": "do", "Visit": "1" });
    assert!(headers.is_valid(&good));
    for (name, value) in
        [("Saga", "x"), ("Direction", "undone"), ("Visit", "one"), ("Visit", "0"), ("Message-Id", "1")]
    {
        let mut wrong = good.clone();
        wrong[name] = json!(value);
        assert!(!headers.is_valid(&wrong), "{name}: {value}");
    }
}

/// Whether an event is as it is described.
pub fn assert_event_fits(event: &EventMessage) {
    let about = &document()["components"]["messages"][&event.name];
    assert_fits(&about["payload"], &json!({ "version": 2, "events": [event] }));
}

fn command() -> Command {
    Command {
        saga_id: ids::new(),
        workflow: "party".to_owned(),
        subject: "printer.print".to_owned(),
        step: "print".to_owned(),
        direction: Direction::Do,
        visit: 2,
        send: 3,
        deadline: Some(chrono::Utc::now()),
        reason: None,
        context: json!({}).into(),
        trace: ids::new(),
    }
}

/// A message as it came by, as JSON.
fn seen(message: &async_nats::Message) -> (Value, Value) {
    let headers = message.headers.iter().flat_map(async_nats::HeaderMap::iter);
    let headers = headers.map(|(name, values)| (name.to_string(), json!(values[0].as_str()))).collect();
    (Value::Object(headers), serde_json::from_slice(&message.payload).unwrap())
}

/// One outcome of each kind.
fn outcomes() -> [Outcome; 4] {
    [
        Outcome::done(),
        Outcome::Rejected { code: "no_paper".to_owned(), detail: json!({ "printer": 2 }) },
        Outcome::Failed { code: "offline".to_owned() },
        Outcome::Unknown { reason: "it hums".to_owned() },
    ]
}

/// A start of a workflow that is not deployed.
fn cruise() -> messages::StartBody {
    messages::StartBody {
        version: 1,
        workflow: "cruise".to_owned(),
        subject_id: Some(ids::new()),
        input: Map::new(),
        attributes: Map::from_iter([("nights".to_owned(), json!(3))]),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn real_messages_fit_it_and_it_is_served() {
    let entrance = Entrance::start().await;
    let test = &entrance.test;
    assert_eq!(*entrance.get("/asyncapi.json", &Caller::anonymous()).await.good(200), document());
    let client = &test.app.bus.client;
    let mut taps = Vec::new();
    for subject in [subjects::ALL_STEPS, subjects::ALL_SAGAS, subjects::ALL_EVENTS, "fences.>"] {
        taps.push(client.subscribe(subject).await.unwrap());
    }
    client.flush().await.unwrap();
    let mut tapped = futures::stream::select_all(taps);

    let user = test.user(1_000).await;
    let (paid, dropped) = (test.reserve(user, &[1]).await, test.reserve(user, &[2, 3]).await);
    test.pay(paid.id).await;
    test.cancel(paid.id).await;
    test.cancel(dropped.id).await;
    let command = command();
    let outcomes = outcomes();
    let mut out = vec![messages::command(&command), messages::signal(paid.id, "cancel", &Map::new())];
    out.push(messages::start(ids::new(), &cruise()));
    out.extend(outcomes.iter().map(|outcome| messages::reply(&command, outcome)));
    publish::publish(&test.app.bus, &out, Clone::clone).await.unwrap();
    let wanted = Completion { saga: ids::new(), step: "print".to_owned(), visit: 1, output: Map::new() };
    let bus = test.app.bus.clone();
    tokio::spawn(async move { fences::complete(&bus, "printer", &wanted).await });
    for completed in outcomes.into_iter().map(Completed::Ran).chain([Completed::Recorded]) {
        assert_fits(
            &component("CompletionAnswer"),
            &serde_json::from_slice(&fences::answer(completed)).unwrap(),
        );
    }

    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    let expected = [
        "command",
        "completionRequest",
        "points.entry",
        "reply",
        "reservation.cancelled",
        "reservation.confirmed",
        "reservation.paid",
        "reservation.reserved",
        "signal",
        "start",
    ];
    let end = tokio::time::Instant::now() + std::time::Duration::from_secs(15);
    while counts.len() < expected.len() || counts["points.entry"] < 3 {
        let message =
            tokio::time::timeout_at(end, tapped.next()).await.unwrap_or_else(|_| panic!("only {counts:?}"));
        let message = message.unwrap();
        let (headers, body) = seen(&message);
        let mut names = described(&message.subject);
        if let Some(event) = body["events"][0]["type"].as_str() {
            names.retain(|name, _| name == event);
        }
        assert_eq!(names.len(), 1, "{}", message.subject);
        for (name, about) in names {
            assert_fits(&about["payload"], &body);
            if about["headers"].is_object() {
                assert_fits(&about["headers"], &headers);
            }
            *counts.entry(name).or_default() += body["events"].as_array().map_or(1, Vec::len);
        }
    }
    assert_eq!(counts.keys().map(String::as_str).collect::<Vec<_>>(), expected);
    until(10, "the made-up replies and the start to be parked", || async {
        boxoffice::store::operations::count_parked(&test.app.pool).await.unwrap() == 5
    })
    .await;
}
