//! Laws that hold for every workflow, whatever happens: random deliveries, repeats, losses, signals, alarms and
//! operators against workers that keep a fence, then fair weather until the end.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, TimeDelta, Utc};
use proptest::prelude::*;
use serde_json::{Map, json};

use super::*;

/// What chance does next; the numbers pick among what is there.
#[derive(Clone, Debug)]
enum Chance {
    Deliver { which: usize, kind: u8, keep: bool },
    Answer { which: usize, keep: bool },
    LoseCommand(usize),
    LoseReply(usize),
    Signal(&'static str),
    Alarm { after_ms: i64 },
    Operator(Act),
}

fn chance() -> impl Strategy<Value = Chance> {
    prop_oneof![
        6 => (any::<usize>(), 0..8u8, any::<bool>()).prop_map(|(which, kind, keep)| Chance::Deliver { which, kind, keep }),
        6 => (any::<usize>(), any::<bool>()).prop_map(|(which, keep)| Chance::Answer { which, keep }),
        1 => any::<usize>().prop_map(Chance::LoseCommand),
        1 => any::<usize>().prop_map(Chance::LoseReply),
        3 => prop_oneof![Just("pay"), Just("cancel"), Just("nonsense")].prop_map(Chance::Signal),
        3 => (0..400_000i64).prop_map(|after_ms| Chance::Alarm { after_ms }),
        1 => prop::sample::select(Act::all().to_vec()).prop_map(Chance::Operator),
    ]
}

/// What a worker elsewhere remembers of a step: the same fence for do and undo.
#[derive(Default)]
struct Remembered {
    visit: i32,
    outcome: Option<Outcome>,
    undone_up_to: i32,
    effect: bool,
}

struct World<'a> {
    definition: &'a Definition,
    /// The batch of all starts and signals, where they have one.
    flight: Option<i64>,
    saga: Saga,
    now: DateTime<Utc>,
    commands: Vec<Command>,
    replies: Vec<Reply>,
    workers: BTreeMap<String, Remembered>,
    reached: BTreeSet<String>,
    excused: BTreeSet<String>,
    seqs: Vec<i64>,
}

impl<'a> World<'a> {
    fn begin(definition: &'a Definition, flight: Option<i64>) -> Self {
        let now = DateTime::from_timestamp(1_800_000_000, 0).unwrap();
        let id = uuid::Uuid::from_u128(7);
        let new = NewSaga { id, subject_id: id, input: Map::new(), trace: None, seq: 0 };
        let transition = start_in(flight, definition, new, now);
        let mut world = Self {
            definition,
            flight,
            saga: transition.saga.clone(),
            now,
            commands: Vec::new(),
            replies: Vec::new(),
            workers: BTreeMap::new(),
            reached: BTreeSet::new(),
            excused: BTreeSet::new(),
            seqs: Vec::new(),
        };
        world.take(transition);
        world
    }

    fn take(&mut self, transition: Transition) {
        if transition.entry.is_some() {
            self.seqs.push(transition.saga.seq);
        }
        for action in transition.actions {
            if let Action::Send(command) = action {
                match command.direction {
                    Direction::Do => {}
                    Direction::Undo => {
                        assert!(
                            self.reached.contains(&command.step),
                            "undo of {} that was never reached",
                            command.step
                        );
                        assert_eq!(command.deadline, None, "an undo has no deadline");
                    }
                }
                self.commands.push(command);
            }
        }
        self.saga = transition.saga;
        if self.saga.direction == Direction::Do {
            self.reached.insert(self.saga.step.clone());
        }
        self.check();
    }

    /// What must be true of every row.
    fn check(&self) {
        let saga = &self.saga;
        assert!(self.definition.index(&saga.step).is_some());
        assert_eq!(saga.finished_at.is_some(), saga.status.is_end());
        assert_eq!(saga.stuck_since.is_some(), saga.status == Status::Stuck);
        assert!(!saga.paused || matches!(saga.status, Status::Running | Status::Waiting));
        assert!(saga.is_kept(), "{} sleeps without an alarm", saga.status);
        assert!(saga.due_at.is_none() || saga.flight.is_none(), "one of them looks after it");
        match saga.status {
            Status::Running | Status::Waiting => assert_eq!(saga.direction, Direction::Do),
            Status::Compensating => assert_eq!(saga.direction, Direction::Undo),
            _ => {}
        }
        assert!(self.seqs.is_sorted_by(|a, b| a < b), "history numbers rise");
    }

    fn happen(&mut self, event: &Event) {
        match event {
            Event::Alarm if self.saga.flight.is_some() => self.saga.let_go(self.now),
            Event::Signal(_) if self.saga.status == Status::Waiting => self.saga.flight = self.flight,
            _ => {}
        }
        let before = self.saga.clone();
        match apply(self.definition, &self.saga, event, self.now) {
            Decision::Transition(transition) => {
                assert!(
                    !before.status.is_end() || transition.saga.status == before.status,
                    "an end is an end"
                );
                self.take(*transition);
            }
            Decision::Stale if self.saga.due_at.is_some() => self.saga.flight = None,
            Decision::Stale => {}
            Decision::Illegal(why) => panic!("{event:?} in {before:?}: {why}"),
        }
    }

