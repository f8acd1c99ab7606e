//! Each step is rejected, and fails until its attempts are used up; so does each undo.

use std::sync::Arc;

use boxoffice::saga::{Direction, Outcome};

use super::case::{CODE, Case, Cases, Ending, compensating, expected_ending, last_compensable};
use super::command_proxy::{Rule, Rules};
use super::harness::{Harness, Timing, workflows};
use super::table;

fn refused(code: &str) -> Rule {
    Rule::Answer(Outcome::rejected(code))
}

fn failed() -> Rule {
    Rule::Answer(Outcome::Failed { code: CODE.to_owned() })
}

/// The `do` of a step gets a reply according to the rule.
async fn answered(
    harness: Arc<Harness>,
    workflow: String,
    index: usize,
    rule: Rule,
    code: String,
    may_have_run: bool,
) {
    let definition = harness.definition(&workflow);
    let definition = definition.as_ref();
    let rules = Rules::default().with(&definition.steps[index].name, Direction::Do, rule);
    let case = Case::begin(&harness, &workflow, rules, None).await;
    case.check_ending(&expected_ending(definition, index, &code, may_have_run), None).await;
}

/// The step's own service rejects the command.
async fn refused_by_its_service(
    harness: Arc<Harness>,
    workflow: String,
    index: usize,
    no: table::Refusal,
    code: &str,
) {
    let definition = harness.definition(&workflow);
    let definition = definition.as_ref();
    let step = &definition.steps[index].name;
    let rules = Rules::default().with(step, Direction::Do, Rule::Hold);
    let case = Case::begin(&harness, &workflow, rules, Some(no)).await;
    case.run_to_held(step, Direction::Do).await;
    table::cause_refusal(&harness, &case.started, no).await;
    harness.proxy.release(case.started.saga).await;
    case.check_ending(&expected_ending(definition, index, code, false), Some(no)).await;
}

/// The undo of a step fails. The saga is stuck until an operator retries, and keeps the reason of its compensation.
async fn undo_answered(harness: Arc<Harness>, workflow: String, step: String, rule: Rule) {
    let definition = harness.definition(&workflow);
    let definition = definition.as_ref();
    let rules = Rules::default().with(&step, Direction::Undo, rule);
    let case = Case::begin(&harness, &workflow, compensating(definition, rules), None).await;
    let saga = case.check_ending(&Ending::Stuck, None).await;
    let Ending::Compensated { reason, undone } =
        expected_ending(definition, last_compensable(definition).unwrap(), CODE, true)
    else {
        panic!("it has a way back")
    };
    assert_eq!((saga.reason, case.undone().await), (Some(reason), undone));
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_or_failed_steps_end_as_defined() {
    let harness = Arc::new(Harness::start(Timing::NORMAL).await);
    let mut cases = Cases::default();
    for (_, definition) in workflows() {
        let steps = definition.steps.iter().enumerate().filter(|(_, step)| step.command.is_some());
        for (index, step) in steps {
            let row = table::row(&definition.name, &step.name);
            let workflow = definition.name.clone();
            let name = format!("{workflow}, {}", step.name);
            let case =
                answered(Arc::clone(&harness), workflow.clone(), index, failed(), CODE.to_owned(), true);
            cases.add(format!("{name}, fails"), case);
            let codes = step.back_to.keys().map(String::as_str).chain([CODE]);
            for code in codes.filter(|_| row.proxy_may_refuse) {
                let case = answered(
                    Arc::clone(&harness),
                    workflow.clone(),
                    index,
                    refused(code),
                    code.to_owned(),
                    false,
                );
                cases.add(format!("{name}, refused with {code}"), case);
            }
            if let Some((no, code)) = row.no {
                let case = refused_by_its_service(Arc::clone(&harness), workflow, index, no, code);
                cases.add(format!("{name}, refused by its service"), case);
            }
        }
    }
    cases.finish(harness).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn failed_undo_is_stuck_until_retried() {
    let harness = Arc::new(Harness::start(Timing::NORMAL).await);
    let mut cases = Cases::default();
    for (_, definition) in
        workflows().into_iter().filter(|(_, definition)| last_compensable(definition).is_some())
    {
        for step in definition.steps[..=last_compensable(&definition).unwrap()]
            .iter()
            .filter(|step| step.undo.is_some())
        {
            for (what, rule) in [("fails", failed()), ("refused", refused(CODE))] {
                let case =
                    undo_answered(Arc::clone(&harness), definition.name.clone(), step.name.clone(), rule);
                cases.add(format!("{}, undo of {}, {what}", definition.name, step.name), case);
            }
        }
    }
    cases.finish(harness).await;
}

/// A signal that ends a wait by compensation.
async fn signalled(harness: Arc<Harness>, workflow: String, index: usize, signal: String, reason: String) {
    let definition = harness.definition(&workflow);
    let definition = definition.as_ref();
    let mut case = Case::begin(&harness, &workflow, Rules::default(), None).await;
    let wait = &definition.steps[index].name;
    case.wait_without_signal = Some(wait.clone());
    case.run_until("the saga to wait", |saga| saga.step == *wait).await;
    case.send_signal(&signal).await;
    case.check_ending(&expected_ending(definition, index, &reason, true), None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn signal_that_ends_a_wait_undoes_earlier_steps() {
    let harness = Arc::new(Harness::start(Timing::NORMAL).await);
    let mut cases = Cases::default();
    for (_, definition) in workflows() {
        let waits = definition.steps.iter().enumerate().filter(|(_, step)| step.wait.is_some());
        for (index, step) in waits {
            for (signal, reason) in &definition.signals {
                let (workflow, signal) = (definition.name.clone(), signal.clone());
                let name = format!("{workflow}, {}, {signal}", step.name);
                cases.add(name, signalled(Arc::clone(&harness), workflow, index, signal, reason.clone()));
            }
        }
    }
    cases.finish(harness).await;
}
