//! The actions that are possible in a state: every delivery, loss, timer, signal and operator action, with every
//! fault.
//!
//! Commit, publish and acknowledge are three steps, and a crash can come between any two. A message cannot be seen
//! before it is published, and an acknowledgement is seen only by its consumer. So a late publish or acknowledgement
//! equals a slow message, and it is enough to choose, for each commit, after which of the three steps the crash comes.

use super::actions::{Fault, Model, ModelAction, WorkResult};
use super::state::{CommandKey, FaultBudget, Message, OTHER, ReplyKind, State};
use saga_core::{OperatorAction, Status, allowed_actions, outstanding};

impl FaultBudget {
    fn may_repeat(&self) -> bool {
        self.duplicates > 0 || self.crashes > 0
    }
}

impl Model {
    pub(super) fn collect_actions(&self, state: &State, actions: &mut Vec<ModelAction>) {
        if state.violation.is_some() {
            return;
        }
        if self.is_over(state) {
            return self.after_end(state, actions);
        }
        for message in state.bus.iter().copied() {
            self.deliveries(state, message, actions);
            // The loss of a message that no one waits for changes nothing until it would arrive.
            if state.budget.losses > 0 && state.counts(message) && !matches!(message, Message::Signal(_)) {
                actions.push(ModelAction::Lose(message));
            }
        }
        self.time(state, actions);
        self.outside(state, actions);
    }

    /// Whether the saga cannot change again: it has ended, or is stuck and no operator action is left.
    pub(super) fn is_over(&self, state: &State) -> bool {
        let status = state.saga.status;
        status.is_end() || (self.reduced && status == Status::Stuck && state.budget.acts == 0)
    }

    /// Whether publishing the current command again would change the bus.
    fn echo_matters(&self, state: &State) -> bool {
        let mut after = state.clone();
        self.publish(&mut after, outstanding(&self.workflow.definition, &state.saga));
        after.bus != state.bus
    }

    /// Only commands remain, and the worst result is that one is done.
    fn after_end(&self, state: &State, actions: &mut Vec<ModelAction>) {
        let result = WorkResult::ReplyKind(ReplyKind::Done);
        let delivered = state.bus.iter().map(|message| ModelAction::Deliver {
            message: *message,
            result,
            fault: Fault::None,
        });
        actions.extend(delivered);
    }

    fn deliveries(&self, state: &State, message: Message, actions: &mut Vec<ModelAction>) {
        let nothing = [WorkResult::ReplyKind(ReplyKind::Done)];
        let results = match message {
            Message::Command(key) => self.possible_results(state, key),
            _ => nothing.to_vec(),
        };
        if message == Message::Echo && !self.echo_matters(state) {
            return;
        }
        let engine = self.reaches_engine(message);
        let once = self.reduced && !state.counts(message);
        for result in results {
            let mut push = |fault| actions.push(ModelAction::Deliver { message, result, fault });
            push(Fault::None);
            // The fence treats a second delivery of an outdated message like the first.
            if once {
                continue;
            }
            if state.budget.may_repeat() {
                push(Fault::Redelivery);
            }
            if state.budget.crashes > 0 && (engine || !self.reduced) {
                push(Fault::CrashBeforePublish);
            }
        }
    }

    fn time(&self, state: &State, actions: &mut Vec<ModelAction>) {
        for step in self.due_steps(state) {
            // Firing early, while a reply is under way, is one way to send a command twice.
            if !self.is_early(state, step) || state.budget.may_repeat() {
                actions.push(ModelAction::FireTimer { step, fault: Fault::None });
                if state.budget.crashes > 0 {
                    actions.push(ModelAction::FireTimer { step, fault: Fault::CrashBeforePublish });
                }
            }
        }
        actions.extend(self.next_deadline(state).map(ModelAction::PassDeadline));
    }

    /// Whether a timer of this step would come while the step's command or reply is under way.
    pub(super) fn is_early(&self, state: &State, step: u8) -> bool {
        !state.is_backing_off(step)
            && state.saga.status != Status::Waiting
            && state.awaits(step)
            && !self.is_overdue(state, step)
    }