    /// A worker handles a command: the fence first, then the effect and its outcome together.
    fn handle(&mut self, command: &Command, kind: u8) {
        let memory = self.workers.entry(command.step.clone()).or_default();
        let outcome = match command.direction {
            Direction::Undo => {
                if kind == 1 {
                    Outcome::Failed { code: "busy".into() }
                } else {
                    memory.undone_up_to = memory.undone_up_to.max(command.visit);
                    memory.effect = false;
                    Outcome::done()
                }
            }
            Direction::Do => {
                let refused = command.visit <= memory.undone_up_to || command.visit < memory.visit;
                let late = command.deadline.is_some_and(|deadline| self.now >= deadline);
                match &memory.outcome {
                    _ if refused => return,
                    Some(outcome) if memory.visit == command.visit => outcome.clone(),
                    Some(done @ Outcome::Done { .. }) => {
                        memory.visit = command.visit;
                        done.clone()
                    }
                    _ if late => Outcome::rejected(DEADLINE_PASSED),
                    _ => {
                        let outcome = outcome_of(kind, self.now);
                        memory.visit = command.visit;
                        memory.effect = matches!(outcome, Outcome::Done { .. });
                        memory.outcome = matches!(outcome, Outcome::Done { .. } | Outcome::Rejected { .. })
                            .then(|| outcome.clone());
                        outcome
                    }
                }
            }
        };
        let Command { step, direction, visit, send, .. } = command.clone();
        self.replies.push(Reply { step, direction, visit, send, outcome, worker: None, service: None });
    }

    fn play(&mut self, chance: &Chance) {
        match chance {
            Chance::Deliver { which, kind, keep } => {
                if let Some(command) = pick(&mut self.commands, *which, *keep) {
                    self.handle(&command, *kind);
                }
            }
            Chance::Answer { which, keep } => {
                if let Some(reply) = pick(&mut self.replies, *which, *keep) {
                    self.happen(&Event::Reply(reply));
                }
            }
            Chance::LoseCommand(which) => drop(pick(&mut self.commands, *which, false)),
            Chance::LoseReply(which) => drop(pick(&mut self.replies, *which, false)),
            Chance::Signal(name) => self.happen(&Event::Signal((*name).to_owned())),
            Chance::Alarm { after_ms } => {
                self.now += TimeDelta::milliseconds(*after_ms);
                self.happen(&Event::Alarm);
            }
            Chance::Operator(act) => self.operate(act),
        }
    }

    fn operate(&mut self, act: &Act) {
        let before = self.saga.clone();
        let act = match (act, outcome_of(7, self.now)) {
            (Act::Complete { .. }, Outcome::Done { output }) => Act::Complete { output },
            (other, _) => other.clone(),
        };
        self.happen(&Event::Operator(act.clone()));
        let by_hand = matches!(act, Act::Complete { .. } | Act::SkipUndo) && self.saga.seq > before.seq;
        self.excused.extend(by_hand.then_some(before.step));
    }

    /// From here on everything arrives and every alarm rings: the saga must come to an end.
    fn finish(&mut self) {
        for _ in 0..2_000 {
            if self.saga.status.is_end() {
                return;
            }
            if self.saga.status == Status::Stuck {
                self.happen(&Event::Operator(Act::Retry));
            }
            self.happen(&Event::Operator(Act::Resume));
            if let Some(command) = pick(&mut self.commands, 0, false) {
                self.handle(&command, 7);
            } else if let Some(reply) = pick(&mut self.replies, 0, false) {
                self.happen(&Event::Reply(reply));
            } else {
                self.now = self.now.max(self.saga.due_at.unwrap_or(self.now));
                self.happen(&Event::Alarm);
            }
        }
        panic!("it never ends: {:?}", self.saga);
    }

