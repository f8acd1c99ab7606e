//! Property tests of [`super::apply()`]: random deliveries, duplicates, losses, signals, timers and operator actions, with
//! workers that keep a fence. Then everything is delivered, and the saga must end.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, TimeDelta, Utc};
use proptest::prelude::*;
use serde_json::{Map, json};

use super::*;

/// A random operation. The numbers choose among the messages under way.
#[derive(Clone, Debug)]
pub(super) enum Operation {
    Deliver { which: usize, kind: u8, keep: bool },
    Answer { which: usize, keep: bool },
    LoseCommand(usize),
    LoseReply(usize),
    Signal(&'static str),
    Alarm { after_ms: i64 },
    Operator(OperatorAction),
}

pub(super) fn operation() -> impl Strategy<Value = Operation> {
    prop_oneof![
        6 => (any::<usize>(), 0..8u8, any::<bool>()).prop_map(|(which, kind, keep)| Operation::Deliver { which, kind, keep }),
        6 => (any::<usize>(), any::<bool>()).prop_map(|(which, keep)| Operation::Answer { which, keep }),
        1 => any::<usize>().prop_map(Operation::LoseCommand),
        1 => any::<usize>().prop_map(Operation::LoseReply),
        3 => prop_oneof![Just("pay"), Just("cancel"), Just("nonsense")].prop_map(Operation::Signal),
        3 => (0..400_000i64).prop_map(|after_ms| Operation::Alarm { after_ms }),
        1 => prop::sample::select(OperatorAction::all().to_vec()).prop_map(Operation::Operator),
    ]
}

/// What an external worker stores about a step: one fence for do and undo.
#[derive(Default)]
struct WorkerRecord {
    visit: i32,
    outcome: Option<Outcome>,
    undone_visit: i32,
    effect: bool,
}

struct Simulation<'a> {
    definition: &'a Definition,
    /// The flight of the start and of all signals.
    flight: Option<i64>,
    saga: Saga,
    now: DateTime<Utc>,
    commands: Vec<Command>,
    replies: Vec<Reply>,
    workers: BTreeMap<String, WorkerRecord>,
    reached: BTreeSet<String>,
    manual_steps: BTreeSet<String>,
    seqs: Vec<i64>,
}

impl<'a> Simulation<'a> {
    fn begin(definition: &'a Definition, flight: Option<i64>) -> Self {
        let now = DateTime::from_timestamp(1_800_000_000, 0).unwrap();
        let id = uuid::Uuid::from_u128(7);
        let new = NewSaga { id, subject_id: id, input: Map::new(), trace: None, seq: 0 };
        let transition = start_in(flight, definition, new, now);
        let mut simulation = Self {
            definition,
            flight,
            saga: transition.saga.clone(),
            now,
            commands: Vec::new(),
            replies: Vec::new(),
            workers: BTreeMap::new(),
            reached: BTreeSet::new(),
            manual_steps: BTreeSet::new(),
            seqs: Vec::new(),
        };
        simulation.take(transition);
        simulation
    }

    fn take(&mut self, transition: Transition) {
        if transition.entry.is_some() {
            self.seqs.push(transition.saga.seq);
        }
        for action in transition.actions {
            if let Action::Send(command) = action {
                if command.direction == Direction::Undo {
                    assert!(self.reached.contains(&command.step), "undo of {} before its do", command.step);
                    assert_eq!(command.deadline, None, "an undo has no deadline");
                }
                self.commands.push(command);
            }
        }
        self.saga = transition.saga;
        if self.saga.direction == Direction::Do {
            let open = open_steps(self.definition, &self.saga).into_iter();
            self.reached.extend(open.map(|index| self.definition.steps[index].name.clone()));
        }
        self.check();
    }

