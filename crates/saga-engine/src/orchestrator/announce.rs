//! Domain events, derived from transitions and, the same, from history.

use std::collections::BTreeMap;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::bus::events::EventMessage;
use crate::saga::{self, Definition, Direction, Saga, Transition, WorkflowRegistry};
use crate::store::history::HistoryRow;

/// Where an event stands: in whose history, at which number.
struct Place<'a> {
    saga: &'a Saga,
    seq: i64,
    at: DateTime<Utc>,
    step: &'a str,
    direction: Direction,
    visit: i32,
    attempt: i32,
    detail: Option<&'a Value>,
    context: &'a Arc<Value>,
}

/// The events that follow from a transition.
pub(super) fn of_transition(registry: &WorkflowRegistry, transition: &Transition) -> Vec<EventMessage> {
    let saga = &transition.saga;
    let definition = registry.get(&saga.workflow, saga.version);
    let Some(entry) = &transition.entry else {
        return Vec::new();
    };
    let place = Place {
        saga,
        seq: saga.seq,
        at: saga.updated_at,
        step: &entry.step,
        direction: entry.direction,
        visit: entry.visit,
        attempt: entry.attempt,
        detail: entry.detail.as_ref(),
        context: &saga.context,
    };
    entry.emits.iter().map(|name| event(definition.as_deref(), &place, name)).collect()
}

/// All events of some sagas, from their history: the same ids and the same content as when they first went out.
pub(super) fn of_history(
    registry: &WorkflowRegistry,
    sagas: &[Saga],
    history: &[HistoryRow],
) -> Vec<EventMessage> {
    let sagas: BTreeMap<Uuid, &Saga> = sagas.iter().map(|saga| (saga.id, saga)).collect();
    let mut contexts: BTreeMap<Uuid, Arc<Value>> = BTreeMap::new();
    let mut events = Vec::new();
    for row in history {
        let Some(saga) = sagas.get(&row.saga_id) else {
            continue;
        };
        let definition = registry.get(&saga.workflow, saga.version);
        let context = contexts.entry(saga.id).or_insert_with(|| Arc::clone(&saga.input));
        let is_payload = row.event.starts_with("signal:");
        if (is_payload || ["done", "operator:complete"].contains(&row.event.as_str()))
            && let (Value::Object(context), Some(Value::Object(output))) =
                (Arc::make_mut(context), &row.detail)
        {
            let step = definition.as_ref().and_then(|known| Some(&known.steps[known.index(&row.step)?]));
            match step {
                Some(step) => context.extend(saga::carried_outputs(step, output)),
                None => context.extend(output.clone()),
            }
        }
        let place = Place {
            saga,
            seq: row.seq,
            at: row.at,
            step: &row.step,
            direction: row.direction,
            visit: row.visit,
            attempt: row.attempt,
            detail: row.detail.as_ref(),
            context,
        };
        events.extend(row.emits.iter().map(|name| event(definition.as_deref(), &place, name)));
    }
    events
}

fn event(definition: Option<&Definition>, place: &Place<'_>, name: &str) -> EventMessage {
    let id = format!("{}:{}:{name}", place.saga.id, place.seq);
    let own = about_the_saga(place, name).or_else(|| part(definition?, place, name));
    let data = own.map_or_else(|| whole(place), Arc::new);
    let trace = place.saga.trace.unwrap_or(place.saga.id);
    EventMessage::new(id, name, place.at, (place.saga.subject_id, place.seq), trace, data)
}

/// Events of the engine itself: a saga is stuck or was given up; where, why, and what can be done or is left.
fn about_the_saga(place: &Place<'_>, name: &str) -> Option<Value> {
    if ![saga::STUCK, saga::ABANDONED].contains(&name) {
        return None;
    }
    let Place { saga, step, direction, visit, attempt, .. } = place;
    let mut data = json!({
        "saga_id": saga.id, "workflow": saga.workflow, "version": saga.version,
        "step": step, "direction": direction, "visit": visit, "attempt": attempt,
    });
    let detail = place.detail.unwrap_or(&Value::Null);
    match name {
        saga::STUCK => {
            data["reason"] = detail["stuck"].clone();
            data["acts"] = detail["acts"].clone();
        }
        saga::ABANDONED => data["left"] = detail["left"].clone(),
        _ => return None,
    }
    Some(data)
}

