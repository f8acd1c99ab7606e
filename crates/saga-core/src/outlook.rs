//! What is behind a saga and what is still before it: each step of its definition as it stands, and the way back.
//!
//! Pure like [`super::apply()`]: from the definition, the row, and what the history says was done and undone.

use chrono::{DateTime, Utc};
use serde::Serialize;

use super::definition::{Definition, Work};
use super::moves::{Move, step_deadline};
use super::state::{Direction, Saga, Status};

/// How a step of a saga's definition stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// Its effect is there.
    Done,
    /// The saga is at it.
    Now,
    /// It comes when the steps before it are done.
    ToCome,
    /// It will not come: the saga has turned back, or was given up, before it.
    NotReached,
    /// Its undo comes when the undos of the steps after it are done.
    UndoToCome,
    /// Its effect was taken back.
    Undone,
}

impl Standing {
    /// Every one.
    pub const ALL: [Self; 6] =
        [Self::Done, Self::Now, Self::ToCome, Self::NotReached, Self::UndoToCome, Self::Undone];

    /// Its name in the API.
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

/// A step and how it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StepAhead {
    pub step: String,
    pub standing: Standing,
    /// The command, without the undo's; none for a wait.
    pub command: Option<String>,
    pub undo: Option<String>,
    /// The signal that a wait waits for.
    pub signal: Option<String>,
}

/// What has been, what is, and what may come.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outlook {
    /// Every step in the order of the definition.
    pub steps: Vec<StepAhead>,
    /// The steps whose undo would run, in this order, if the saga turned back now; once it has, those that still come.
    pub undo_path: Vec<String>,
}

/// What the history says about a step: that it was done, or that it was undone. Oldest first.
#[derive(Clone, Copy, Debug)]
pub struct Told<'a> {
    pub step: &'a str,
    pub direction: Direction,
}

/// How each step stands. `told` are the steps that were done or undone so far, oldest first.
pub fn outlook<'a>(
    definition: &Definition,
    saga: &Saga,
    told: impl IntoIterator<Item = Told<'a>>,
) -> Outlook {
    let told: Vec<Told<'a>> = told.into_iter().collect();
    let here = definition.index(&saga.step).unwrap_or(0);
    let place = Place { definition, saga, here, told: &told };
    let steps = definition.steps.iter().enumerate().map(|(index, step)| {
        let (command, undo, signal) = match step.work() {
            Work::Command { command, undo } => (Some(command), undo, None),
            Work::Wait { signal } => (None, None, Some(signal)),
        };
        let text = |word: Option<&str>| word.map(str::to_owned);
        StepAhead {
            step: step.name.clone(),
            standing: place.standing(index),
            command: text(command),
            undo: text(undo),
            signal: text(signal),
        }
    });
    Outlook { steps: steps.collect(), undo_path: place.undo_path() }
}

/// What happens by itself to a saga that stays where it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Prospect {
    /// When the current command is sent again if nobody answers; none if none is out.
    pub asked_again_at: Option<DateTime<Utc>>,
    /// When the saga turns back by itself, and the reason it has then.
    pub turns_back: Option<(DateTime<Utc>, String)>,
}

/// What happens by itself, and when, if nothing else does.
pub fn prospect(definition: &Definition, saga: &Saga, now: DateTime<Utc>) -> Prospect {
    let Some(step) = definition.index(&saga.step).map(|index| &definition.steps[index]) else {
        return Prospect::default();
    };
    let forward = saga.direction == Direction::Do && matches!(saga.status, Status::Running | Status::Waiting);
    let deadline = step_deadline(step, saga).filter(|_| forward);
    let held_back = saga.paused && saga.direction == Direction::Do;
    let is_out = matches!(saga.status, Status::Running | Status::Compensating) && !held_back;
    let next = if saga.backing_off { saga.due_at } else { Some(Move::of(definition, saga, now).answer_by()) };
    Prospect {
        asked_again_at: next.filter(|_| is_out),
        turns_back: deadline.zip(step.deadline.as_ref().map(|deadline| deadline.reason.clone())),
    }
}

struct Place<'a> {
    definition: &'a Definition,
    saga: &'a Saga,
    here: usize,
    told: &'a [Told<'a>],
}

