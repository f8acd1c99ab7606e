//! The progress of a saga for people: how each step of its definition stands, which undos would run, and what happens
//! next without an event. Pure functions of the definition, the row and the history.

use chrono::{DateTime, Utc};
use serde::Serialize;

use super::command::step_deadline;
use super::definition::{Definition, Work};
use super::group::{is_rejected, open_steps, running_group};
use super::state::{Direction, Saga, Status};
use super::transition::TransitionBuilder;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// Its effect exists.
    Done,
    /// The saga is at it.
    Now,
    /// It runs after the steps before it.
    ToCome,
    /// It will not run: the saga compensates, or was abandoned, before it.
    NotReached,
    /// Its undo runs after the undos of the later steps.
    UndoToCome,
    /// Its effect was taken back.
    Undone,
}

impl Standing {
    pub const ALL: [Self; 6] =
        [Self::Done, Self::Now, Self::ToCome, Self::NotReached, Self::UndoToCome, Self::Undone];

    /// The name in the API.
    pub fn name(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Now => "now",
            Self::ToCome => "to_come",
            Self::NotReached => "not_reached",
            Self::UndoToCome => "undo_to_come",
            Self::Undone => "undone",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StepProgress {
    pub step: String,
    /// The group of parallel steps that it is a member of.
    pub group: Option<String>,
    pub standing: Standing,
    /// The command, without the undo's; none for a wait.
    pub command: Option<String>,
    pub undo: Option<String>,
    /// The signal that a wait waits for.
    pub signal: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Every step in the order of the definition.
    pub steps: Vec<StepProgress>,
    /// The undos that would run, in this order, if the saga compensated now. While it compensates: those that remain.
    pub undo_path: Vec<String>,
}

/// A step that was done or undone, from the history.
#[derive(Clone, Copy, Debug)]
pub struct StepRecord<'a> {
    pub step: &'a str,
    pub direction: Direction,
}

/// How each step stands. `records` come from the history, oldest first.
pub fn progress<'a>(
    definition: &Definition,
    saga: &Saga,
    records: impl IntoIterator<Item = StepRecord<'a>>,
) -> Progress {
    let records: Vec<StepRecord<'a>> = records.into_iter().collect();
    let here = definition.index(&saga.step).unwrap_or(0);
    let end = running_group(definition, saga).map_or(here + 1, |group| group.end);
    let open = open_steps(definition, saga);
    let position = Position { definition, saga, here, end, open, records: &records };
    let steps = definition.steps.iter().enumerate().map(|(index, step)| {
        let (command, undo, signal) = match step.work() {
            Work::Command { command, undo } => (Some(command), undo, None),
            Work::Wait { signal } => (None, None, Some(signal)),
        };
        let text = |word: Option<&str>| word.map(str::to_owned);
        StepProgress {
            step: step.name.clone(),
            group: step.group.clone(),
            standing: position.standing(index),
            command: text(command),
            undo: text(undo),
            signal: text(signal),
        }
    });
    Progress { steps: steps.collect(), undo_path: position.undo_path() }
}

/// What happens to a saga if no event comes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NextTransition {
    /// When the current command is sent again without a reply; `None` if no command is under way.
    pub resend_at: Option<DateTime<Utc>>,
    /// When the saga compensates because of a deadline, and for which reason.
    pub compensates_at: Option<(DateTime<Utc>, String)>,
}

pub fn next_transition(definition: &Definition, saga: &Saga, now: DateTime<Utc>) -> NextTransition {
    let forward = saga.direction == Direction::Do && matches!(saga.status, Status::Running | Status::Waiting);
    let open = open_steps(definition, saga).into_iter().map(|index| &definition.steps[index]);
    let deadlines =
        open.filter_map(|step| Some((step_deadline(step, saga)?, step.deadline.as_ref()?.reason.clone())));
    let deadline = deadlines.min_by_key(|(at, _)| *at).filter(|_| forward);
    let held_back = saga.paused && saga.direction == Direction::Do;
    let is_out = matches!(saga.status, Status::Running | Status::Compensating) && !held_back;
    let next = if saga.backing_off {
        saga.due_at
    } else {
        Some(TransitionBuilder::new(definition, saga, now).resend_at())
    };
    NextTransition { resend_at: next.filter(|_| is_out), compensates_at: deadline }
}

struct Position<'a> {
    definition: &'a Definition,
    saga: &'a Saga,
    here: usize,
    /// The position after the saga's step or group.
    end: usize,
    /// The steps that the saga is at.
    open: Vec<usize>,
    records: &'a [StepRecord<'a>],
}

