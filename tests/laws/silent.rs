//! Each step times out, with nobody there or with its answer lost; and each is answered late. Silence costs no
//! attempt.

use std::sync::Arc;

use boxoffice::saga::{Definition, Direction, Outcome, Saga, Status};

use super::play::{CODE, Cases, Play, last_turn, leads, turning_back};
use super::post::{Rule, Rules, is_here};
use super::stage::{Pace, Stage, workflows};

/// Every deadline comes soon.
const HASTY: Pace = Pace {
    timeout_ms: 300,
    deadline_seconds: Some(5),
    flags: &["--hold-seconds", "5", "--payment-grace-seconds", "1"],
};

/// Silence is soon noticed, and there is time enough to end it.
const IMPATIENT: Pace = Pace { timeout_ms: 500, ..Pace::CALM };

/// Nobody answers a step, or nobody ends a wait, until the deadline; what is heard of it later changes nothing.
async fn timed_out(stage: Arc<Stage>, workflow: String, index: usize, rule: Rule) {
    let definition = stage.definition(&workflow);
    let step = &definition.steps[index];
    let rules = Rules::default().with(&step.name, Direction::Do, rule);
    let mut play = Play::begin(&stage, &workflow, rules, None).await;
    play.unsignalled = step.wait.as_ref().map(|_| step.name.clone());
    let reason = &step.deadline.as_ref().unwrap().reason;
    let saga = play.lead(&leads(definition, index, reason, true), None).await;
    no_attempt_was_lost(&play, None).await;
    stage.post.release(saga.id).await;
    if let Some(signal) = &step.wait {
        play.send_signal(signal).await;
    }
    stage.drained().await;
    assert_eq!(play.saga().await.seq, saga.seq, "what came late changed the saga");
    play.check(&saga).await;
}

/// Nothing has failed, but for the step that was made to.
async fn no_attempt_was_lost(play: &Play, failing: Option<&str>) {
    for row in play.history().await {
        let meant = failing == Some(row.step.as_str()) && row.direction == Direction::Do;
        assert!(meant || (row.event != "failed" && row.attempt == 0), "an attempt was lost: {row:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_step_that_nobody_answers_is_undone_at_its_deadline_and_what_comes_late_does_nothing() {
    let stage = Arc::new(Stage::set(HASTY).await);
    let mut cases = Cases::default();
    for (_, definition) in workflows() {
        let steps = definition.steps.iter().enumerate().filter(|(_, step)| step.deadline.is_some());
        for (index, step) in steps {
            let name = format!("{}, {}", definition.name, step.name);
            let (workflow, lost) = (definition.name.clone(), format!("{name}, the answer is lost"));
            cases.add(name, timed_out(Arc::clone(&stage), workflow.clone(), index, Rule::Hold));
            if step.command.as_ref().is_some_and(|command| !is_here(command)) {
                cases.add(lost, timed_out(Arc::clone(&stage), workflow, index, Rule::Mute));
            }
        }
    }
    cases.finish(stage).await;
}

/// What a saga hears of its step for a while.
#[derive(Clone, Copy, Debug)]
enum Hears {
    /// Nothing: nobody serves it yet.
    Nothing,
    /// Nothing, though it was done.
    NothingOfTheDeed,
    /// That the worker cannot know.
    Unknown,
}

/// The step is asked for again and again, and then there is an answer after all, to the first time of asking.
async fn answered_late(
    stage: Arc<Stage>,
    workflow: String,
    step: String,
    direction: Direction,
    hears: Hears,
) {
    let definition = stage.definition(&workflow);
    let rule = match hears {
        Hears::Nothing => Rule::Hold,
        Hears::NothingOfTheDeed => Rule::Mute,
        Hears::Unknown => Rule::Answer(Outcome::Unknown { reason: CODE.to_owned() }),
    };
    let mut rules = Rules::default().with(&step, direction, rule);
    let (mut end, mut failing) = (Status::Completed, None);
    if direction == Direction::Undo {
        rules = turning_back(definition, rules);
        (end, failing) = (Status::Compensated, Some(&definition.steps[last_turn(definition).unwrap()].name));
    }
    let play = Play::begin(&stage, &workflow, rules, None).await;
    let asked = || {
        let mut letters = stage.post.letters(play.begun.saga);
        letters.retain(|letter| letter.is_of(&step, direction));
        letters
    };
    let again = |_: &Saga| asked().len() >= 3;
    play.go_until("the step to be asked for three times", again).await;
    let first = asked().remove(0);
    stage.post.forward(&first).await;
    let moved = |saga: &Saga| {
        !matches!(saga.status, Status::Running | Status::Compensating)
            || (saga.step.as_str(), saga.direction) != (step.as_str(), direction)
    };
    play.go_until("the late answer to count", moved).await;
    stage.post.release(play.begun.saga).await;
    let saga = play.go_to_rest().await;
    assert_eq!(saga.status, end);
    no_attempt_was_lost(&play, failing.map(String::as_str)).await;
    play.check(&saga).await;
}

/// Every step with a command, and every undo that a saga can come to.
fn commands(definition: &Definition) -> Vec<(String, Direction, bool)> {
    let all = definition.steps.iter().enumerate().flat_map(|(index, step)| {
        let undo = step.undo.as_ref().filter(|_| definition.can_turn_back(index));
        let both = [(Direction::Do, step.command.as_ref()), (Direction::Undo, undo)];
        both.into_iter()
            .filter_map(|(direction, command)| Some((step.name.clone(), direction, is_here(command?))))
    });
    all.collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_step_that_is_answered_late_goes_on_and_has_lost_no_attempt() {
    let stage = Arc::new(Stage::set(IMPATIENT).await);
    let mut cases = Cases::default();
    for (_, definition) in workflows() {
        for (step, direction, here) in commands(&definition) {
            for hears in [Hears::Nothing, Hears::NothingOfTheDeed, Hears::Unknown] {
                if here && matches!(hears, Hears::NothingOfTheDeed) {
                    continue;
                }
                let name = format!("{}, {direction} {step}, {hears:?}", definition.name);
                let (workflow, step) = (definition.name.clone(), step.clone());
                cases.add(name, answered_late(Arc::clone(&stage), workflow, step, direction, hears));
            }
        }
    }
    cases.finish(stage).await;
}