    /// Invariants of every row.
    fn check(&self) {
        let saga = &self.saga;
        assert!(self.definition.index(&saga.step).is_some());
        assert_eq!(saga.finished_at.is_some(), saga.status.is_end());
        assert_eq!(saga.stuck_since.is_some(), saga.status == Status::Stuck);
        assert!(!saga.paused || matches!(saga.status, Status::Running | Status::Waiting));
        assert!(saga.is_supervised(), "{} has no due time", saga.status);
        assert!(saga.due_at.is_none() || saga.flight.is_none(), "it has a due time or a flight");
        match saga.status {
            Status::Running | Status::Waiting => assert_eq!(saga.direction, Direction::Do),
            Status::Compensating => assert_eq!(saga.direction, Direction::Undo),
            _ => {}
        }
        assert!(self.seqs.is_sorted_by(|a, b| a < b), "history numbers must increase");
    }

    fn apply(&mut self, event: &Event) {
        match event {
            Event::TimerFired if self.saga.flight.is_some() => self.saga.leave_flight(self.now),
            Event::Signal(_) if self.saga.status == Status::Waiting => self.saga.flight = self.flight,
            _ => {}
        }
        let before = self.saga.clone();
        match apply(self.definition, &self.saga, event, self.now) {
            Decision::Transition(transition) => {
                assert!(
                    !before.status.is_end() || transition.saga.status == before.status,
                    "an ended saga changed its status"
                );
                self.take(*transition);
            }
            Decision::Stale if self.saga.due_at.is_some() => self.saga.flight = None,
            Decision::Stale => {}
            Decision::Illegal(why) => panic!("{event:?} in {before:?}: {why}"),
        }
    }

    /// A worker handles a command. It checks its fence, and then stores effect and outcome together.
    fn handle(&mut self, command: &Command, kind: u8) {
        let record = self.workers.entry(command.step.clone()).or_default();
        let outcome = match command.direction {
            Direction::Undo => {
                if kind == 1 {
                    Outcome::Failed { code: "busy".into() }
                } else {
                    record.undone_visit = record.undone_visit.max(command.visit);
                    record.effect = false;
                    Outcome::done()
                }
            }
            Direction::Do => {
                let refused = command.visit <= record.undone_visit || command.visit < record.visit;
                let late = command.deadline.is_some_and(|deadline| self.now >= deadline);
                match &record.outcome {
                    _ if refused => return,
                    Some(outcome) if record.visit == command.visit => outcome.clone(),
                    Some(done @ Outcome::Done { .. }) => {
                        record.visit = command.visit;
                        done.clone()
                    }
                    _ if late => Outcome::rejected(DEADLINE_PASSED),
                    _ => {
                        let outcome = outcome_of(kind, self.now);
                        record.visit = command.visit;
                        record.effect = matches!(outcome, Outcome::Done { .. });
                        record.outcome = matches!(outcome, Outcome::Done { .. } | Outcome::Rejected { .. })
                            .then(|| outcome.clone());
                        outcome
                    }
                }
            }
        };
        let Command { step, direction, visit, send, .. } = command.clone();
        self.replies.push(Reply { step, direction, visit, send, outcome, worker: None, service: None });
    }

    fn run(&mut self, operation: &Operation) {
        match operation {
            Operation::Deliver { which, kind, keep } => {
                if let Some(command) = pick(&mut self.commands, *which, *keep) {
                    self.handle(&command, *kind);
                }
            }
            Operation::Answer { which, keep } => {
                if let Some(reply) = pick(&mut self.replies, *which, *keep) {
                    self.apply(&Event::Reply(reply));
                }
            }
            Operation::LoseCommand(which) => drop(pick(&mut self.commands, *which, false)),
            Operation::LoseReply(which) => drop(pick(&mut self.replies, *which, false)),
            Operation::Signal(name) => self.apply(&Event::signal(*name)),
            Operation::Alarm { after_ms } => {
                self.now += TimeDelta::milliseconds(*after_ms);
                self.apply(&Event::TimerFired);
            }
            Operation::Operator(action) => self.operate(action),
        }
    }

