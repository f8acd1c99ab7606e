//! A workflow with small numbers, so that the checker can visit all its states: few attempts, short delays, deadlines
//! far apart.
//!
//! Time is abstract. Retry delays and reply timeouts take milliseconds, deadlines are days apart, and after each
//! action the clock returns to the last deadline that has passed. So any number of retries fits before a deadline.

use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use saga_core::range::EARLIEST;
use saga_core::{Definition, Direction, NewSaga, Saga, Status, Transition, Work, open_steps, start};

/// The model's limit of the attempts of a step or an undo.
pub(super) const MAX_ATTEMPTS: i32 = 2;
/// Retry delay and reply timeout.
const RETRY_DELAY_MS: u64 = 10;
/// The time between two deadlines. It is much longer than a day, after which a wait without a deadline is due.
const DEADLINE_DISTANCE: TimeDelta = TimeDelta::days(10);
/// A due time that is further away than this is a deadline.
const DEADLINE_MIN_DISTANCE: TimeDelta = TimeDelta::days(5);
const LONGER_THAN_REPLY_TIMEOUT: TimeDelta = TimeDelta::hours(1);

#[derive(Clone, Debug)]
pub(super) struct AbstractWorkflow {
    pub(super) definition: Definition,
    /// Every signal that a waiting saga accepts.
    pub(super) signals: Vec<String>,
    /// The inputs to start with: one that skips no wait, and one that skips every wait that can be skipped.
    inputs: Vec<Map<String, Value>>,
    last_deadline: u8,
}

impl AbstractWorkflow {
    /// Keeps the steps, undos and ends, and shrinks all numbers. A deadline in seconds is the next one after its step
    /// is entered. The deadlines in fields follow it in the order of the steps.
    pub(super) fn of(definition: &Definition) -> Self {
        let mut definition = definition.clone();
        let mut fields: Vec<String> = Vec::new();
        let mut relative = 0;
        for step in &mut definition.steps {
            step.timeout_ms = RETRY_DELAY_MS;
            for retry in [&mut step.retry, &mut step.undo_retry] {
                (retry.first_ms, retry.cap_ms, retry.factor) = (RETRY_DELAY_MS, RETRY_DELAY_MS, 1.0);
                (retry.jitter, retry.total_seconds) = (0.0, None);
                retry.attempts = retry.attempts.map(|attempts| attempts.min(MAX_ATTEMPTS));
            }
            let Some(deadline) = &mut step.deadline else { continue };
            relative = relative.max(u8::from(deadline.seconds.is_some()));
            deadline.seconds = deadline.seconds.map(|_| DEADLINE_DISTANCE.num_seconds() as u32);
            fields.extend(deadline.at.clone().filter(|field| !fields.contains(field)));
        }
        let at = |index: usize| json!(base(relative + index as u8 + 1).to_rfc3339());
        let plain: Map<String, Value> =
            fields.iter().enumerate().map(|(index, field)| (field.clone(), at(index))).collect();
        let skips = definition.steps.iter().filter_map(|step| Some((step.skip_if.clone()?, json!(true))));
        let mut with_skips = plain.clone();
        with_skips.extend(skips);
        let mut inputs = vec![plain, with_skips];
        inputs.dedup();
        let signals = signals(&definition);
        Self { definition, signals, inputs, last_deadline: relative + fields.len() as u8 }
    }

    /// The first transition of a saga, for every input.
    pub(super) fn starts(&self) -> impl Iterator<Item = Transition> {
        let id = Uuid::from_u128(7);
        self.inputs.iter().map(move |input| {
            let input = input.clone();
            let new = NewSaga { id, subject_id: id, input, trace: None, seq: 0 };
            start(&self.definition, new, base(0))
        })
    }