    /// Late messages change nothing, and what is left behind is all or nothing.
    fn check_end(&mut self) {
        let end = self.saga.clone();
        while let Some(command) = pick(&mut self.commands, 0, false) {
            self.handle(&command, 7);
        }
        while let Some(reply) = pick(&mut self.replies, 0, false) {
            self.happen(&Event::Reply(reply));
        }
        self.happen(&Event::Signal("pay".into()));
        self.happen(&Event::Signal("cancel".into()));
        assert_eq!(self.saga, end, "an ended saga stays as it is");
        for step in &self.definition.steps {
            let effect = self.workers.get(&step.name).is_some_and(|memory| memory.effect);
            match end.status {
                Status::Abandoned => {}
                _ if self.excused.contains(&step.name) => {}
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

fn obey(workflow: &str, flight: Option<i64>, chances: &[Chance]) {
    let registry = samples::registry();
    let mut world = World::begin(registry.latest(workflow).unwrap(), flight);
    for chance in chances {
        world.play(chance);
    }
    world.finish();
    world.check_end();
}

/// A cancellation's steps are never refused for business reasons: only failures, silence and repeats.
fn without_rejections(chances: Vec<Chance>) -> Vec<Chance> {
    let tame = |chance| match chance {
        Chance::Deliver { which, kind: 0 | 3, keep } => Chance::Deliver { which, kind: 1, keep },
        other => other,
    };
    chances.into_iter().map(tame).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn every_booking_ends_whole_or_undone(
        flight in prop::option::of(Just(1)), chances in prop::collection::vec(chance(), 0..60)
    ) {
        obey("booking", flight, &chances);
    }

    #[test]
    fn every_cancellation_goes_forward_to_its_end(
        flight in prop::option::of(Just(1)), chances in prop::collection::vec(chance(), 0..60)
    ) {
        obey("cancellation", flight, &without_rejections(chances));
    }
}

fn deliver(kind: u8) -> [Chance; 2] {
    [Chance::Deliver { which: 0, kind, keep: false }, Chance::Answer { which: 0, keep: false }]
}

fn played(chances: impl IntoIterator<Item = Chance>) -> Saga {
    let registry = samples::registry();
    let mut world = World::begin(registry.latest("booking").unwrap(), None);
    chances.into_iter().for_each(|chance| world.play(&chance));
    world.saga
}

#[test]
fn the_whole_way() {
    let saga = played([deliver(7).as_slice(), &[Chance::Signal("pay")], &deliver(7), &deliver(7)].concat());
    assert_eq!((saga.status, saga.step.as_str(), saga.visit), (Status::Completed, "confirm", 1));
}

#[test]
fn too_few_points_lead_back_to_the_wait_with_a_new_visit() {
    let saga = played([deliver(7).as_slice(), &[Chance::Signal("pay")], &deliver(0)].concat());
    assert_eq!((saga.status, saga.step.as_str(), saga.visit), (Status::Waiting, "await_payment", 2));
    assert_eq!(saga.rejection.unwrap()["code"], "insufficient_points");
}

#[test]
fn a_refused_hold_leaves_nothing_to_undo_and_nothing_to_tell() {
    let saga = played(deliver(3));
    assert_eq!((saga.status, saga.due_at), (Status::Compensated, None));
    assert_eq!(saga.reason.as_deref(), Some("seat_taken"));
}

#[test]
fn an_unpaid_hold_is_undone_at_its_deadline_and_not_before() {
    let held = deliver(7).to_vec();
    let early = played([held.as_slice(), &[Chance::Alarm { after_ms: 299_000 }]].concat());
    assert_eq!(early.status, Status::Waiting);
    let late = played([held.as_slice(), &[Chance::Alarm { after_ms: 300_000 }]].concat());
    assert_eq!((late.status, late.reason.as_deref()), (Status::Compensating, Some("hold_expired")));
}

/// The service that would have written the refusal's end never ran: the undo does.
#[test]
fn a_step_refused_for_being_late_is_undone_itself() {
    let mut late = vec![Chance::Alarm { after_ms: 4_000 }];
    late.extend(deliver(7));
    assert_eq!(played(late).status, Status::Waiting);
    let registry = samples::registry();
    let mut world = World::begin(registry.latest("booking").unwrap(), None);
    world.now += TimeDelta::seconds(60);
    deliver(7).iter().for_each(|chance| world.play(chance));
    assert_eq!((world.saga.status, world.saga.step.as_str()), (Status::Compensating, "reserve"));
    assert_eq!(world.saga.reason.as_deref(), Some("unavailable"));
}

#[test]
fn silence_costs_no_attempt_and_raises_the_send() {
    let saga = played([Chance::Alarm { after_ms: 5_000 }, Chance::Alarm { after_ms: 10_000 }]);
    assert_eq!((saga.status, saga.attempt, saga.send), (Status::Running, 0, 2));
}

#[test]
fn an_undo_that_was_stuck_still_ends_the_business_for_its_own_reason() {
    let mut story = deliver(7).to_vec();
    story.push(Chance::Alarm { after_ms: 300_000 });
    for _ in 0..70 {
        story.extend(deliver(1));
        story.push(Chance::Alarm { after_ms: 61_000 });
    }
    let stuck = played(story.clone());
    assert_eq!(stuck.status, Status::Stuck);
    assert!(stuck.reason.unwrap().contains("busy"), "the cause is what an operator sees");
    story.push(Chance::Operator(Act::Retry));
    story.extend(deliver(7));
    let ended = played(story);
    assert_eq!((ended.status, ended.reason.as_deref()), (Status::Compensated, Some("hold_expired")));
}