    fn operate(&mut self, action: &OperatorAction) {
        let before = self.saga.clone();
        let action = match (action, outcome_of(7, self.now)) {
            (OperatorAction::Complete { step, .. }, Outcome::Done { output }) => {
                OperatorAction::Complete { step: step.clone(), output }
            }
            (other, _) => other.clone(),
        };
        self.apply(&Event::Operator(action.clone()));
        let is_manual = matches!(action, OperatorAction::Complete { .. } | OperatorAction::SkipUndo)
            && self.saga.seq > before.seq;
        self.manual_steps.extend(is_manual.then_some(before.step));
    }

    /// Delivers every message and fires every timer, until the saga ends.
    fn finish(&mut self) {
        for _ in 0..2_000 {
            if self.saga.status.is_end() {
                return;
            }
            if self.saga.status == Status::Stuck {
                self.apply(&Event::Operator(OperatorAction::Retry));
            }
            self.apply(&Event::Operator(OperatorAction::Resume));
            if let Some(command) = pick(&mut self.commands, 0, false) {
                self.handle(&command, 7);
            } else if let Some(reply) = pick(&mut self.replies, 0, false) {
                self.apply(&Event::Reply(reply));
            } else {
                self.now = self.now.max(self.saga.due_at.unwrap_or(self.now));
                self.apply(&Event::TimerFired);
            }
        }
        panic!("the saga does not end: {:?}", self.saga);
    }

    /// Checks that late messages change nothing, and that the effects of all steps exist, or none.
    fn check_end(&mut self) {
        let end = self.saga.clone();
        while let Some(command) = pick(&mut self.commands, 0, false) {
            self.handle(&command, 7);
        }
        while let Some(reply) = pick(&mut self.replies, 0, false) {
            self.apply(&Event::Reply(reply));
        }
        self.apply(&Event::signal("pay"));
        self.apply(&Event::signal("cancel"));
        assert_eq!(self.saga, end, "an ended saga stays as it is");
        for step in &self.definition.steps {
            let effect = self.workers.get(&step.name).is_some_and(|record| record.effect);
            match end.status {
                Status::Abandoned => {}
                _ if self.manual_steps.contains(&step.name) => {}
                Status::Completed => assert!(effect || step.command.is_none(), "{} was not done", step.name),
                _ => assert!(!effect, "{} was not undone", step.name),
            }
        }
    }
}

fn pick<T: Clone>(from: &mut Vec<T>, which: usize, keep: bool) -> Option<T> {
    let at = which.checked_rem(from.len())?;
    Some(if keep { from[at].clone() } else { from.remove(at) })
}

fn outcome_of(kind: u8, now: DateTime<Utc>) -> Outcome {
    match kind {
        0 => Outcome::rejected("insufficient_points"),
        1 => Outcome::Failed { code: "busy".into() },
        2 => Outcome::Unknown { reason: "no answer from elsewhere".into() },
        3 => Outcome::rejected("seat_taken"),
        _ => {
            let at = |seconds| json!((now + TimeDelta::seconds(seconds)).to_rfc3339());
            let output = [("expires_at", at(300)), ("claimable_at", at(315)), ("amount", json!(10))];
            Outcome::Done {
                output: output.map(|(name, value)| (name.to_owned(), value)).into_iter().collect(),
            }
        }
    }
}

pub(super) fn check_workflow(workflow: &str, flight: Option<i64>, operations: &[Operation]) {
    let definition = samples::workflow(workflow);
    let mut simulation = Simulation::begin(&definition, flight);
    for operation in operations {
        simulation.run(operation);
    }
    simulation.finish();
    simulation.check_end();
}

/// The steps of a cancellation are never rejected.
fn without_rejections(operations: Vec<Operation>) -> Vec<Operation> {
    let replace = |operation| match operation {
        Operation::Deliver { which, kind: 0 | 3, keep } => Operation::Deliver { which, kind: 1, keep },
        other => other,
    };
    operations.into_iter().map(replace).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn booking_ends_completed_or_undone(
        flight in prop::option::of(Just(1)), operations in prop::collection::vec(operation(), 0..60)
    ) {
        check_workflow("booking", flight, &operations);
    }

    #[test]
    fn cancellation_always_completes(
        flight in prop::option::of(Just(1)), operations in prop::collection::vec(operation(), 0..60)
    ) {
        check_workflow("cancellation", flight, &without_rejections(operations));
    }
}

