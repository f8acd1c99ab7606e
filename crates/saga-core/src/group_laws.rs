//! What holds for the members of a group of parallel steps, case by case.

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Map, json};

use super::laws::{check_workflow, operation};
use super::*;
use proptest::prelude::*;

/// A saga of the workflow `journey`, whose group has the members `hotel`, `flight` and `car`.
struct Journey {
    definition: Definition,
    saga: Saga,
    now: DateTime<Utc>,
    /// The commands of the last transition, each as `do hotel 1.0`: direction, step, visit and send.
    sent: Vec<String>,
}

impl Journey {
    fn begin(flight: Option<i64>) -> Self {
        let definition = samples::workflow("journey");
        let now = DateTime::from_timestamp(1_800_000_000, 0).unwrap();
        let id = uuid::Uuid::from_u128(7);
        let new = NewSaga { id, subject_id: id, input: Map::new(), trace: None, seq: 0 };
        let saga = start_in(flight, &definition, new, now).saga;
        Self { definition, saga, now, sent: Vec::new() }
    }

    /// The saga just after it has entered the group.
    fn in_group(flight: Option<i64>) -> Self {
        let mut journey = Self::begin(flight);
        journey.replied("quote", Outcome::done());
        journey
    }

    fn decide(&self, event: &Event) -> Decision {
        apply(&self.definition, &self.saga, event, self.now)
    }

    fn take(&mut self, event: &Event) -> Option<Entry> {
        let Decision::Transition(transition) = self.decide(event) else {
            panic!("{event:?} changes nothing in {:?}", self.saga)
        };
        let sent = transition.actions.iter().filter_map(|action| match action {
            Action::Send(Command { direction, step, visit, send, .. }) => {
                Some(format!("{direction} {step} {visit}.{send}"))
            }
            _ => None,
        });
        self.sent = sent.collect();
        // Every state is one that the row can keep.
        assert_eq!(Members::decode(&transition.saga.members.encode()), Ok(transition.saga.members.clone()));
        self.saga = transition.saga;
        transition.entry
    }

    fn reply(&self, step: &str, outcome: Outcome) -> Event {
        let there = self.definition.index(step).unwrap();
        let send = focused(&self.definition, &self.saga, there).map_or(self.saga.send, |saga| saga.send);
        let (step, direction, visit) = (step.to_owned(), self.saga.direction, self.saga.visit);
        Event::Reply(Reply { step, direction, visit, send, outcome, worker: None, service: None })
    }

    fn replied(&mut self, step: &str, outcome: Outcome) -> Entry {
        self.take(&self.reply(step, outcome)).unwrap()
    }

    fn open(&self) -> Vec<&str> {
        let open = open_steps(&self.definition, &self.saga).into_iter();
        open.map(|index| self.definition.steps[index].name.as_str()).collect()
    }

    fn pass(&mut self, seconds: i64) {
        self.now += TimeDelta::seconds(seconds);
    }

    fn state(&self) -> (Status, Direction, &str) {
        (self.saga.status, self.saga.direction, &self.saga.step)
    }
}

fn done(field: &str) -> Outcome {
    Outcome::Done { output: Map::from_iter([(field.to_owned(), json!(1))]) }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn journey_ends_completed_or_undone(
        flight in prop::option::of(Just(1)), operations in prop::collection::vec(operation(), 0..90)
    ) {
        check_workflow("journey", flight, &operations);
    }
}

