//! The fence as a table: what is remembered of a step, what is asked, and what is to be done about it. Pure.

use chrono::{DateTime, Utc};
use serde_json::{Map, Value};

use crate::bus::fences::{Completed, UNDONE, VISIT_OVER};
use crate::saga::{Command, Direction, Outcome};
use crate::store::outcomes::Remembered;

/// What is to be done about a command.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Judgement {
    /// It belongs to the past: nothing, not even a reply.
    Past,
    /// It was answered before: the same answer.
    Replay(Outcome),
    /// It came after its deadline: nothing is done.
    Late,
    /// Do it, or undo it; an undo gets the output of what is to be undone, if that is known to be done.
    Act { done: Option<Map<String, Value>> },
}

/// Judges a command by what is remembered of its step, by the database's clock after the lock.
pub(super) fn judge(known: &Remembered, command: &Command, now: DateTime<Utc>) -> Judgement {
    let visit = command.visit;
    match command.direction {
        Direction::Undo if visit < known.undone => Judgement::Past,
        Direction::Undo if visit == known.undone => Judgement::Replay(Outcome::done()),
        Direction::Undo => Judgement::Act { done: output(known) },
        Direction::Do if visit <= known.undone || visit < known.visit => Judgement::Past,
        Direction::Do => match &known.outcome {
            Some(outcome) if visit == known.visit => Judgement::Replay(outcome.clone()),
            Some(outcome @ Outcome::Done { .. }) => Judgement::Replay(outcome.clone()),
            _ if command.deadline.is_some_and(|deadline| now >= deadline) => Judgement::Late,
            _ => Judgement::Act { done: None },
        },
    }
}

/// What is to be remembered once a command was answered. `failed` and `unknown` leave only the visit behind.
pub(super) fn after(known: &Remembered, command: &Command, outcome: &Outcome) -> Remembered {
    match (command.direction, outcome) {
        (Direction::Undo, Outcome::Done { .. }) => {
            Remembered { undone: known.undone.max(command.visit), outcome: None, ..known.clone() }
        }
        (Direction::Undo, _) => known.clone(),
        (Direction::Do, Outcome::Done { .. } | Outcome::Rejected { .. }) => {
            Remembered { visit: command.visit, outcome: Some(outcome.clone()), ..known.clone() }
        }
        (Direction::Do, _) => Remembered { visit: command.visit, outcome: None, ..known.clone() },
    }
}

/// Judges a completion by hand: what to remember if it is recorded, and the answer.
pub(super) fn complete(
    known: &Remembered,
    visit: i32,
    output: Map<String, Value>,
) -> (Option<Remembered>, Completed) {
    if visit <= known.undone {
        return (None, Completed::Ran(Outcome::rejected(UNDONE)));
    }
    match &known.outcome {
        Some(outcome @ Outcome::Done { .. }) => (None, Completed::Ran(outcome.clone())),
        Some(outcome) if visit == known.visit => (None, Completed::Ran(outcome.clone())),
        _ if visit < known.visit => (None, Completed::Ran(Outcome::rejected(VISIT_OVER))),
        _ => {
            let outcome = Some(Outcome::Done { output });
            (Some(Remembered { visit, outcome, ..known.clone() }), Completed::Recorded)
        }
    }
}

