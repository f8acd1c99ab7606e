//! The rules of the fence: what to do about a command, given the record of its step. The table in `docs/workers.md` has the
//! same rules. No I/O.

use chrono::{DateTime, Utc};
use saga_core::{Command, Direction, Outcome};
use saga_protocol::fences::{Completed, UNDONE, VISIT_OVER};
use serde_json::{Map, Value};

/// What a service keeps of one step of one saga.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Record {
    /// The latest visit that was begun; 0 if none was.
    pub visit: i32,
    /// Every `do` up to this visit is refused; 0 if none is.
    pub undone: i32,
    /// The answer to [`Self::visit`], if it was `done` or `rejected`.
    pub outcome: Option<Outcome>,
}

/// What to do about a command.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Decision {
    /// The saga has moved on: do nothing, and do not reply.
    Stale,
    /// It was answered before: reply with the same outcome.
    Replay(Outcome),
    /// It came after its deadline: do nothing, and reply `rejected`.
    DeadlinePassed,
    /// Call the function. `done` is the output of the `do`, if this is an undo and the `do` is known to be done.
    Run { done: Option<Map<String, Value>> },
}

/// Decides about a command. `now` is the database's time after the lock.
pub(crate) fn decide(known: &Record, command: &Command, now: DateTime<Utc>) -> Decision {
    let visit = command.visit;
    match command.direction {
        Direction::Undo if visit < known.undone => Decision::Stale,
        Direction::Undo if visit == known.undone => Decision::Replay(Outcome::done()),
        Direction::Undo => Decision::Run { done: output(known) },
        Direction::Do if visit <= known.undone || visit < known.visit => Decision::Stale,
        Direction::Do => match &known.outcome {
            Some(outcome) if visit == known.visit => Decision::Replay(outcome.clone()),
            Some(outcome @ Outcome::Done { .. }) => Decision::Replay(outcome.clone()),
            _ if command.deadline.is_some_and(|deadline| now >= deadline) => Decision::DeadlinePassed,
            _ => Decision::Run { done: None },
        },
    }
}

/// The record after a command was answered. Of `failed` and `unknown` only the visit is kept.
pub(crate) fn after(known: &Record, command: &Command, outcome: &Outcome) -> Record {
    match (command.direction, outcome) {
        (Direction::Undo, Outcome::Done { .. }) => {
            Record { undone: known.undone.max(command.visit), outcome: None, ..known.clone() }
        }
        (Direction::Undo, _) => known.clone(),
        (Direction::Do, Outcome::Done { .. } | Outcome::Rejected { .. }) => {
            Record { visit: command.visit, outcome: Some(outcome.clone()), ..known.clone() }
        }
        (Direction::Do, _) => Record { visit: command.visit, outcome: None, ..known.clone() },
    }
}

/// Decides about a completion by hand: the new record, if the step is taken as done, and the answer.
pub(crate) fn complete(
    known: &Record,
    visit: i32,
    output: Map<String, Value>,
) -> (Option<Record>, Completed) {
    if visit <= known.undone {
        return (None, Completed::Ran(Outcome::rejected(UNDONE)));
    }
    match &known.outcome {
        Some(outcome @ Outcome::Done { .. }) => (None, Completed::Ran(outcome.clone())),
        Some(outcome) if visit == known.visit => (None, Completed::Ran(outcome.clone())),
        _ if visit < known.visit => (None, Completed::Ran(Outcome::rejected(VISIT_OVER))),
        _ => {
            let outcome = Some(Outcome::Done { output });
            (Some(Record { visit, outcome, ..known.clone() }), Completed::Recorded)
        }
    }
}

fn output(known: &Record) -> Option<Map<String, Value>> {
    match &known.outcome {
        Some(Outcome::Done { output }) => Some(output.clone()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;
    use saga_protocol::fences::answer;
    use serde_json::json;
    use uuid::Uuid;

    use super::*;

    /// The cases that the tests of every SDK run.
    fn cases(part: &str) -> Vec<Value> {
        let all: Value = serde_json::from_str(include_str!("../../../sdk/fence-cases.json")).unwrap();
        let cases = all[part].as_array().unwrap().clone();
        assert!(cases.len() >= 10, "{part}");
        cases
    }

    fn now() -> DateTime<Utc> {
        DateTime::from_timestamp(1_800_000_000, 0).unwrap()
    }

    fn outcome(given: &Value) -> Outcome {
        serde_json::from_value(given.clone()).unwrap()
    }

    fn number(given: &Value) -> i32 {
        i32::try_from(given.as_i64().unwrap()).unwrap()
    }

    fn record(given: &Value) -> Record {
        Record {
            visit: number(&given["visit"]),
            undone: number(&given["undone"]),
            outcome: Some(&given["outcome"]).filter(|given| !given.is_null()).map(outcome),
        }
    }

    fn command(given: &Value) -> Command {
        Command {
            saga_id: Uuid::from_u128(1),
            workflow: "party".to_owned(),
            subject: "printer.print".to_owned(),
            step: "print".to_owned(),
            direction: if given["direction"] == "do" { Direction::Do } else { Direction::Undo },
            visit: number(&given["visit"]),
            send: 0,
            deadline: given["deadline_s"].as_i64().map(|seconds| now() + TimeDelta::seconds(seconds)),
            reason: None,
            context: std::sync::Arc::default(),
            trace: Uuid::from_u128(3),
        }
    }

    #[test]
    fn decisions_follow_the_cases_of_all_sdks() {
        for case in cases("decide") {
            let decided = match decide(&record(&case["known"]), &command(&case["command"]), now()) {
                Decision::Stale => json!({ "ignore": true }),
                Decision::Replay(outcome) => json!({ "reply": outcome }),
                Decision::DeadlinePassed => json!({ "reply": Outcome::rejected(saga_core::DEADLINE_PASSED) }),
                Decision::Run { done } => json!({ "run": { "done": done } }),
            };
            assert_eq!(decided, case["decision"], "{}", case["name"]);
        }
    }

    #[test]
    fn records_follow_the_cases_of_all_sdks() {
        for case in cases("after") {
            let becomes =
                after(&record(&case["known"]), &command(&case["command"]), &outcome(&case["outcome"]));
            assert_eq!(becomes, record(&case["becomes"]), "{}", case["name"]);
        }
    }

    #[test]
    fn manual_completions_follow_the_cases_of_all_sdks() {
        for case in cases("complete") {
            let output = case["output"].as_object().unwrap().clone();
            let (becomes, completed) = complete(&record(&case["known"]), number(&case["visit"]), output);
            let expected = Some(&case["becomes"]).filter(|record| !record.is_null()).map(record);
            assert_eq!(becomes, expected, "{}", case["name"]);
            let answered: Value = serde_json::from_slice(&answer(completed)).unwrap();
            assert_eq!(answered, case["answer"], "{}", case["name"]);
        }
    }
}