#[test]
fn commands_of_all_members_are_out_at_once() {
    let mut journey = Journey::in_group(Some(1));
    assert_eq!(journey.sent, ["do hotel 1.0", "do flight 1.0", "do car 1.0"]);
    assert_eq!(journey.open(), ["hotel", "flight", "car"]);
    assert!(journey.saga.members.is_empty(), "the row says it all while the members are alike");
    assert_eq!((journey.saga.flight, journey.saga.due_at), (Some(1), None), "the flight covers all members");
    for (member, left) in [("car", vec!["hotel", "flight"]), ("hotel", vec!["flight"])] {
        let entry = journey.replied(member, done(member));
        assert_eq!((entry.event.as_str(), entry.step.as_str()), ("done", member));
        assert_eq!((journey.open(), journey.sent.len()), (left, 0));
        assert_eq!(journey.saga.flight, Some(1));
    }
    journey.replied("flight", done("flight"));
    assert_eq!((journey.state(), journey.saga.visit), ((Status::Running, Direction::Do, "pay"), 1));
    assert!(journey.saga.members.is_empty() && journey.sent == ["do pay 1.0"]);
    assert_eq!(*journey.saga.context, json!({ "hotel": 1, "flight": 1, "car": 1 }));
}

#[test]
fn repeated_reply_of_a_member_is_stale() {
    let mut journey = Journey::in_group(None);
    let again = journey.reply("car", done("car"));
    journey.take(&again);
    assert!(matches!(journey.decide(&again), Decision::Stale));
    let repeats_nothing = |step: &str| is_in_running_group(&journey.definition, &journey.saga, step);
    assert_eq!(["quote", "car", "hotel", "pay"].map(repeats_nothing), [false, true, true, false]);
    let undo = Reply { direction: Direction::Undo, ..reply_of(&again) };
    assert!(matches!(journey.decide(&Event::Reply(undo)), Decision::Illegal(_)), "no undo is asked for");
    let later = Reply { step: "pay".to_owned(), ..reply_of(&again) };
    assert!(
        matches!(journey.decide(&Event::Reply(later)), Decision::Illegal(_)),
        "pay comes after the group"
    );
    let outstanding = commands(&journey.definition, &journey.saga);
    let steps: Vec<&str> = outstanding.iter().map(|command| command.step.as_str()).collect();
    assert_eq!(steps, ["hotel", "flight"], "what a crash may have kept from being published");
    assert!(command(&journey.definition, &journey.saga, "car").is_none());
}

fn reply_of(event: &Event) -> Reply {
    let Event::Reply(reply) = event else { panic!("{event:?} is no reply") };
    reply.clone()
}

#[test]
fn rejection_undoes_the_others_in_reverse() {
    let mut journey = Journey::in_group(None);
    journey.replied("hotel", Outcome::done());
    let left = may_have_run(&journey.definition, &journey.saga);
    assert_eq!(left, ["quote", "hotel", "flight", "car"]);
    let entry = journey.replied("flight", Outcome::rejected("full"));
    assert_eq!((entry.event.as_str(), entry.step.as_str()), ("rejected", "flight"));
    assert_eq!(
        (journey.state(), journey.saga.reason.as_deref()),
        ((Status::Compensating, Direction::Undo, "car"), Some("full"))
    );
    assert_eq!(journey.sent, ["undo car 1.0"], "it has not replied, so it may have run");
    let late = Reply { direction: Direction::Do, ..reply_of(&journey.reply("car", Outcome::done())) };
    assert!(matches!(journey.decide(&Event::Reply(late)), Decision::Stale));
    assert_eq!(may_have_run(&journey.definition, &journey.saga), ["quote", "hotel", "car"]);
    journey.replied("car", Outcome::done());
    assert_eq!(journey.sent, ["undo hotel 1.0"], "the flight was rejected, so there is nothing to undo");
    journey.replied("hotel", Outcome::done());
    assert_eq!(journey.sent, ["undo quote 1.0"]);
    assert!(journey.saga.members.is_empty(), "the saga has left the group");
    journey.replied("quote", Outcome::done());
    assert_eq!(journey.saga.status, Status::Compensated);
}