    /// Resets the times of a saga to just after the last passed deadline, and clears the fields that do not affect any
    /// decision.
    pub(super) fn settle(&self, mut saga: Saga, now: DateTime<Utc>, passed: u8) -> Saga {
        let counts = open_steps(&self.definition, &saga).into_iter().any(|index| {
            let deadline = self.definition.steps[index].deadline.as_ref();
            saga.direction == Direction::Do && deadline.is_some_and(|deadline| deadline.seconds.is_some())
        });
        saga.entered_at = if counts { saga.entered_at } else { base(0) };
        self.reset_times(&mut saga, now, passed);
        saga.seq = 0;
        // No decision reads the input, and every state would carry it.
        saga.input = Arc::default();
        saga.workflow = String::new();
        saga.updated_at = base(0);
        saga.finished_at = saga.finished_at.map(|_| base(0));
        saga.stuck_since = saga.stuck_since.map(|_| base(0));
        saga
    }

    /// The last deadline that can pass. A deadline in seconds adds one, because it counts from its step.
    pub(super) fn last_deadline(&self) -> u8 {
        self.last_deadline
    }

    /// The saga just after a deadline has passed. What was due before is due now.
    pub(super) fn after_deadline(&self, saga: &Saga, before: u8, passed: u8) -> Saga {
        let mut saga = saga.clone();
        self.reset_times(&mut saga, base(before), passed);
        saga
    }

    /// Sets the times of the last send, and the due times that are not deadlines, of the row and of all members of a group.
    fn reset_times(&self, saga: &mut Saga, now: DateTime<Utc>, passed: u8) {
        let since = base(passed) - LONGER_THAN_REPLY_TIMEOUT;
        let due = |due: DateTime<Utc>| if due - now > DEADLINE_MIN_DISTANCE { due } else { base(passed) };
        (saga.since, saga.due_at) = (since, saga.due_at.map(due));
        for member in saga.members.iter_mut() {
            (member.since, member.due_at) = (since, member.due_at.map(due));
        }
        self.choose_member(saga);
    }

    /// Which open member of a group is in the row follows from the due times alone.
    pub(super) fn choose_member(&self, saga: &mut Saga) {
        if saga.status == Status::Running {
            saga.put_earliest_into_row(&self.definition, |_, member| member.since);
        }
    }
}

/// The number of deadlines that have passed at this time, with this one; 0 for `None`.
pub(super) fn number(deadline: Option<DateTime<Utc>>) -> u8 {
    deadline.map_or(0, |at| ((at - base(0)).num_seconds() / DEADLINE_DISTANCE.num_seconds()) as u8)
}

/// The time just after this many deadlines have passed.
pub(super) fn base(passed: u8) -> DateTime<Utc> {
    // Times in a saga's context must not be before `EARLIEST`.
    EARLIEST + DEADLINE_DISTANCE * (i32::from(passed) + 1)
}

fn signals(definition: &Definition) -> Vec<String> {
    let mut all: Vec<String> = definition.signals.keys().cloned().collect();
    for step in &definition.steps {
        if let Work::Wait { signal } = step.work()
            && !all.iter().any(|known| known == signal)
        {
            all.push(signal.to_owned());
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deadlines_are_numbered_in_order() {
        let workflow = AbstractWorkflow::of(&crate::laws::booking());
        let saga = workflow.starts().next().unwrap().saga;
        assert_eq!(number(saga.time("expires_at")), 2);
        assert_eq!(number(saga.time("claimable_at")), 3);
        assert_eq!((workflow.last_deadline(), number(None)), (3, 0));
        assert_eq!(workflow.signals, ["cancel", "pay"]);
    }

    #[test]
    fn retry_delays_do_not_change_the_row() {
        let workflow = AbstractWorkflow::of(&crate::laws::booking());
        let saga = workflow.starts().next().unwrap().saga;
        let settled = workflow.settle(saga.clone(), base(0), 0);
        let mut later = saga;
        let delay = TimeDelta::milliseconds(170);
        later.since += delay;
        later.due_at = later.due_at.map(|due| due + delay);
        assert_eq!(workflow.settle(later, base(0) + delay, 0), settled);
    }
}
