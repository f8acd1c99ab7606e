//! Each command and each reply comes twice, again while the saga is on later steps, and again when it has ended and
//! somebody else has what it gave back. So each undo runs twice too.

use std::sync::Arc;

use boxoffice::saga::{Direction, Outcome, Status};

use super::play::{CODE, Cases, Play};
use super::post::{Rule, Rules};
use super::stage::{Pace, Stage, workflows};
use super::table;

/// A saga that turns back at a step, or goes to its end.
async fn repeated(stage: Arc<Stage>, workflow: String, turns_back_at: Option<String>) {
    let mut rules = Rules::repeated();
    if let Some(step) = &turns_back_at {
        rules = rules.with(step, Direction::Do, Rule::Answer(Outcome::Failed { code: CODE.to_owned() }));
    }
    let play = Play::begin(&stage, &workflow, rules, None).await;
    let saga = play.go_to_rest().await;
    let expected = if turns_back_at.is_some() { Status::Compensated } else { Status::Completed };
    assert_eq!(saga.status, expected);
    play.check(&saga).await;
    if play.begun.reservation.is_some() && (workflow != "booking" || expected == Status::Compensated) {
        table::take(&stage, play.begun.seat).await;
    }
    stage.post.repeat_all(saga.id).await;
    stage.drained().await;
    let after = play.saga().await;
    assert_eq!((after.seq, after.status, &after.context), (saga.seq, saga.status, &saga.context));
    play.check(&after).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_command_and_each_reply_that_comes_twice_counts_once() {
    let stage = Arc::new(Stage::set(Pace::CALM).await);
    let mut cases = Cases::default();
    for (_, definition) in workflows() {
        let name = &definition.name;
        cases.add(format!("{name}, to its end"), repeated(Arc::clone(&stage), name.clone(), None));
        for (index, step) in definition.steps.iter().enumerate() {
            if step.command.is_some() && definition.can_turn_back(index) {
                let turns = Some(step.name.clone());
                let case = repeated(Arc::clone(&stage), name.clone(), turns);
                cases.add(format!("{name}, back at {}", step.name), case);
            }
        }
    }
    cases.finish(stage).await;
}
