//! Each command and each reply is delivered twice, again during later steps, and again after the saga has ended and
//! another buyer holds the released seat. So each undo runs twice too.

use std::sync::Arc;

use boxoffice::saga::{Direction, Outcome, Status};

use super::case::{CODE, Case, Cases};
use super::command_proxy::{Rule, Rules};
use super::harness::{Harness, Timing, workflows};
use super::table;

/// A saga that fails at a step, or completes.
async fn repeated(harness: Arc<Harness>, workflow: String, turns_back_at: Option<String>) {
    let mut rules = Rules::repeated();
    if let Some(step) = &turns_back_at {
        rules = rules.with(step, Direction::Do, Rule::Answer(Outcome::Failed { code: CODE.to_owned() }));
    }
    let case = Case::begin(&harness, &workflow, rules, None).await;
    let saga = case.run_to_end().await;
    let expected = if turns_back_at.is_some() { Status::Compensated } else { Status::Completed };
    assert_eq!(saga.status, expected);
    case.check(&saga).await;
    if case.started.reservation.is_some() && (workflow != "booking" || expected == Status::Compensated) {
        table::take(&harness, case.started.seat).await;
    }
    harness.proxy.repeat_all(saga.id).await;
    harness.drained().await;
    let after = case.saga().await;
    assert_eq!((after.seq, after.status, &after.context), (saga.seq, saga.status, &saga.context));
    case.check(&after).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn duplicate_commands_and_replies_count_once() {
    let harness = Arc::new(Harness::start(Timing::NORMAL).await);
    let mut cases = Cases::default();
    for (_, definition) in workflows() {
        let name = &definition.name;
        cases.add(format!("{name}, to its end"), repeated(Arc::clone(&harness), name.clone(), None));
        for (index, step) in definition.steps.iter().enumerate() {
            if step.command.is_some() && definition.can_compensate(index) {
                let turns = Some(step.name.clone());
                let case = repeated(Arc::clone(&harness), name.clone(), turns);
                cases.add(format!("{name}, back at {}", step.name), case);
            }
        }
    }
    cases.finish(harness).await;
}