impl Place<'_> {
    fn standing(&self, index: usize) -> Standing {
        let has_undo = self.definition.steps[index].undo.is_some();
        let at_it = index == self.here;
        match (self.saga.status, self.saga.direction) {
            (Status::Completed, _) => Standing::Done,
            (Status::Compensated | Status::Abandoned, _) => self.as_told(index),
            (_, Direction::Do) if at_it => Standing::Now,
            (_, Direction::Do) if index < self.here => Standing::Done,
            (_, Direction::Do) => Standing::ToCome,
            (_, Direction::Undo) if at_it => Standing::Now,
            (_, Direction::Undo) if index < self.here && has_undo => Standing::UndoToCome,
            (_, Direction::Undo) => self.as_told(index),
        }
    }

    /// How the history leaves a step that nothing will happen to any more.
    fn as_told(&self, index: usize) -> Standing {
        let name = &self.definition.steps[index].name;
        match self.told.iter().rev().find(|told| told.step == name).map(|told| told.direction) {
            Some(Direction::Do) => Standing::Done,
            Some(Direction::Undo) => Standing::Undone,
            None => Standing::NotReached,
        }
    }

    fn undo_path(&self) -> Vec<String> {
        let open = !self.saga.status.is_end();
        let back = self.saga.direction == Direction::Undo || self.definition.can_turn_back(self.here);
        if !open || !back {
            return Vec::new();
        }
        let below = &self.definition.steps[..(self.here + 1).min(self.definition.steps.len())];
        below.iter().rev().filter(|step| step.undo.is_some()).map(|step| step.name.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Decision, Event, NewSaga, Outcome, Reply};
    use chrono::{DateTime, Utc};
    use serde_json::json;
    use uuid::Uuid;

    /// A booking that lives through some events, with what its history tells.
    struct Life {
        definition: Definition,
        saga: Saga,
        told: Vec<(String, Direction)>,
        now: DateTime<Utc>,
    }

    impl Life {
        fn begin() -> Self {
            let definition = crate::samples::workflow("booking");
            let now = DateTime::from_timestamp(1_800_000_000, 0).unwrap();
            let id = Uuid::from_u128(7);
            let new = NewSaga { id, subject_id: id, input: serde_json::Map::new(), trace: None, seq: 0 };
            let saga = crate::start(&definition, new, now).saga;
            Self { definition, saga, told: Vec::new(), now }
        }

        fn meets(mut self, event: &Event) -> Self {
            let Decision::Transition(moved) = crate::apply(&self.definition, &self.saga, event, self.now)
            else {
                panic!("{event:?} moves it")
            };
            if let Some(entry) = moved.entry.filter(|entry| ["done", "undone"].contains(&&*entry.event)) {
                self.told.push((entry.step, entry.direction));
            }
            self.saga = moved.saga;
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
            self.meets(&Event::Reply(reply))
        }

        fn held(self) -> Self {
            let later = self.now + chrono::TimeDelta::minutes(5);
            let output = json!({ "expires_at": later, "claimable_at": later });
            self.answered(Outcome::Done { output: output.as_object().unwrap().clone() })
        }

        fn looks(&self) -> (Vec<Standing>, Vec<String>) {
            let told = self.told.iter().map(|(step, direction)| Told { step, direction: *direction });
            let outlook = outlook(&self.definition, &self.saga, told);
            (outlook.steps.iter().map(|step| step.standing).collect(), outlook.undo_path)
        }
    }

    use Standing as S;

    #[test]
    fn on_the_way_forward_the_rest_is_to_come_and_the_way_back_is_open() {
        let life = Life::begin();
        assert_eq!(life.looks(), (vec![S::Now, S::ToCome, S::ToCome, S::ToCome], vec!["reserve".to_owned()]));
        let life = life.held().meets(&Event::Signal("pay".to_owned()));
        let (steps, undo) = life.looks();
        assert_eq!(steps, [S::Done, S::Done, S::Now, S::ToCome]);
        assert_eq!(undo, ["pay", "reserve"]);
    }

    #[test]
    fn on_the_way_back_the_undos_are_to_come_in_reverse() {
        let life = Life::begin().held().meets(&Event::Signal("pay".to_owned()));
        let life = life.answered(Outcome::done()).answered(Outcome::rejected("seat_lost"));
        let (steps, undo) = life.looks();
        assert_eq!(steps, [S::UndoToCome, S::NotReached, S::Now, S::NotReached]);
        assert_eq!(undo, ["pay", "reserve"]);
        let (steps, undo) = life.answered(Outcome::done()).looks();
        assert_eq!(steps, [S::Now, S::NotReached, S::Undone, S::NotReached]);
        assert_eq!(undo, ["reserve"]);
    }

    #[test]
    fn at_the_end_nothing_is_to_come() {
        let paid = Life::begin().held().meets(&Event::Signal("pay".to_owned()));
        let (steps, undo) = paid.answered(Outcome::done()).answered(Outcome::done()).looks();
        assert_eq!((steps, undo), (vec![S::Done; 4], Vec::new()));
        let cancelled = Life::begin().held().meets(&Event::Signal("cancel".to_owned()));
        let (steps, undo) = cancelled.answered(Outcome::done()).looks();
        assert_eq!(steps, [S::Undone, S::NotReached, S::NotReached, S::NotReached]);
        assert!(undo.is_empty());
    }

    #[test]
    fn what_comes_by_itself_is_the_next_send_and_the_deadline() {
        let life = Life::begin();
        let coming = prospect(&life.definition, &life.saga, life.now);
        assert_eq!(coming.asked_again_at, Some(life.now + chrono::TimeDelta::seconds(5)));
        let deadline = life.now + chrono::TimeDelta::seconds(60);
        assert_eq!(coming.turns_back, Some((deadline, "unavailable".to_owned())));
        let life = life.held();
        let coming = prospect(&life.definition, &life.saga, life.now);
        assert_eq!(coming.asked_again_at, None);
        assert_eq!(coming.turns_back.unwrap().1, "hold_expired");
    }

    #[test]
    fn what_only_goes_forward_has_no_way_back() {
        let definition = crate::samples::workflow("cancellation");
        let life = Life::begin();
        let saga = Saga { step: "void".to_owned(), ..life.saga };
        assert!(outlook(&definition, &saga, []).undo_path.is_empty());
    }
}