fn output(known: &Remembered) -> Option<Map<String, Value>> {
    match &known.outcome {
        Some(Outcome::Done { output }) => Some(output.clone()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;
    use serde_json::json;
    use uuid::Uuid;

    use super::*;

    fn now() -> DateTime<Utc> {
        DateTime::from_timestamp(1_800_000_000, 0).unwrap()
    }

    fn command(direction: Direction, visit: i32, deadline_s: Option<i64>) -> Command {
        Command {
            saga_id: Uuid::from_u128(1),
            workflow: "party".to_owned(),
            subject: "printer.print".to_owned(),
            step: "print".to_owned(),
            direction,
            visit,
            send: 0,
            deadline: deadline_s.map(|seconds| now() + TimeDelta::seconds(seconds)),
            reason: None,
            context: std::sync::Arc::default(),
            trace: Uuid::from_u128(3),
        }
    }

    fn done() -> Outcome {
        Outcome::Done { output: badge() }
    }

    fn badge() -> Map<String, Value> {
        Map::from_iter([("badge".to_owned(), json!("B-1"))])
    }

    fn known(visit: i32, undone: i32, outcome: Option<Outcome>) -> Remembered {
        Remembered { visit, undone, outcome }
    }

    /// The rows of the table in `docs/workers.md`, in its order.
    #[test]
    fn the_table_of_the_page() {
        let act = Judgement::Act { done: None };
        let no = Outcome::rejected("no_paper");
        let asked = |direction, visit| command(direction, visit, None);
        let rows = [
            ("undone at this visit", known(1, 1, None), asked(Direction::Do, 1), Judgement::Past),
            ("undone at a later one", known(0, 3, None), asked(Direction::Do, 2), Judgement::Past),
            ("a later visit was seen", known(2, 0, None), asked(Direction::Do, 1), Judgement::Past),
            (
                "done at this visit",
                known(1, 0, Some(done())),
                asked(Direction::Do, 1),
                Judgement::Replay(done()),
            ),
            (
                "a no at this visit",
                known(1, 0, Some(no.clone())),
                asked(Direction::Do, 1),
                Judgement::Replay(no.clone()),
            ),
            (
                "done at an earlier one",
                known(1, 0, Some(done())),
                asked(Direction::Do, 2),
                Judgement::Replay(done()),
            ),
            ("late", known(0, 0, None), command(Direction::Do, 1, Some(0)), Judgement::Late),
            (
                "done, asked again late",
                known(1, 0, Some(done())),
                command(Direction::Do, 1, Some(-5)),
                Judgement::Replay(done()),
            ),
            ("in time", known(0, 0, None), command(Direction::Do, 1, Some(1)), act.clone()),
            ("never seen", known(0, 0, None), asked(Direction::Do, 1), act.clone()),
            ("failed or unknown before", known(1, 0, None), asked(Direction::Do, 1), act.clone()),
            ("a no at an earlier visit", known(1, 0, Some(no.clone())), asked(Direction::Do, 2), act.clone()),
            ("entered anew after an undo", known(1, 1, None), asked(Direction::Do, 2), act.clone()),
            ("undone later", known(1, 2, None), asked(Direction::Undo, 1), Judgement::Past),
            (
                "undone before",
                known(1, 1, None),
                asked(Direction::Undo, 1),
                Judgement::Replay(Outcome::done()),
            ),
            (
                "an undo of what was done",
                known(1, 0, Some(done())),
                asked(Direction::Undo, 1),
                Judgement::Act { done: Some(badge()) },
            ),
            ("an undo of what was refused", known(1, 0, Some(no)), asked(Direction::Undo, 1), act.clone()),
            ("an undo that comes first", known(0, 0, None), asked(Direction::Undo, 1), act),
        ];
        for (row, known, command, expected) in rows {
            assert_eq!(judge(&known, &command, now()), expected, "{row}");
        }
    }

    #[test]
    fn only_what_is_known_is_remembered() {
        let fresh = Remembered::default();
        let first = command(Direction::Do, 1, None);
        assert_eq!(after(&fresh, &first, &done()), known(1, 0, Some(done())));
        let failed = Outcome::Failed { code: "busy".to_owned() };
        let unknown = Outcome::Unknown { reason: "no answer".to_owned() };
        for open in [failed, unknown] {
            assert_eq!(after(&fresh, &first, &open), known(1, 0, None));
            let undo = command(Direction::Undo, 1, None);
            assert_eq!(after(&known(1, 0, Some(done())), &undo, &open), known(1, 0, Some(done())));
        }
        let undo = command(Direction::Undo, 2, None);
        assert_eq!(after(&known(1, 0, Some(done())), &undo, &Outcome::done()), known(1, 2, None));
    }

    #[test]
    fn a_completion_by_hand_never_overrules_what_is_known() {
        let (remembered, answer) = complete(&known(1, 0, None), 1, badge());
        assert_eq!((remembered, answer), (Some(known(1, 0, Some(done()))), Completed::Recorded));
        let no = Outcome::rejected("no_paper");
        let rows = [
            (known(1, 0, Some(done())), 2, done()),
            (known(1, 0, Some(no.clone())), 1, no),
            (known(1, 1, None), 1, Outcome::rejected(UNDONE)),
            (known(2, 0, None), 1, Outcome::rejected(VISIT_OVER)),
        ];
        for (known, visit, expected) in rows {
            assert_eq!(complete(&known, visit, Map::new()), (None, Completed::Ran(expected)), "{known:?}");
        }
    }
}
