//! The model as the checker walks it: where it begins, how a move changes it, and the one thing that must hold.

use std::hash::BuildHasher;
use std::sync::{Arc, PoisonError};

use stateright::Property;

use super::Bounds;
use super::abstraction::base;
use super::fault::Fault;
use super::setting::{Mishap, Model, Move, Say};
use super::state::{Answer, FaultBudget, Message, Place, State};
use saga_core::{Act, Decision, Event, Saga, Status, Transition, apply, outstanding};

/// The one property: no state breaks a rule, and each leads to an end.
pub(super) const RULE: &str = "sound";
/// Moves of fair weather after which a saga that has not ended never will.
const MAX_FAIR_MOVES: usize = 1_000;

impl Model {
    fn begin(&self, first: Transition) -> State {
        let Bounds { crashes, losses, duplicates, acts, returns } = self.bounds;
        let saga = self.workflow.settle(first.saga, base(0), 0);
        let mut state = State {
            step: 0,
            saga: Arc::new(saga),
            passed: 0,
            bus: Vec::new(),
            places: vec![Place::default(); self.workflow.definition.steps.len()],
            budget: FaultBudget { crashes, losses, duplicates, acts, returns },
            fault: None,
        };
        self.publish(&mut state, first.actions);
        state
    }

    /// The state after a move; none if nothing changes.
    pub(super) fn after(&self, state: &State, step: &Move) -> Option<State> {
        let mut next = state.clone();
        match step {
            Move::Deliver { message, say, mishap } => {
                mishap.pay(&mut next.budget);
                if matches!(mishap, Mishap::None | Mishap::NoDefinition) {
                    next.remove(*message);
                }
                match (message, self.event(*message)) {
                    (Message::Command(asked), _) => self.work(&mut next, *asked, *say, *mishap),
                    (_, Some(event)) => drop(self.happen(&mut next, &event, base(state.passed), *mishap)),
                    // Stale, whatever it was: what the row asks for is published again.
                    _ => self.publish(&mut next, outstanding(&self.workflow.definition, &state.saga)),
                }
            }
            Move::Lose(message) => {
                next.budget.losses -= 1;
                next.remove(*message);
            }
            Move::Ring { mishap } => self.ring(&mut next, *mishap)?,
            Move::Pass(passed) => self.pass(&mut next, *passed),
            Move::Signal { signal, mishap } => {
                mishap.pay(&mut next.budget);
                let event = Event::Signal(self.workflow.signals[usize::from(*signal)].clone());
                if matches!(mishap, Mishap::Kept | Mishap::Unpublished) {
                    next.send(Message::Signal(*signal));
                }
                if !self.happen(&mut next, &event, base(state.passed), *mishap) {
                    return None;
                }
            }
            Move::Act { act, mishap } => {
                mishap.pay(&mut next.budget);
                if *act != Act::Resume {
                    next.budget.acts = next.budget.acts.saturating_sub(1);
                }
                if matches!(act, Act::Complete { .. }) && !self.complete_by_hand(&mut next) {
                    return None;
                }
                if !self.happen(&mut next, &Event::Operator(act.clone()), base(state.passed), *mishap) {
                    return None;
                }
            }
        }
        self.judge_end(&mut next);
        self.reduce(&mut next);
        Some(next)
    }

    pub(super) fn pass(&self, state: &mut State, passed: u8) {
        state.saga = Arc::new(self.workflow.let_pass(&state.saga, state.passed, passed));
        state.passed = passed;
    }

    fn ring(&self, next: &mut State, mishap: Mishap) -> Option<()> {
        let saga = &next.saga;
        let early =
            !saga.backing_off && saga.status != Status::Waiting && next.awaits() && !self.is_overdue(next);
        mishap.pay(&mut next.budget);
        if early {
            Mishap::Kept.pay(&mut next.budget);
        }
        let now = next.saga.due_at?.max(base(next.passed));
        self.happen(next, &Event::Alarm, now, mishap).then_some(())
    }

    /// Fair weather: everything arrives, workers do their work, and whoever can help, does.
    fn fair(&self, state: &State) -> Option<Move> {
        let (say, mishap) = (Say::Answer(Answer::Done), Mishap::None);
        if state.saga.status == Status::Stuck {
            return Some(Move::Act { act: Act::Retry, mishap });
        }
        if state.saga.paused {
            return Some(Move::Act { act: Act::Resume, mishap });
        }
        if let Some(message) = state.bus.first() {
            return Some(Move::Deliver { message: *message, say, mishap });
        }
        if self.is_due(state) {
            return Some(Move::Ring { mishap });
        }
        let told = (0..self.workflow.signals.len() as u8).find(|signal| {
            let event = Event::Signal(self.workflow.signals[usize::from(*signal)].clone());
            matches!(self.would(&state.saga, &event, state.passed), Decision::Transition(_))
        });
        told.map(|signal| Move::Signal { signal, mishap })
            .or_else(|| self.next_deadline(state).map(Move::Pass))
    }

    fn would(&self, saga: &Saga, event: &Event, passed: u8) -> Decision {
        apply(&self.workflow.definition, saga, event, base(passed))
    }

    /// Whether an end is reached from here if nothing goes wrong any more; if not, why not. What lies on the way is
    /// remembered. A fault on the way is found where it is, unless only an act beyond the bounds leads to it.
    pub(super) fn leads_on(&self, state: &State) -> Result<(), Fault> {
        let (mut way, mut beyond) = (Vec::new(), false);
        let mut here = state.clone();
        while way.len() < MAX_FAIR_MOVES {
            if let Some(fault) = here.fault {
                return if beyond { Err(fault) } else { Ok(()) };
            }
            let hash = self.hashing.hash_one(&here);
            let mut known = self.leading_on.lock().unwrap_or_else(PoisonError::into_inner);
            if here.saga.status.is_end() || known.contains(&hash) {
                known.extend(way.into_iter().chain([hash]));
                return Ok(());
            }
            drop(known);
            way.push(hash);
            let step = self.fair(&here).ok_or(Fault::NeverEnds)?;
            beyond |= matches!(step, Move::Act { act: Act::Retry, .. }) && here.budget.acts == 0;
            here = self.after(&here, &step).ok_or(Fault::NeverEnds)?;
        }
        Err(Fault::NeverEnds)
    }
}

impl stateright::Model for Model {
    type State = State;
    type Action = Move;

    fn init_states(&self) -> Vec<State> {
        self.workflow.starts().map(|first| self.begin(first)).collect()
    }

    fn actions(&self, state: &State, moves: &mut Vec<Move>) {
        self.possible(state, moves);
    }

    fn next_state(&self, state: &State, step: Move) -> Option<State> {
        self.after(state, &step)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![Property::always(RULE, |model: &Self, state: &State| {
            state.fault.is_none() && model.leads_on(state).is_ok()
        })]
    }
}
