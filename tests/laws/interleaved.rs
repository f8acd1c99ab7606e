//! Do and undo of each step meet, statement by statement, on two connections: one is stopped in the middle of its
//! transaction, before each of its statements in turn, and the other comes. It waits, or it is refused. Without locks one
//! is stopped between reading and writing: what the other did meanwhile is noticed, and nothing is overwritten.

use std::sync::Arc;
use std::time::Duration;

use boxoffice::orchestrator::ActError;
use boxoffice::saga::{Act, Direction, Status};
use futures::future::join_all;
use sqlx::PgPool;

use super::play::{Play, turning_back};
use super::post::{Rule, Rules, is_here};
use super::stage::{Pace, Side, Stage, workflows};
use super::wire::{Stop, Wire};
use crate::common::app::until;

/// Long enough for whoever would not wait.
const MOMENT: Duration = Duration::from_millis(100);

/// A saga with the command of a step at the post.
async fn ready(stage: &Arc<Stage>, workflow: &str, step: &str, direction: Direction) -> Play {
    let rules = Rules::default().with(step, direction, Rule::Hold);
    let rules = match direction {
        Direction::Do => rules,
        Direction::Undo => turning_back(stage.definition(workflow), rules),
    };
    let play = Play::begin(stage, workflow, rules, None).await;
    play.go_to_hold(step, direction).await;
    play
}

/// Lets the held command go; the transaction that it leads to stops before its statement of this number.
async fn go_and_stop(play: &Play, wire: &Wire, before: usize) -> Arc<Stop> {
    let stop = wire.stop(play.begun.saga, before);
    play.stage.post.release(play.begun.saga).await;
    stop
}

/// How many statements the transaction of a step has, its commit among them.
async fn count(stage: &Arc<Stage>, wire: &Wire, workflow: &str, step: &str, direction: Direction) -> usize {
    let play = ready(stage, workflow, step, direction).await;
    let stop = go_and_stop(&play, wire, usize::MAX).await;
    let saga = play.go_to_rest().await;
    play.check(&saga).await;
    let statements = *stop.statements.lock().unwrap();
    statements.expect("its transaction came over the wire")
}

/// Somebody waits for a row that somebody else has.
async fn until_somebody_waits(pool: &PgPool) {
    until(10, "the other to wait", || async {
        let waiting = sqlx::query_scalar::<_, i64>(
            "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'",
        );
        waiting.fetch_one(pool).await.unwrap() > 0
    })
    .await;
}

/// Where the step's transactions are.
fn pool_of(play: &Play, here: bool) -> &PgPool {
    if here { play.stage.pool() } else { &play.stage.post.parcels.pool }
}

/// The `do` of a step is stopped; its saga is cancelled meanwhile, which undoes it.
async fn undo_meets_do(play: &Play, wire: &Wire, here: bool, before: usize) {
    let (id, engine) = (play.begun.saga, play.stage.engine.clone());
    let stop = go_and_stop(play, wire, before).await;
    stop.reached().await;
    let mut act = tokio::spawn(async move { engine.act(id, Act::Cancel, "a test", "to interleave").await });
    if before == 0 {
        // The do has nothing yet: the undo overtakes it, and it finds its saga moved on, or its tombstone.
        act.await.unwrap().expect("nothing is in its way");
        assert_eq!(play.go_to_rest().await.status, Status::Compensated);
        stop.released.notify_one();
    } else {
        // Here the act itself waits, for the row of the saga; elsewhere the command of the undo, for the step's row.
        until_somebody_waits(pool_of(play, here)).await;
        let waits = tokio::time::timeout(MOMENT, &mut act).await;
        assert_eq!(waits.is_err(), here, "the undo began while the do was under way");
        stop.released.notify_one();
        let answer = match waits {
            Ok(answer) => answer.unwrap(),
            Err(_) => act.await.unwrap(),
        };
        assert!(matches!(answer, Ok(_) | Err(ActError::Illegal { .. })), "{answer:?}");
    }
    let saga = play.go_to_rest().await;
    play.stage.drained().await;
    play.check(&saga).await;
}

