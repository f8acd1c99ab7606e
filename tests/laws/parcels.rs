//! The service of the made-up workflow: a worker elsewhere that keeps the fence of `docs/workers.md` in memory.

use std::collections::HashMap;
use std::sync::Mutex;

use boxoffice::saga::{Command, DEADLINE_PASSED, Direction, Outcome};
use chrono::Utc;
use serde_json::{Map, json};
use uuid::Uuid;

/// Its book: one row per saga and step.
#[derive(Default)]
pub struct Parcels {
    book: Mutex<HashMap<(Uuid, String), Row>>,
}

#[derive(Default)]
struct Row {
    visit: i32,
    undone: i32,
    outcome: Option<Outcome>,
    /// How often the effect is there: one or none, or something is wrong.
    effects: i32,
}

impl Parcels {
    /// The answer to a command, or none if it belongs to the past.
    pub fn serve(&self, command: &Command) -> Option<Outcome> {
        let mut book = self.book.lock().unwrap();
        let row = book.entry((command.saga_id, command.step.clone())).or_default();
        match command.direction {
            Direction::Do => row.make(command),
            Direction::Undo => row.take_back(command.visit),
        }
    }

    /// How often the effect of a step is there.
    pub fn effects(&self, saga: Uuid, step: &str) -> i32 {
        let book = self.book.lock().unwrap();
        book.get(&(saga, step.to_owned())).map_or(0, |row| row.effects)
    }
}

impl Row {
    fn make(&mut self, command: &Command) -> Option<Outcome> {
        if command.visit <= self.undone || command.visit < self.visit {
            return None;
        }
        if let Some(outcome) = &self.outcome {
            return Some(outcome.clone());
        }
        if command.deadline.is_some_and(|deadline| Utc::now() >= deadline) {
            return Some(Outcome::rejected(DEADLINE_PASSED));
        }
        let output = Map::from_iter([(command.step.clone(), json!("done"))]);
        self.visit = command.visit;
        self.effects += 1;
        self.outcome = Some(Outcome::Done { output });
        self.outcome.clone()
    }

    fn take_back(&mut self, visit: i32) -> Option<Outcome> {
        if visit < self.undone {
            return None;
        }
        if self.outcome.take().is_some() {
            self.effects -= 1;
        }
        self.visit = self.visit.max(visit);
        self.undone = visit;
        Some(Outcome::done())
    }
}
