//! What there is at a moment: the saga's row, what is under way on the bus, and what each step's worker knows and
//! has done.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use super::abstraction::base;
use super::fault::Fault;
use saga_core::{Direction, Saga};

/// The code of a rejection that the workflow does not name.
pub(super) const OTHER: u8 = u8::MAX;

/// The fence of a command, as a worker and a reply carry it. The step is its index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Asked {
    pub(super) step: u8,
    pub(super) undo: bool,
    pub(super) visit: u8,
    pub(super) send: u8,
    /// Which deadline is a command's own, counted in the order in which they pass; 0 is none.
    pub(super) by: u8,
}

/// What a worker answers. A rejection names its code by its index among the step's `back_to`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Answer {
    Done,
    Rejected(u8),
    TooLate,
    Failed,
    Unknown,
}

/// A message on the bus. Messages have no order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Message {
    Command(Asked),
    Reply(Asked, Answer),
    /// By its index among the workflow's signals.
    Signal(u8),
    /// Any message to the engine about what the saga has left behind.
    Echo,
}

/// A step's worker: its row in the table of outcomes, and what is true in the state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Place {
    /// The last visit that was seen.
    pub(super) visit: u8,
    /// The last visit that was undone.
    pub(super) undone: u8,
    pub(super) saved: Option<Answer>,
    /// Whether the effect is there.
    pub(super) effect: bool,
    /// The effect is there, but the worker could not know and saved nothing.
    pub(super) unsure: bool,
    /// An operator left the effect behind, and it was written down.
    pub(super) excused: bool,
    /// The last visit whose undo took effect: what a fence should know, whether or not the worker does.
    pub(super) truly_undone: u8,
}

/// What may still go wrong.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct FaultBudget {
    pub(super) crashes: u8,
    pub(super) losses: u8,
    pub(super) duplicates: u8,
    pub(super) acts: u8,
    pub(super) returns: u8,
}

/// A state of the model.
#[derive(Clone, Debug)]
pub(super) struct State {
    pub(super) saga: Arc<Saga>,
    /// The saga's step, by index.
    pub(super) step: u8,
    /// Deadlines that have passed.
    pub(super) passed: u8,
    /// In order, and each once.
    pub(super) bus: Vec<Message>,
    pub(super) places: Vec<Place>,
    pub(super) budget: FaultBudget,
    pub(super) fault: Option<Fault>,
}

impl State {
    /// Puts a message on the bus. The same message twice is one: each further delivery of it counts as a repeat.
    pub(super) fn send(&mut self, message: Message) {
        if let Err(at) = self.bus.binary_search(&message) {
            self.bus.insert(at, message);
        }
    }

    /// Takes a message off the bus.
    pub(super) fn remove(&mut self, message: Message) {
        if let Some(at) = self.bus.iter().position(|other| *other == message) {
            self.bus.remove(at);
        }
    }

    /// Notes what is wrong; the first fault is the one that counts.
    pub(super) fn blame(&mut self, fault: Fault) {
        self.fault.get_or_insert(fault);
    }

    /// Whether the row asks for what this fence says.
    pub(super) fn asks_for(&self, asked: Asked) -> bool {
        use saga_core::Status::{Compensating, Running};
        matches!(self.saga.status, Running | Compensating)
            && self.step == asked.step
            && (self.saga.direction == Direction::Undo) == asked.undo
            && self.saga.visit == i32::from(asked.visit)
    }

    /// Whether a command that is asked for now, or its answer, is still under way.
    pub(super) fn awaits(&self) -> bool {
        self.bus.iter().any(|message| self.counts(*message) && !matches!(message, Message::Signal(_)))
    }

    /// Whether a message is about what the row asks for now.
    pub(super) fn counts(&self, message: Message) -> bool {
        match message {
            Message::Command(asked) | Message::Reply(asked, _) => self.asks_for(asked),
            Message::Signal(_) => true,
            Message::Echo => false,
        }
    }
}

/// Two states are equal if the same moves follow from both. Reasons and absolute times do not count.
impl Hash for State {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        let saga = &*self.saga;
        let due = saga.due_at.map(|due| (due - base(self.passed)).num_days());
        (saga.status, self.step, saga.direction, saga.visit, saga.attempt, saga.send).hash(hasher);
        let entered = (saga.entered_at - base(self.passed)).num_days();
        (saga.paused, saga.backing_off, due, entered).hash(hasher);
        (self.passed, &self.bus, &self.places, self.budget, &self.fault).hash(hasher);
    }
}

impl PartialEq for State {
    fn eq(&self, other: &Self) -> bool {
        (&self.saga, self.passed, &self.bus, &self.places, self.budget, &self.fault)
            == (&other.saga, other.passed, &other.bus, &other.places, other.budget, &other.fault)
    }
}