#[test]
fn each_member_has_its_own_attempts() {
    let mut journey = Journey::in_group(Some(1));
    let busy = || Outcome::Failed { code: "busy".to_owned() };
    journey.replied("hotel", busy());
    journey.replied("car", busy());
    assert_eq!(journey.saga.status, Status::Running, "each has failed once, and the hotel may twice");
    assert_eq!((journey.saga.flight, journey.saga.backing_off), (None, true), "a retry is due first");
    // Both retries are due after a tenth of a second; the flight is asked again after two seconds.
    journey.pass(1);
    journey.take(&Event::TimerFired);
    assert_eq!(journey.sent, ["do hotel 1.1", "do car 1.1"]);
    let outdated = Reply { send: 0, ..reply_of(&journey.reply("car", busy())) };
    assert!(matches!(journey.decide(&Event::Reply(outdated)), Decision::Stale));
    journey.pass(1);
    journey.take(&Event::TimerFired);
    assert_eq!(journey.sent, ["do flight 1.1"]);
    let entry = journey.replied("hotel", busy());
    assert_eq!(entry.attempt, 1);
    assert_eq!(journey.state(), (Status::Compensating, Direction::Undo, "car"));
    assert_eq!(journey.saga.reason.as_deref(), Some("busy"));
    journey.replied("car", Outcome::done());
    journey.replied("flight", Outcome::done());
    assert_eq!(journey.sent, ["undo hotel 1.0"], "it failed, and may have run");
}

#[test]
fn deadline_of_one_member_undoes_all() {
    let mut journey = Journey::in_group(None);
    journey.replied("hotel", Outcome::done());
    journey.pass(59);
    journey.take(&Event::TimerFired);
    assert_eq!(journey.saga.status, Status::Running);
    journey.pass(1);
    let entry = journey.take(&Event::TimerFired).unwrap();
    assert_eq!((entry.event.as_str(), entry.step.as_str()), ("deadline", "flight"));
    assert_eq!(
        (journey.state(), journey.saga.reason.as_deref()),
        ((Status::Compensating, Direction::Undo, "car"), Some("no_flight"))
    );
    let path = progress(&journey.definition, &journey.saga, []).undo_path;
    assert_eq!(path, ["car", "flight", "hotel", "quote"]);
}

#[test]
fn deadline_of_a_done_member_does_not_count() {
    let mut journey = Journey::in_group(None);
    journey.replied("flight", Outcome::done());
    journey.pass(600);
    assert!(journey.take(&Event::TimerFired).is_none());
    assert_eq!((journey.saga.status, journey.open()), (Status::Running, vec!["hotel", "car"]));
    let coming = next_transition(&journey.definition, &journey.saga, journey.now);
    assert_eq!(coming.compensates_at, None);
}

#[test]
fn retry_starts_a_new_visit_of_open_members() {
    let mut journey = Journey::in_group(Some(1));
    journey.replied("hotel", Outcome::done());
    let poisoned = |step: &str| {
        let (step, error) = (step.to_owned(), "unreadable".to_owned());
        Event::Poisoned(Poisoned { step, direction: Direction::Do, visit: 1, error })
    };
    journey.take(&poisoned("car"));
    assert_eq!(journey.state(), (Status::Stuck, Direction::Do, "car"));
    assert!(matches!(journey.decide(&journey.reply("flight", Outcome::done())), Decision::Stale));
    journey.take(&Event::Operator(OperatorAction::Retry));
    assert_eq!(journey.sent, ["do flight 2.0", "do car 2.0"], "the hotel is done");
    journey.replied("flight", Outcome::done());
    journey.replied("car", Outcome::done());
    assert_eq!(journey.saga.step, "pay");
}

