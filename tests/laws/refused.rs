//! Each step is refused, and fails until its attempts are used up; each undo too.

use std::sync::Arc;

use boxoffice::saga::{Direction, Outcome};

use super::play::{CODE, Cases, Leads, Play, last_turn, leads, turning_back};
use super::post::{Rule, Rules};
use super::stage::{Pace, Stage, workflows};
use super::table;

fn refused(code: &str) -> Rule {
    Rule::Answer(Outcome::rejected(code))
}

fn failed() -> Rule {
    Rule::Answer(Outcome::Failed { code: CODE.to_owned() })
}

/// A worker, or the post in its stead, answers the `do` of a step so.
async fn answered(
    stage: Arc<Stage>,
    workflow: String,
    index: usize,
    rule: Rule,
    code: String,
    may_have_run: bool,
) {
    let definition = stage.definition(&workflow);
    let rules = Rules::default().with(&definition.steps[index].name, Direction::Do, rule);
    let play = Play::begin(&stage, &workflow, rules, None).await;
    play.lead(&leads(definition, index, &code, may_have_run), None).await;
}

/// The step's own service says no.
async fn refused_by_its_service(
    stage: Arc<Stage>,
    workflow: String,
    index: usize,
    no: table::No,
    code: &str,
) {
    let definition = stage.definition(&workflow);
    let step = &definition.steps[index].name;
    let rules = Rules::default().with(step, Direction::Do, Rule::Hold);
    let play = Play::begin(&stage, &workflow, rules, Some(no)).await;
    play.go_to_hold(step, Direction::Do).await;
    table::bring_about(&stage, &play.begun, no).await;
    stage.post.release(play.begun.saga).await;
    play.lead(&leads(definition, index, code, false), Some(no)).await;
}

/// The undo of a step ends so; the saga is stuck until an operator lets it go on, and keeps why it turned back.
async fn undo_answered(stage: Arc<Stage>, workflow: String, step: String, rule: Rule) {
    let definition = stage.definition(&workflow);
    let rules = Rules::default().with(&step, Direction::Undo, rule);
    let play = Play::begin(&stage, &workflow, turning_back(definition, rules), None).await;
    let saga = play.lead(&Leads::Stuck, None).await;
    let Leads::Compensated { reason, undone } = leads(definition, last_turn(definition).unwrap(), CODE, true)
    else {
        panic!("it has a way back")
    };
    assert_eq!((saga.reason, play.undone().await), (Some(reason), undone));
}

#[tokio::test(flavor = "multi_thread")]
async fn each_step_that_is_refused_or_fails_leads_where_its_definition_says() {
    let stage = Arc::new(Stage::set(Pace::CALM).await);
    let mut cases = Cases::default();
    for (_, definition) in workflows() {
        let steps = definition.steps.iter().enumerate().filter(|(_, step)| step.command.is_some());
        for (index, step) in steps {
            let row = table::row(&definition.name, &step.name);
            let workflow = definition.name.clone();
            let name = format!("{workflow}, {}", step.name);
            let case = answered(Arc::clone(&stage), workflow.clone(), index, failed(), CODE.to_owned(), true);
            cases.add(format!("{name}, fails"), case);
            let codes = step.back_to.keys().map(String::as_str).chain([CODE]);
            for code in codes.filter(|_| row.stand_in) {
                let case = answered(
                    Arc::clone(&stage),
                    workflow.clone(),
                    index,
                    refused(code),
                    code.to_owned(),
                    false,
                );
                cases.add(format!("{name}, refused with {code}"), case);
            }
            if let Some((no, code)) = row.no {
                let case = refused_by_its_service(Arc::clone(&stage), workflow, index, no, code);
                cases.add(format!("{name}, refused by its service"), case);
            }
        }
    }
    cases.finish(stage).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_undo_that_is_refused_or_fails_gets_stuck_and_a_retry_ends_it() {
    let stage = Arc::new(Stage::set(Pace::CALM).await);
    let mut cases = Cases::default();
    for (_, definition) in workflows().into_iter().filter(|(_, definition)| last_turn(definition).is_some()) {
        for step in
            definition.steps[..=last_turn(&definition).unwrap()].iter().filter(|step| step.undo.is_some())
        {
            for (what, rule) in [("fails", failed()), ("refused", refused(CODE))] {
                let case =
                    undo_answered(Arc::clone(&stage), definition.name.clone(), step.name.clone(), rule);
                cases.add(format!("{}, undo of {}, {what}", definition.name, step.name), case);
            }
        }
    }
    cases.finish(stage).await;
}

/// A signal that ends a wait instead of letting it go on.
async fn signalled(stage: Arc<Stage>, workflow: String, index: usize, signal: String, reason: String) {
    let definition = stage.definition(&workflow);
    let mut play = Play::begin(&stage, &workflow, Rules::default(), None).await;
    let wait = &definition.steps[index].name;
    play.unsignalled = Some(wait.clone());
    play.go_until("the saga to wait", |saga| saga.step == *wait).await;
    play.send_signal(&signal).await;
    play.lead(&leads(definition, index, &reason, true), None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_signal_that_ends_a_wait_undoes_what_came_before() {
    let stage = Arc::new(Stage::set(Pace::CALM).await);
    let mut cases = Cases::default();
    for (_, definition) in workflows() {
        let waits = definition.steps.iter().enumerate().filter(|(_, step)| step.wait.is_some());
        for (index, step) in waits {
            for (signal, reason) in &definition.signals {
                let (workflow, signal) = (definition.name.clone(), signal.clone());
                let name = format!("{workflow}, {}, {signal}", step.name);
                cases.add(name, signalled(Arc::clone(&stage), workflow, index, signal, reason.clone()));
            }
        }
    }
    cases.finish(stage).await;
}
