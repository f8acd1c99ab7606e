//! A workflow with small numbers, so that all its ways can be walked: few attempts, short pauses, deadlines far apart.
//!
//! Time is abstract. Pauses and silences take milliseconds, deadlines lie days apart, and after each move the clock
//! is set back to the last deadline that has passed. So any number of pauses fits before a deadline, or none does.

use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use saga_core::range::EARLIEST;
use saga_core::{Definition, Direction, NewSaga, Saga, Transition, Work, start};

/// Failed answers before a step or an undo gives up, in the model.
pub(super) const ATTEMPTS: i32 = 2;
/// The pause after a failed answer and the silence before a command is sent again, in milliseconds.
const PAUSE_MS: u64 = 10;
/// From one deadline to the next. Waits without a deadline are looked at once a day: that must be short.
const APART: TimeDelta = TimeDelta::days(10);
/// What is further away than this is a deadline.
const FAR: TimeDelta = TimeDelta::days(5);
/// How long ago a command went out whose silence is over.
const LONG_AGO: TimeDelta = TimeDelta::hours(1);

/// A definition as the model runs it.
#[derive(Clone, Debug)]
pub(super) struct AbstractWorkflow {
    pub(super) definition: Definition,
    /// Everything that can be told to a saga that waits.
    pub(super) signals: Vec<String>,
    /// What the saga may be started with: with every wait kept, and with those passed over that can be.
    inputs: Vec<Map<String, Value>>,
    last_deadline: u8,
}

impl AbstractWorkflow {
    /// Keeps steps, undos, ways and ends; reduces the rest. A deadline in seconds is the next to pass once its step
    /// is entered; those that stand in fields follow, in the order in which the steps name them.
    pub(super) fn of(definition: &Definition) -> Self {
        let mut definition = definition.clone();
        let mut fields: Vec<String> = Vec::new();
        let mut relative = 0;
        for step in &mut definition.steps {
            step.timeout_ms = PAUSE_MS;
            for retry in [&mut step.retry, &mut step.undo_retry] {
                (retry.first_ms, retry.cap_ms, retry.factor) = (PAUSE_MS, PAUSE_MS, 1.0);
                (retry.jitter, retry.total_seconds) = (0.0, None);
                retry.attempts = retry.attempts.map(|attempts| attempts.min(ATTEMPTS));
            }
            let Some(deadline) = &mut step.deadline else { continue };
            relative = relative.max(u8::from(deadline.seconds.is_some()));
            deadline.seconds = deadline.seconds.map(|_| APART.num_seconds() as u32);
            fields.extend(deadline.at.clone().filter(|field| !fields.contains(field)));
        }
        let at = |index: usize| json!(base(relative + index as u8 + 1).to_rfc3339());
        let plain: Map<String, Value> =
            fields.iter().enumerate().map(|(index, field)| (field.clone(), at(index))).collect();
        let skips = definition.steps.iter().filter_map(|step| Some((step.skip_if.clone()?, json!(true))));
        let mut hurried = plain.clone();
        hurried.extend(skips);
        let mut inputs = vec![plain, hurried];
        inputs.dedup();
        let signals = signals(&definition);
        Self { definition, signals, inputs, last_deadline: relative + fields.len() as u8 }
    }

    /// The first transition of a saga, for everything that it may be started with.
    pub(super) fn starts(&self) -> impl Iterator<Item = Transition> {
        let id = Uuid::from_u128(7);
        self.inputs.iter().map(move |input| {
            let input = input.clone();
            let new = NewSaga { id, subject_id: id, input, trace: None, seq: 0 };
            start(&self.definition, new, base(0))
        })
    }

    /// Sets a saga's times back to what they are right after the last deadline that has passed: what is due soon is
    /// due, silence is over when it is, and what tells two rows apart without meaning anything is evened out.
    pub(super) fn settle(&self, mut saga: Saga, now: DateTime<Utc>, passed: u8) -> Saga {
        let step = self.definition.index(&saga.step).map(|index| &self.definition.steps[index]);
        let counts = step.is_some_and(|step| {
            saga.direction == Direction::Do
                && step.deadline.as_ref().is_some_and(|deadline| deadline.seconds.is_some())
        });
        saga.entered_at = if counts { saga.entered_at } else { base(0) };
        saga.since = base(passed) - LONG_AGO;
        saga.due_at = saga.due_at.map(|due| if due - now > FAR { due } else { base(passed) });
        saga.seq = 0;
        // Nothing reads it again, and each state would carry it.
        saga.input = Arc::default();
        saga.workflow = String::new();
        saga.updated_at = base(0);
        saga.finished_at = saga.finished_at.map(|_| base(0));
        saga.stuck_since = saga.stuck_since.map(|_| base(0));
        saga
    }

    /// A deadline in seconds counts from its step, so that there is always one more that may pass.
    pub(super) fn last_deadline(&self) -> u8 {
        self.last_deadline
    }

    /// The saga when a deadline passes that nobody has looked at yet: whatever was due is overdue.
    pub(super) fn let_pass(&self, saga: &Saga, before: u8, passed: u8) -> Saga {
        let mut saga = saga.clone();
        saga.since = base(passed) - LONG_AGO;
        saga.due_at = saga.due_at.map(|due| if due - base(before) > FAR { due } else { base(passed) });
        saga
    }
}

/// How many deadlines have passed at this time, this one included; none is 0.
pub(super) fn number(deadline: Option<DateTime<Utc>>) -> u8 {
    deadline.map_or(0, |at| ((at - base(0)).num_seconds() / APART.num_seconds()) as u8)
}

/// The time right after so many deadlines have passed.
pub(super) fn base(passed: u8) -> DateTime<Utc> {
    // A saga takes no deadline from before it.
    EARLIEST + APART * (i32::from(passed) + 1)
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
    fn deadlines_are_numbered_in_the_order_in_which_they_pass() {
        let workflow = AbstractWorkflow::of(&crate::laws::booking());
        let saga = workflow.starts().next().unwrap().saga;
        assert_eq!(number(saga.time("expires_at")), 2);
        assert_eq!(number(saga.time("claimable_at")), 3);
        assert_eq!((workflow.last_deadline(), number(None)), (3, 0));
        assert_eq!(workflow.signals, ["cancel", "pay"]);
    }

    #[test]
    fn a_row_is_the_same_however_long_its_pauses_took() {
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