#[test]
fn operator_completes_a_member_by_its_name() {
    let complete = |step: &str| {
        let (step, output) = (Some(step.to_owned()), Map::from_iter([("room".to_owned(), json!(7))]));
        Event::Operator(OperatorAction::Complete { step, output })
    };
    let mut journey = Journey::in_group(Some(1));
    journey.take(&complete("flight"));
    assert_eq!((journey.open(), journey.sent.len()), (vec!["hotel", "car"], 0));
    assert_eq!(journey.saga.context["room"], 7);
    assert!(matches!(journey.decide(&complete("flight")), Decision::Stale), "it is done");
    assert!(matches!(journey.decide(&complete("pay")), Decision::Stale), "it was not entered");
    let error = "unreadable".to_owned();
    let (step, direction) = ("car".to_owned(), Direction::Do);
    journey.take(&Event::Poisoned(Poisoned { step, direction, visit: 1, error }));
    assert!(matches!(journey.decide(&complete("hotel")), Decision::Stale), "it is stuck at the car");
    journey.take(&complete("car"));
    assert_eq!((journey.saga.status, journey.saga.stuck_since), (Status::Running, None));
    assert_eq!(journey.sent, ["do hotel 1.1"], "its reply may have come while the saga was stuck");
    journey.replied("hotel", Outcome::done());
    assert_eq!(journey.saga.step, "pay");
}

#[test]
fn paused_group_counts_replies() {
    let mut journey = Journey::in_group(Some(1));
    journey.take(&Event::Operator(OperatorAction::Pause));
    assert_eq!(journey.saga.due_at, Some(journey.now + TimeDelta::seconds(60)), "the deadline of the flight");
    journey.replied("car", Outcome::done());
    let busy = journey.reply("hotel", Outcome::Failed { code: "busy".to_owned() });
    assert!(matches!(journey.decide(&busy), Decision::Stale), "it is sent again after the pause in any case");
    journey.take(&Event::Operator(OperatorAction::Resume));
    assert_eq!(journey.sent, ["do hotel 1.1", "do flight 1.1"]);
    journey.take(&Event::Operator(OperatorAction::Cancel));
    assert_eq!(journey.sent, ["undo car 1.0"]);
    assert_eq!(journey.saga.reason.as_deref(), Some("cancelled"));
}

#[test]
fn group_after_the_pivot_only_goes_forward() {
    let mut journey = Journey::in_group(None);
    for step in ["hotel", "flight", "car", "pay"] {
        journey.replied(step, Outcome::done());
    }
    assert_eq!(journey.sent, ["do voucher 1.0", "do invoice 1.0"]);
    journey.replied("invoice", Outcome::rejected("no_paper"));
    assert_eq!(journey.state(), (Status::Stuck, Direction::Do, "invoice"));
    journey.take(&Event::Operator(OperatorAction::Retry));
    assert_eq!(journey.sent, ["do voucher 2.0", "do invoice 2.0"], "a rejected member is asked anew");
    journey.replied("invoice", Outcome::done());
    journey.replied("voucher", Outcome::done());
    assert_eq!(journey.saga.status, Status::Completed);
}

#[test]
fn progress_shows_every_member() {
    use Standing as S;
    let mut journey = Journey::in_group(None);
    journey.replied("hotel", Outcome::done());
    let shown = progress(&journey.definition, &journey.saga, []);
    let standings: Vec<Standing> = shown.steps.iter().map(|step| step.standing).collect();
    assert_eq!(standings, [S::Done, S::Done, S::Now, S::Now, S::ToCome, S::ToCome, S::ToCome]);
    assert_eq!(shown.steps[2].group.as_deref(), Some("bookings"));
    assert_eq!(shown.undo_path, ["car", "flight", "hotel", "quote"]);
    journey.replied("flight", Outcome::rejected("full"));
    let records = [StepRecord { step: "hotel", direction: Direction::Do }];
    let shown = progress(&journey.definition, &journey.saga, records);
    let standings: Vec<Standing> = shown.steps.iter().map(|step| step.standing).collect();
    assert_eq!(standings[..4], [S::UndoToCome, S::UndoToCome, S::NotReached, S::Now]);
    assert_eq!(shown.undo_path, ["car", "hotel", "quote"]);
}