fn deliver(kind: u8) -> [Operation; 2] {
    [Operation::Deliver { which: 0, kind, keep: false }, Operation::Answer { which: 0, keep: false }]
}

fn saga_after(operations: impl IntoIterator<Item = Operation>) -> Saga {
    let definition = samples::workflow("booking");
    let mut simulation = Simulation::begin(&definition, None);
    operations.into_iter().for_each(|operation| simulation.run(&operation));
    simulation.saga
}

#[test]
fn paid_booking_completes() {
    let saga =
        saga_after([deliver(7).as_slice(), &[Operation::Signal("pay")], &deliver(7), &deliver(7)].concat());
    assert_eq!((saga.status, saga.step.as_str(), saga.visit), (Status::Completed, "confirm", 1));
}

#[test]
fn too_few_points_return_to_the_wait() {
    let saga = saga_after([deliver(7).as_slice(), &[Operation::Signal("pay")], &deliver(0)].concat());
    assert_eq!((saga.status, saga.step.as_str(), saga.visit), (Status::Waiting, "await_payment", 2));
    assert_eq!(saga.rejection.unwrap()["code"], "insufficient_points");
}

#[test]
fn rejected_hold_undoes_and_emits_nothing() {
    let saga = saga_after(deliver(3));
    assert_eq!((saga.status, saga.due_at), (Status::Compensated, None));
    assert_eq!(saga.reason.as_deref(), Some("seat_taken"));
}

#[test]
fn unpaid_hold_is_undone_at_its_deadline() {
    let held = deliver(7).to_vec();
    let early = saga_after([held.as_slice(), &[Operation::Alarm { after_ms: 299_000 }]].concat());
    assert_eq!(early.status, Status::Waiting);
    let late = saga_after([held.as_slice(), &[Operation::Alarm { after_ms: 300_000 }]].concat());
    assert_eq!((late.status, late.reason.as_deref()), (Status::Compensating, Some("hold_expired")));
}

/// The service that rejects too late a command writes nothing, so the undo must.
#[test]
fn step_rejected_as_late_is_undone() {
    let mut late = vec![Operation::Alarm { after_ms: 4_000 }];
    late.extend(deliver(7));
    assert_eq!(saga_after(late).status, Status::Waiting);
    let definition = samples::workflow("booking");
    let mut simulation = Simulation::begin(&definition, None);
    simulation.now += TimeDelta::seconds(60);
    deliver(7).iter().for_each(|operation| simulation.run(operation));
    assert_eq!((simulation.saga.status, simulation.saga.step.as_str()), (Status::Compensating, "reserve"));
    assert_eq!(simulation.saga.reason.as_deref(), Some("unavailable"));
}

#[test]
fn silence_costs_no_attempt() {
    let saga = saga_after([Operation::Alarm { after_ms: 5_000 }, Operation::Alarm { after_ms: 10_000 }]);
    assert_eq!((saga.status, saga.attempt, saga.send), (Status::Running, 0, 2));
}

#[test]
fn retried_undo_keeps_the_original_reason() {
    let mut story = deliver(7).to_vec();
    story.push(Operation::Alarm { after_ms: 300_000 });
    for _ in 0..70 {
        story.extend(deliver(1));
        story.push(Operation::Alarm { after_ms: 61_000 });
    }
    let stuck = saga_after(story.clone());
    assert_eq!(stuck.status, Status::Stuck);
    assert!(stuck.reason.unwrap().contains("busy"), "the cause is what an operator sees");
    story.push(Operation::Operator(OperatorAction::Retry));
    story.extend(deliver(7));
    let ended = saga_after(story);
    assert_eq!((ended.status, ended.reason.as_deref()), (Status::Compensated, Some("hold_expired")));
}