/// The undo of a step is stopped; its `do` comes late meanwhile, and does nothing.
async fn do_meets_undo(play: &Play, wire: &Wire, here: bool, step: &str, before: usize) {
    let stage = &play.stage;
    let stop = go_and_stop(play, wire, before).await;
    stop.reached().await;
    let letters = stage.post.letters(play.begun.saga);
    let late = letters.iter().find(|letter| letter.is_of(step, Direction::Do)).expect("it was asked for");
    stage.post.forward(late).await;
    if before > 0 {
        until_somebody_waits(pool_of(play, here)).await;
    }
    tokio::time::sleep(MOMENT).await;
    let saga = play.saga().await;
    assert_eq!((saga.status, saga.step.as_str()), (Status::Compensating, step), "it did not wait");
    stop.released.notify_one();
    let saga = play.go_to_rest().await;
    assert_eq!(saga.status, Status::Compensated);
    stage.drained().await;
    play.check(&saga).await;
}

/// One step, stopped everywhere, in both directions.
async fn interleaved(workflow: String, step: String, here: bool) {
    let wire = Wire::default();
    let side = if here { Side::Here } else { Side::Elsewhere };
    let stage = Arc::new(Stage::wired(Pace::LOCKED, Some((&wire, side))).await);
    for direction in [Direction::Do, Direction::Undo] {
        let statements = count(&stage, &wire, &workflow, &step, direction).await;
        assert!(statements > 3, "{direction} {step} has {statements} statements");
        let plays = (0..statements).map(|_| ready(&stage, &workflow, &step, direction));
        for (before, play) in join_all(plays).await.iter().enumerate() {
            match direction {
                Direction::Do => undo_meets_do(play, &wire, here, before).await,
                Direction::Undo => do_meets_undo(play, &wire, here, &step, before).await,
            }
        }
    }
    stage.close().await;
}

/// The steps with an undo of all workflows, as far as they are served here or elsewhere.
async fn all_interleaved(here: bool) {
    let mut steps = Vec::new();
    for (_, definition) in workflows() {
        for step in definition.steps.iter().filter(|step| step.undo.is_some()) {
            if step.command.as_ref().is_some_and(|command| is_here(command) == here) {
                steps.push(interleaved(definition.name.clone(), step.name.clone(), here));
            }
        }
    }
    assert!(!steps.is_empty());
    join_all(steps).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn do_and_undo_of_each_step_wait_for_each_other_at_every_statement() {
    all_interleaved(true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn do_and_undo_of_each_step_that_is_served_elsewhere_wait_for_each_other_at_every_statement() {
    all_interleaved(false).await;
}

/// A step that has read and decided, and is about to write: the saga is cancelled under its feet.
async fn overtaken(workflow: String, step: String) {
    let wire = Wire::default();
    let stage = Arc::new(Stage::wired(Pace::CALM, Some((&wire, Side::Here))).await);
    let play = ready(&stage, &workflow, &step, Direction::Do).await;
    // The saga is remembered, and not read.
    let stop = wire.stop_alone(play.begun.saga, 0);
    stage.post.release(play.begun.saga).await;
    stop.reached().await;
    stage
        .engine
        .act(play.begun.saga, Act::Cancel, "a test", "to interleave")
        .await
        .expect("no lock is in its way");
    assert_eq!(play.go_to_rest().await.status, Status::Compensated);
    stop.released.notify_one();
    stage.drained().await;
    let saga = play.saga().await;
    assert_eq!(saga.status, Status::Compensated, "what was decided before is not written over it");
    play.check(&saga).await;
    stage.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_changed_between_reading_and_writing_is_not_written_over() {
    let mut steps = Vec::new();
    for (_, definition) in workflows() {
        for step in definition.steps.iter().filter(|step| step.undo.is_some()) {
            if step.command.as_ref().is_some_and(|command| is_here(command)) {
                steps.push(overtaken(definition.name.clone(), step.name.clone()));
            }
        }
    }
    assert!(!steps.is_empty());
    join_all(steps).await;
}
