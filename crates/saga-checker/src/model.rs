//! The model for the checker: the first state, the effect of an action, and the property that must hold.

use std::hash::BuildHasher;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use chrono::TimeDelta;
use stateright::Property;

use super::Bounds;
use super::abstraction::base;
use super::actions::{Fault, Model, ModelAction, WorkResult};
use super::state::{FaultBudget, Message, ReplyKind, State, WorkerState};
use super::violation::Violation;
use saga_core::{Decision, Event, OperatorAction, Saga, Status, Transition, apply, focused, outstanding};

/// The property: no state violates a rule, and an end can be reached from each.
pub(super) const PROPERTY: &str = "sound";
/// A saga that has not ended after this many actions without faults never ends.
const MAX_ACTIONS_TO_END: usize = 1_000;
/// How much later the other members of a group are due than the one whose timer comes.
const DUE_LATER: TimeDelta = TimeDelta::hours(1);

impl Model {
    fn begin(&self, first: Transition) -> State {
        let Bounds { crashes, losses, duplicates, acts, returns } = self.bounds;
        let saga = self.workflow.settle(first.saga, base(0), 0);
        let mut state = State {
            step: 0,
            open: 0,
            group: (0, 0),
            saga: Arc::new(saga.clone()),
            passed: 0,
            bus: Vec::new(),
            workers: vec![WorkerState::default(); self.workflow.definition.steps.len()],
            budget: FaultBudget { crashes, losses, duplicates, acts, returns },
            violation: None,
        };
        self.take(&mut state, saga);
        self.publish(&mut state, first.actions);
        state
    }

    /// The state after an action; `None` if nothing changes.
    pub(super) fn after(&self, state: &State, step: &ModelAction) -> Option<State> {
        let mut next = state.clone();
        match step {
            ModelAction::Deliver { message, result, fault } => {
                fault.spend(&mut next.budget);
                if *fault == Fault::None {
                    next.remove(*message);
                }
                match (message, self.event(*message)) {
                    (Message::Command(key), _) => self.work(&mut next, *key, *result, *fault),
                    (_, Some(event)) => drop(self.apply_event(&mut next, &event, base(state.passed), *fault)),
                    // The engine publishes the current command again.
                    _ => self.publish(&mut next, outstanding(&self.workflow.definition, &state.saga)),
                }
            }
            ModelAction::Lose(message) => {
                next.budget.losses -= 1;
                next.remove(*message);
            }
            ModelAction::FireTimer { step, fault } => self.fire_timer(&mut next, *step, *fault)?,
            ModelAction::PassDeadline(passed) => self.pass(&mut next, *passed),
            ModelAction::Signal { signal, fault } => {
                fault.spend(&mut next.budget);
                let event = Event::signal(self.workflow.signals[usize::from(*signal)].as_str());
                if matches!(fault, Fault::Redelivery | Fault::CrashBeforePublish) {
                    next.send(Message::Signal(*signal));
                }
                if !self.apply_event(&mut next, &event, base(state.passed), *fault) {
                    return None;
                }
            }
            ModelAction::OperatorAction { act, fault } => {
                fault.spend(&mut next.budget);
                if *act != OperatorAction::Resume {
                    next.budget.acts = next.budget.acts.saturating_sub(1);
                }
                if let OperatorAction::Complete { step, .. } = act
                    && !self.complete_manually(&mut next, step.as_deref())
                {
                    return None;
                }
                if !self.apply_event(&mut next, &Event::Operator(act.clone()), base(state.passed), *fault) {
                    return None;
                }
            }
        }
        self.check_end(&mut next);
        self.reduce(&mut next);
        Some(next)
    }

    pub(super) fn pass(&self, state: &mut State, passed: u8) {
        self.take(state, self.workflow.after_deadline(&state.saga, state.passed, passed));
        state.passed = passed;
    }