impl Position<'_> {
    fn standing(&self, index: usize) -> Standing {
        let has_undo = self.definition.steps[index].undo.is_some();
        let at_it = self.open.contains(&index);
        let is_rejected = is_rejected(self.definition, self.saga, index);
        match (self.saga.status, self.saga.direction) {
            (Status::Completed, _) => Standing::Done,
            (Status::Compensated | Status::Abandoned, _) => self.by_records(index),
            (_, Direction::Do) if at_it => Standing::Now,
            (_, Direction::Do) if index < self.end => Standing::Done,
            (_, Direction::Do) => Standing::ToCome,
            (_, Direction::Undo) if at_it => Standing::Now,
            (_, Direction::Undo) if index < self.here && has_undo && !is_rejected => Standing::UndoToCome,
            (_, Direction::Undo) => self.by_records(index),
        }
    }

    /// How a step that will not run again stands, by its last record.
    fn by_records(&self, index: usize) -> Standing {
        let name = &self.definition.steps[index].name;
        match self.records.iter().rev().find(|records| records.step == name).map(|records| records.direction)
        {
            Some(Direction::Do) => Standing::Done,
            Some(Direction::Undo) => Standing::Undone,
            None => Standing::NotReached,
        }
    }

    fn undo_path(&self) -> Vec<String> {
        let open = !self.saga.status.is_end();
        let back = self.saga.direction == Direction::Undo || self.definition.can_compensate(self.here);
        if !open || !back {
            return Vec::new();
        }
        let below = &self.definition.steps[..self.end.min(self.definition.steps.len())];
        let undone =
            below.iter().enumerate().rev().filter(|(index, step)| {
                step.undo.is_some() && !is_rejected(self.definition, self.saga, *index)
            });
        undone.map(|(_, step)| step.name.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Decision, Event, NewSaga, Outcome, Reply};
    use chrono::{DateTime, Utc};
    use serde_json::json;
    use uuid::Uuid;

    /// A booking and the records of its history.
    struct Example {
        definition: Definition,
        saga: Saga,
        records: Vec<(String, Direction)>,
        now: DateTime<Utc>,
    }

    impl Example {
        fn begin() -> Self {
            let definition = crate::samples::workflow("booking");
            let now = DateTime::from_timestamp(1_800_000_000, 0).unwrap();
            let id = Uuid::from_u128(7);
            let new = NewSaga { id, subject_id: id, input: serde_json::Map::new(), trace: None, seq: 0 };
            let saga = crate::start(&definition, new, now).saga;
            Self { definition, saga, records: Vec::new(), now }
        }

        fn after(mut self, event: &Event) -> Self {
            let Decision::Transition(transition) =
                crate::apply(&self.definition, &self.saga, event, self.now)
            else {
                panic!("{event:?} changes the saga")
            };
            if let Some(entry) = transition.entry.filter(|entry| ["done", "undone"].contains(&&*entry.event))
            {
                self.records.push((entry.step, entry.direction));
            }
            self.saga = transition.saga;
            self
        }

        fn answered(self, outcome: Outcome) -> Self {
            let reply = Reply {
                step: self.saga.step.clone(),
                direction: self.saga.direction,
                visit: self.saga.visit,
                send: self.saga.send,
                worker: None,
                service: None,
                outcome,
            };
            self.after(&Event::Reply(reply))
        }

        fn held(self) -> Self {
            let later = self.now + chrono::TimeDelta::minutes(5);
            let output = json!({ "expires_at": later, "claimable_at": later });
            self.answered(Outcome::Done { output: output.as_object().unwrap().clone() })
        }

        fn standings(&self) -> (Vec<Standing>, Vec<String>) {
            let records =
                self.records.iter().map(|(step, direction)| StepRecord { step, direction: *direction });
            let progress = progress(&self.definition, &self.saga, records);
            (progress.steps.iter().map(|step| step.standing).collect(), progress.undo_path)
        }
    }

    use Standing as S;

    #[test]
    fn running_saga_has_steps_to_come_and_undos() {
        let example = Example::begin();
        assert_eq!(
            example.standings(),
            (vec![S::Now, S::ToCome, S::ToCome, S::ToCome], vec!["reserve".to_owned()])
        );
        let example = example.held().after(&Event::signal("pay"));
        let (steps, undo) = example.standings();
        assert_eq!(steps, [S::Done, S::Done, S::Now, S::ToCome]);
        assert_eq!(undo, ["pay", "reserve"]);
    }

    #[test]
    fn compensating_saga_has_undos_to_come_in_reverse() {
        let example = Example::begin().held().after(&Event::signal("pay"));
        let example = example.answered(Outcome::done()).answered(Outcome::rejected("seat_lost"));
        let (steps, undo) = example.standings();
        assert_eq!(steps, [S::UndoToCome, S::NotReached, S::Now, S::NotReached]);
        assert_eq!(undo, ["pay", "reserve"]);
        let (steps, undo) = example.answered(Outcome::done()).standings();
        assert_eq!(steps, [S::Now, S::NotReached, S::Undone, S::NotReached]);
        assert_eq!(undo, ["reserve"]);
    }

    #[test]
    fn ended_saga_has_nothing_to_come() {
        let paid = Example::begin().held().after(&Event::signal("pay"));
        let (steps, undo) = paid.answered(Outcome::done()).answered(Outcome::done()).standings();
        assert_eq!((steps, undo), (vec![S::Done; 4], Vec::new()));
        let cancelled = Example::begin().held().after(&Event::signal("cancel"));
        let (steps, undo) = cancelled.answered(Outcome::done()).standings();
        assert_eq!(steps, [S::Undone, S::NotReached, S::NotReached, S::NotReached]);
        assert!(undo.is_empty());
    }

    #[test]
    fn next_transition_is_the_resend_or_the_deadline() {
        let example = Example::begin();
        let coming = next_transition(&example.definition, &example.saga, example.now);
        assert_eq!(coming.resend_at, Some(example.now + chrono::TimeDelta::seconds(5)));
        let deadline = example.now + chrono::TimeDelta::seconds(60);
        assert_eq!(coming.compensates_at, Some((deadline, "unavailable".to_owned())));
        let example = example.held();
        let coming = next_transition(&example.definition, &example.saga, example.now);
        assert_eq!(coming.resend_at, None);
        assert_eq!(coming.compensates_at.unwrap().1, "hold_expired");
    }

    #[test]
    fn forward_only_workflow_has_no_undo_path() {
        let definition = crate::samples::workflow("cancellation");
        let example = Example::begin();
        let saga = Saga { step: "void".to_owned(), ..example.saga };
        assert!(progress(&definition, &saga, []).undo_path.is_empty());
    }
}