/// The part of a step's output that is an event of its own.
fn part(definition: &Definition, place: &Place<'_>, name: &str) -> Option<Value> {
    let step = &definition.steps[definition.index(place.step)?];
    let parts = if place.direction == Direction::Do { &step.announces } else { &step.undo_announces };
    let field = parts.iter().find(|(_, event)| *event == name)?.0;
    place.detail?.get(field).cloned()
}

/// The whole context by then, with the reason once the saga compensates. Earlier events have no reason, also when they are
/// published again later.
fn whole(place: &Place<'_>) -> Arc<Value> {
    let mut data = Arc::clone(place.context);
    if let (Direction::Undo, Some(reason)) = (place.direction, &place.saga.reason)
        && let Value::Object(fields) = Arc::make_mut(&mut data)
    {
        fields.insert("reason".to_owned(), json!(reason));
    }
    data
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::saga::{Decision, Event, NewSaga, Outcome, Reply};

    const PARCEL: &str = r#"
        name = "parcel"
        version = 1

        [[steps]]
        name = "reserve"
        command = "shelf.reserve"
        undo = "shelf.release"
        deadline = { seconds = 60, reason = "unavailable" }
        emits = ["parcel.reserved"]

        [[steps]]
        name = "await_pickup"
        wait = "pickup"
        deadline = { at = "expires_at", reason = "expired" }

        [signals]
        cancel = "cancelled"

        [ends]
        cancelled = "parcel.cancelled"
        otherwise = "parcel.failed"
    "#;

    fn row(transition: &Transition) -> HistoryRow {
        let (saga, entry) = (&transition.saga, transition.entry.clone().expect("it is recorded"));
        HistoryRow {
            saga_id: saga.id,
            seq: saga.seq,
            at: saga.updated_at,
            event: entry.event,
            step: entry.step,
            direction: entry.direction,
            visit: entry.visit,
            attempt: entry.attempt,
            detail: entry.detail,
            worker: entry.worker,
            emits: entry.emits,
        }
    }

    fn done(direction: Direction, output: Value) -> Event {
        let Value::Object(output) = output else { panic!("an output has fields") };
        let (step, outcome) = ("reserve".to_owned(), Outcome::Done { output });
        Event::Reply(Reply { step, direction, visit: 1, send: 0, outcome, worker: None, service: None })
    }

    #[test]
    fn history_gives_the_events_of_the_time() {
        let registry = WorkflowRegistry::default();
        registry.add(Definition::parse("parcel", PARCEL).unwrap());
        let definition = registry.latest("parcel").unwrap();
        let now = DateTime::from_timestamp(1_800_000_000, 0).unwrap();
        let id = Uuid::from_u128(7);
        let new = NewSaga { id, subject_id: id, input: serde_json::Map::new(), trace: None, seq: 0 };
        let mut last = saga::start(&definition, new, now);
        let (mut history, mut announced) = (vec![row(&last)], of_transition(&registry, &last));
        let later = now + chrono::TimeDelta::minutes(5);
        let events = [
            done(Direction::Do, json!({ "expires_at": later })),
            Event::signal("cancel"),
            done(Direction::Undo, json!({})),
        ];
        for event in events {
            let Decision::Transition(next) = saga::apply(&definition, &last.saga, &event, now) else {
                panic!("{event:?} moves it")
            };
            last = *next;
            history.push(row(&last));
            announced.extend(of_transition(&registry, &last));
        }
        let names: Vec<&str> = announced.iter().map(|event| event.name.as_str()).collect();
        assert_eq!(names, ["parcel.reserved", "parcel.cancelled"]);
        let json = |events: &[EventMessage]| serde_json::to_value(events).unwrap();
        assert_eq!(json(&of_history(&registry, &[last.saga], &history)), json(&announced));
        assert_eq!(
            (&announced[0].data["reason"], &announced[1].data["reason"]),
            (&Value::Null, &json!("cancelled"))
        );
    }
}