    fn fire_timer(&self, next: &mut State, step: u8, fault: Fault) -> Option<()> {
        let early = self.is_early(next, step);
        fault.spend(&mut next.budget);
        if early {
            Fault::Redelivery.spend(&mut next.budget);
        }
        // Timers of several members that come together are timers that come one after the other.
        let mut saga = focused(&self.workflow.definition, &next.saga, step.into())?.into_owned();
        let now = saga.due_at?.max(base(next.passed));
        for member in saga.members.iter_mut() {
            member.due_at = member.due_at.map(|due| due.max(now + DUE_LATER));
        }
        self.take(next, saga);
        self.apply_event(next, &Event::TimerFired, now, fault).then_some(())
    }

    /// The next action if nothing goes wrong: messages arrive, workers succeed, operators retry.
    fn next_without_fault(&self, state: &State) -> Option<ModelAction> {
        let (result, fault) = (WorkResult::ReplyKind(ReplyKind::Done), Fault::None);
        if state.saga.status == Status::Stuck {
            return Some(ModelAction::OperatorAction { act: OperatorAction::Retry, fault });
        }
        if state.saga.paused {
            return Some(ModelAction::OperatorAction { act: OperatorAction::Resume, fault });
        }
        if let Some(message) = state.bus.first() {
            return Some(ModelAction::Deliver { message: *message, result, fault });
        }
        let due = self.due_steps(state).next();
        if let Some(step) = due {
            return Some(ModelAction::FireTimer { step, fault });
        }
        let signal = (0..self.workflow.signals.len() as u8).find(|signal| {
            let event = Event::signal(self.workflow.signals[usize::from(*signal)].as_str());
            matches!(self.decide(&state.saga, &event, state.passed), Decision::Transition(_))
        });
        signal
            .map(|signal| ModelAction::Signal { signal, fault })
            .or_else(|| self.next_deadline(state).map(ModelAction::PassDeadline))
    }

    fn decide(&self, saga: &Saga, event: &Event, passed: u8) -> Decision {
        apply(&self.workflow.definition, saga, event, base(passed))
    }

    /// Checks that an end is reached from here if nothing goes wrong any more. The states on the way are stored. A
    /// violation on the way is reported at its own state, unless only an operator action beyond the bounds leads to
    /// it.
    pub(super) fn reaches_end(&self, state: &State) -> Result<(), Violation> {
        let (mut way, mut beyond) = (Vec::new(), false);
        let mut here = state.clone();
        while way.len() < MAX_ACTIONS_TO_END {
            if let Some(violation) = here.violation {
                return if beyond { Err(violation) } else { Ok(()) };
            }
            let hash = self.hashing.hash_one(&here);
            let mut known = self.reaching_end.lock().unwrap_or_else(PoisonError::into_inner);
            if here.saga.status.is_end() || known.contains(&hash) {
                known.extend(way.into_iter().chain([hash]));
                return Ok(());
            }
            drop(known);
            way.push(hash);
            let step = self.next_without_fault(&here).ok_or(Violation::NeverEnds)?;
            beyond |= matches!(step, ModelAction::OperatorAction { act: OperatorAction::Retry, .. })
                && here.budget.acts == 0;
            here = self.after(&here, &step).ok_or(Violation::NeverEnds)?;
        }
        Err(Violation::NeverEnds)
    }
}

impl stateright::Model for Model {
    type State = State;
    type Action = ModelAction;

    fn init_states(&self) -> Vec<State> {
        self.workflow.starts().map(|first| self.begin(first)).collect()
    }

    fn actions(&self, state: &State, actions: &mut Vec<ModelAction>) {
        if !self.is_spent() {
            self.collect_actions(state, actions);
        }
    }

    fn next_state(&self, state: &State, step: ModelAction) -> Option<State> {
        self.after(state, &step)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![Property::always(PROPERTY, |model: &Self, state: &State| {
            model.was_cut_off.load(Ordering::Relaxed)
                || state.violation.is_none() && model.reaches_end(state).is_ok()
        })]
    }
}