    /// The next deadline that matters to the saga's step or to a command.
    pub(super) fn next_deadline(&self, state: &State) -> Option<u8> {
        let in_flight = state.bus.iter().filter_map(|message| match message {
            // A late `do` does more harm without its deadline.
            Message::Command(key) if !self.reduced || state.asks_for(*key) => Some(key.by),
            _ => None,
        });
        let own = self.own_deadlines(state).map(|(_, at)| at);
        own.chain(in_flight).filter(|at| *at > state.passed).min()
    }

    fn outside(&self, state: &State, actions: &mut Vec<ModelAction>) {
        if state.saga.status == Status::Waiting {
            for signal in 0..self.workflow.signals.len() as u8 {
                actions.push(ModelAction::Signal { signal, fault: Fault::None });
                if state.budget.may_repeat() {
                    actions.push(ModelAction::Signal { signal, fault: Fault::Redelivery });
                }
                if state.budget.crashes > 0 {
                    actions.push(ModelAction::Signal { signal, fault: Fault::CrashBeforePublish });
                }
            }
        }
        if state.budget.acts == 0 && !state.saga.paused {
            return;
        }
        let allowed = allowed_actions(Some(&self.workflow.definition), &state.saga);
        // A paused saga can always be resumed.
        let free = |act: &OperatorAction| state.budget.acts > 0 || *act == OperatorAction::Resume;
        let acts = OperatorAction::all().into_iter().flat_map(|act| self.of_each_member(state, act));
        for act in acts.filter(|act| free(act) && allowed.contains(&act.name())) {
            actions.push(ModelAction::OperatorAction { act: act.clone(), fault: Fault::None });
            if state.budget.crashes > 0 {
                actions.push(ModelAction::OperatorAction { act, fault: Fault::CrashBeforePublish });
            }
        }
    }

    /// An action; the completion of a step once for each open member of a group.
    fn of_each_member(&self, state: &State, act: OperatorAction) -> Vec<OperatorAction> {
        let OperatorAction::Complete { output, .. } = act else { return vec![act] };
        let is_stuck = state.saga.status == Status::Stuck;
        let steps = state.open_steps().filter(|step| !is_stuck || *step == state.step);
        let of_step = |step| OperatorAction::Complete {
            step: Some(self.step_name(step).to_owned()),
            output: output.clone(),
        };
        steps.map(of_step).collect()
    }

    /// The results that a worker may have for a command in this state.
    pub(super) fn possible_results(&self, state: &State, key: CommandKey) -> Vec<WorkResult> {
        let mut all = vec![WorkResult::ReplyKind(ReplyKind::Done)];
        // For an outdated command only an effect would do harm.
        let past = self.reduced && !state.asks_for(key) && !state.may_count_later(key);
        if past || !self.performs(state, key) {
            return all;
        }
        all.push(WorkResult::ReplyKind(ReplyKind::Failed));
        if !self.is_elsewhere() {
            all.push(WorkResult::Poisoned);
        }
        if key.undo {
            all.push(WorkResult::ReplyKind(ReplyKind::Rejected(OTHER)));
            return all;
        }
        let worker = &state.workers[usize::from(key.step)];
        let elsewhere = self.is_elsewhere();
        if worker.effect_unknown {
            // The effect exists. A worker that checks finds it, or still does not know.
            all.pop();
        } else {
            all.push(WorkResult::ReplyKind(ReplyKind::Rejected(OTHER)));
            let back = &self.workflow.definition.steps[usize::from(key.step)].back_to;
            let ways = if state.budget.returns > 0 { back.len() as u8 } else { 0 };
            all.extend((0..ways).map(|code| WorkResult::ReplyKind(ReplyKind::Rejected(code))));
        }
        if elsewhere && state.budget.losses > 0 {
            all.push(WorkResult::ReplyKind(ReplyKind::Unknown));
            if !worker.effect_unknown {
                all.push(WorkResult::UnknownDone);
            }
        }
        all
    }
}
