//! A state of the model: the saga's row, the messages under way, and the records and effects of each step's worker.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use super::abstraction::base;
use super::violation::Violation;
use chrono::{DateTime, Utc};
use saga_core::{Direction, Member, Saga};

/// The code of a rejection that the workflow does not name.
pub(super) const OTHER: u8 = u8::MAX;

/// The fence of a command. The step is its index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct CommandKey {
    pub(super) step: u8,
    pub(super) undo: bool,
    pub(super) visit: u8,
    pub(super) send: u8,
    /// The number of the command's deadline, in the order in which they pass; 0 is none.
    pub(super) by: u8,
}

/// A worker's reply. A rejection has the index of its code among the step's `back_to`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum ReplyKind {
    Done,
    Rejected(u8),
    TooLate,
    Failed,
    Unknown,
}

/// Messages on the bus have no order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Message {
    Command(CommandKey),
    Reply(CommandKey, ReplyKind),
    /// The index among the workflow's signals.
    Signal(u8),
    /// Any message to the engine about an outdated command.
    Echo,
}

/// The worker of a step: its record and its real effect.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct WorkerState {
    pub(super) visit: u8,
    /// The last visit that the record has as undone.
    pub(super) undone: u8,
    pub(super) saved: Option<ReplyKind>,
    pub(super) effect: bool,
    /// The effect exists, but the worker did not know and recorded nothing.
    pub(super) effect_unknown: bool,
    /// An operator left the effect, and the history names it.
    pub(super) left_by_operator: bool,
    /// The last visit whose undo really ran, even if the record does not have it.
    pub(super) undo_done: u8,
}

/// The faults and choices that are left.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct FaultBudget {
    pub(super) crashes: u8,
    pub(super) losses: u8,
    pub(super) duplicates: u8,
    pub(super) acts: u8,
    pub(super) returns: u8,
}

#[derive(Clone, Debug)]
pub(super) struct State {
    pub(super) saga: Arc<Saga>,
    /// The index of the saga's step.
    pub(super) step: u8,
    /// The steps that the saga is at, a bit for each: its step, or the open members of its group.
    pub(super) open: u64,
    /// The first and the last step of the group that the saga is in; both are its step outside of a group.
    pub(super) group: (u8, u8),
    /// The number of deadlines that have passed.
    pub(super) passed: u8,
    /// Sorted, without duplicates.
    pub(super) bus: Vec<Message>,
    pub(super) workers: Vec<WorkerState>,
    pub(super) budget: FaultBudget,
    pub(super) violation: Option<Violation>,
}

impl State {
    /// Puts a message on the bus. An equal message is not added: a further delivery counts as a duplicate.
    pub(super) fn send(&mut self, message: Message) {
        if let Err(at) = self.bus.binary_search(&message) {
            self.bus.insert(at, message);
        }
    }

    pub(super) fn remove(&mut self, message: Message) {
        if let Some(at) = self.bus.iter().position(|other| *other == message) {
            self.bus.remove(at);
        }
    }

    /// Records a violation. Only the first one counts.
    pub(super) fn report(&mut self, violation: Violation) {
        self.violation.get_or_insert(violation);
    }

    /// Whether the row asks for the command with this key.
    pub(super) fn asks_for(&self, key: CommandKey) -> bool {
        use saga_core::Status::{Compensating, Running};
        matches!(self.saga.status, Running | Compensating)
            && self.is_open(key.step)
            && (self.saga.direction == Direction::Undo) == key.undo
            && self.saga.visit == i32::from(key.visit)
    }

    /// Whether the saga is at this step.
    pub(super) fn is_open(&self, step: u8) -> bool {
        self.open >> step & 1 == 1
    }

    /// The steps that the saga is at.
    pub(super) fn open_steps(&self) -> impl Iterator<Item = u8> + use<> {
        let open = self.open;
        (0..64).filter(move |step| open >> step & 1 == 1)
    }

    /// The member of a group at this step; `None` if the saga's row has it.
    fn member(&self, step: u8) -> Option<&Member> {
        let is_in_row = step == self.step || step < self.group.0;
        (!is_in_row).then(|| self.saga.members.iter().nth(usize::from(step - self.group.0))).flatten()
    }

    /// How often the command of this step was sent again.
    pub(super) fn send_of(&self, step: u8) -> i32 {
        self.member(step).map_or(self.saga.send, |member| member.send)
    }

    pub(super) fn is_backing_off(&self, step: u8) -> bool {
        self.member(step).map_or(self.saga.backing_off, |member| member.backing_off)
    }

    pub(super) fn due_of(&self, step: u8) -> Option<DateTime<Utc>> {
        self.member(step).map_or(self.saga.due_at, |member| member.due_at)
    }

    /// Whether the current command of this step or its reply is under way.
    pub(super) fn awaits(&self, step: u8) -> bool {
        self.bus.iter().any(|message| match message {
            Message::Command(key) | Message::Reply(key, _) => key.step == step && self.asks_for(*key),
            Message::Signal(_) | Message::Echo => false,
        })
    }

    /// Whether a message about this open member of a group may count again once the member that the saga is stuck at is completed by
    /// hand.
    pub(super) fn may_count_later(&self, key: CommandKey) -> bool {
        self.saga.status == saga_core::Status::Stuck
            && self.is_open(key.step)
            && key.step != self.step
            && self.saga.visit == i32::from(key.visit)
    }

    /// Whether a message is about the current command.
    pub(super) fn counts(&self, message: Message) -> bool {
        match message {
            Message::Command(key) | Message::Reply(key, _) => self.asks_for(key),
            Message::Signal(_) => true,
            Message::Echo => false,
        }
    }
}

/// States are equal if the same actions follow from both. Reasons and absolute times do not matter.
impl Hash for State {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        let saga = &*self.saga;
        let due = saga.due_at.map(|due| (due - base(self.passed)).num_days());
        (saga.status, self.step, saga.direction, saga.visit, saga.attempt, saga.send).hash(hasher);
        let entered = (saga.entered_at - base(self.passed)).num_days();
        (saga.paused, saga.backing_off, due, entered).hash(hasher);
        for member in saga.members.iter() {
            let due = member.due_at.map(|due| (due - base(self.passed)).num_days());
            (member.state, member.attempt, member.send, member.backing_off, due).hash(hasher);
        }
        (self.passed, &self.bus, &self.workers, self.budget, &self.violation).hash(hasher);
    }
}

impl PartialEq for State {
    fn eq(&self, other: &Self) -> bool {
        (&self.saga, self.passed, &self.bus, &self.workers, self.budget, &self.violation)
            == (&other.saga, other.passed, &other.bus, &other.workers, other.budget, &other.violation)
    }
}
