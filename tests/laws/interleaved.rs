//! Do and undo of each step run at the same time on two connections. One transaction stops before each of its
//! statements in turn while the other runs, which must wait or be refused. Without locks a transaction stops between
//! read and write; it must notice the change and overwrite nothing.

use std::sync::Arc;
use std::time::Duration;

use boxoffice::orchestrator::ActError;
use boxoffice::saga::{Direction, OperatorAction, Status};
use futures::StreamExt;
use futures::future::join_all;
use sqlx::PgPool;

use super::case::{Case, compensating};
use super::command_proxy::{Rule, Rules, is_here};
use super::harness::{Harness, Side, Timing, workflows};
use super::link::{Link, Stop};
use super::table::is_tried;
use crate::common::app::until;

/// Longer than the other transaction needs if it does not wait.
const OVERLAP: Duration = Duration::from_millis(100);

/// Runs a saga until the proxy holds the command of a step.
async fn ready(harness: &Arc<Harness>, workflow: &str, step: &str, direction: Direction) -> Case {
    let rules = Rules::default().with(step, direction, Rule::Hold);
    let rules = match direction {
        Direction::Do => rules,
        Direction::Undo => compensating(&harness.definition(workflow), rules),
    };
    let case = Case::begin(harness, workflow, rules, None).await;
    case.run_to_held(step, direction).await;
    case
}

/// Releases the held command. Its transaction stops before the statement with this number.
async fn go_and_stop(case: &Case, link: &Link, before: usize) -> Arc<Stop> {
    let stop = link.stop(case.started.saga, before);
    case.harness.proxy.release(case.started.saga).await;
    stop
}

/// The number of statements in the transaction of a step, with its commit.
async fn count(
    harness: &Arc<Harness>,
    link: &Link,
    workflow: &str,
    step: &str,
    direction: Direction,
) -> usize {
    let case = ready(harness, workflow, step, direction).await;
    let stop = go_and_stop(&case, link, usize::MAX).await;
    let saga = case.run_to_end().await;
    case.check(&saga).await;
    let statements = *stop.statements.lock().unwrap();
    statements.expect("the transaction used the link")
}

/// Waits until a transaction waits for a lock.
async fn until_a_lock_wait(pool: &PgPool) {
    until(10, "the other to wait", || async {
        let waiting = sqlx::query_scalar::<_, i64>(
            "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'",
        );
        waiting.fetch_one(pool).await.unwrap() > 0
    })
    .await;
}

/// The database of the step's service.
fn pool_of(case: &Case, here: bool) -> &PgPool {
    if here { case.harness.pool() } else { &case.harness.proxy.sample.pool }
}

/// The `do` of a step stops. The saga is cancelled, so that its undo runs meanwhile.
async fn undo_meets_do(case: &Case, link: &Link, here: bool, before: usize) {
    let (id, engine) = (case.started.saga, case.harness.engine.clone());
    let stop = go_and_stop(case, link, before).await;
    stop.reached().await;
    let mut act =
        tokio::spawn(async move { engine.act(id, OperatorAction::Cancel, "a test", "to interleave").await });
    if before == 0 {
        // The `do` holds no lock yet. The undo overtakes it, and the `do` finds a changed saga or a tombstone.
        act.await.unwrap().expect("no lock blocks it");
        assert_eq!(case.run_to_end().await.status, Status::Compensated);
        stop.released.notify_one();
    } else {
        // For a service of the program the action waits for the saga's row. For an external one the undo waits for the
        // step's fence.
        until_a_lock_wait(pool_of(case, here)).await;
        let waits = tokio::time::timeout(OVERLAP, &mut act).await;
        assert_eq!(waits.is_err(), here, "the undo began while the do was under way");
        stop.released.notify_one();
        let answer = match waits {
            Ok(answer) => answer.unwrap(),
            Err(_) => act.await.unwrap(),
        };
        assert!(matches!(answer, Ok(_) | Err(ActError::Illegal { .. })), "{answer:?}");
    }
    let saga = case.run_to_end().await;
    case.harness.drained().await;
    case.check(&saga).await;
}

/// The undo of a step stops. A late `do` runs meanwhile and must have no effect.
async fn do_meets_undo(case: &Case, link: &Link, here: bool, step: &str, before: usize) {
    let harness = &case.harness;
    let stop = go_and_stop(case, link, before).await;
    stop.reached().await;
    let commands = harness.proxy.commands(case.started.saga);
    let late = commands.iter().find(|message| message.is_of(step, Direction::Do)).expect("it was asked for");
    harness.proxy.forward(late).await;
    if before > 0 {
        until_a_lock_wait(pool_of(case, here)).await;
    }
    tokio::time::sleep(OVERLAP).await;
    // Before its first statement an external undo holds no lock. The engine may have asked again meanwhile, and a worker
    // handles several commands at once.
    if here || before > 0 {
        let saga = case.saga().await;
        let stands = (saga.status, saga.step.as_str());
        assert_eq!(stands, (Status::Compensating, step), "it did not wait at statement {before}");
    }
    stop.released.notify_one();
    let saga = case.run_to_end().await;
    assert_eq!(saga.status, Status::Compensated);
    harness.drained().await;
    case.check(&saga).await;
}

/// Stops one step before each statement, for do and undo.
async fn interleaved(workflow: String, step: String, here: bool) {
    let link = Link::default();
    let side = if here { Side::Here } else { Side::Elsewhere };
    let harness = Arc::new(Harness::start_with_link(Timing::LOCKED, Some((&link, side))).await);
    for direction in [Direction::Do, Direction::Undo] {
        let statements = count(&harness, &link, &workflow, &step, direction).await;
        assert!(statements > 3, "{direction} {step} has {statements} statements");
        let cases = (0..statements).map(|_| ready(&harness, &workflow, &step, direction));
        for (before, case) in join_all(cases).await.iter().enumerate() {
            match direction {
                Direction::Do => undo_meets_do(case, &link, here, before).await,
                Direction::Undo => do_meets_undo(case, &link, here, &step, before).await,
            }
        }
    }
    harness.close().await;
}

/// Each has a database and a service of its own; all at once they would keep each other from the processor.
async fn a_few_at_a_time(steps: Vec<impl Future<Output = ()>>) {
    futures::stream::iter(steps).buffer_unordered(3).collect::<()>().await;
}

/// Every step with an undo that is served here, or by an external worker.
async fn all_interleaved(here: bool) {
    let mut steps = Vec::new();
    for (_, definition) in workflows() {
        let undone = definition.steps.iter().enumerate().filter(|(_, step)| step.undo.is_some());
        for (_, step) in undone.filter(|(index, _)| is_tried(&definition, *index)) {
            if step.command.as_ref().is_some_and(|command| is_here(command) == here) {
                steps.push(interleaved(definition.name.clone(), step.name.clone(), here));
            }
        }
    }
    assert!(!steps.is_empty());
    a_few_at_a_time(steps).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn do_and_undo_exclude_at_every_statement() {
    all_interleaved(true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn external_do_and_undo_exclude_each_other() {
    all_interleaved(false).await;
}

/// The step has read and decided. The saga is cancelled before it writes.
async fn overtaken(workflow: String, step: String) {
    let link = Link::default();
    let harness = Arc::new(Harness::start_with_link(Timing::NORMAL, Some((&link, Side::Here))).await);
    let case = ready(&harness, &workflow, &step, Direction::Do).await;
    until(10, "the saga to leave its earlier flights", || async {
        let sql = "select not exists (select from sagas s join flights f on s.id = any(f.sagas)
                                      where s.id = $1 and f.id is distinct from s.flight)";
        let left = sqlx::query_scalar::<_, bool>(sql).bind(case.started.saga);
        left.fetch_one(harness.pool()).await.unwrap()
    })
    .await;
    // The saga is in the cache, so the write is the first statement that names it.
    let stop = link.stop_alone(case.started.saga, 0);
    harness.proxy.release(case.started.saga).await;
    stop.reached().await;
    harness
        .engine
        .act(case.started.saga, OperatorAction::Cancel, "a test", "to interleave")
        .await
        .expect("no lock blocks it");
    assert_eq!(case.run_to_end().await.status, Status::Compensated);
    stop.released.notify_one();
    harness.drained().await;
    let saga = case.saga().await;
    assert_eq!(saga.status, Status::Compensated, "what was decided before is not written over it");
    case.check(&saga).await;
    harness.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn change_between_read_and_write_is_not_overwritten() {
    let mut steps = Vec::new();
    for (_, definition) in workflows() {
        for step in definition.steps.iter().filter(|step| step.undo.is_some()) {
            if step.command.as_ref().is_some_and(|command| is_here(command)) {
                steps.push(overtaken(definition.name.clone(), step.name.clone()));
            }
        }
    }
    assert!(!steps.is_empty());
    a_few_at_a_time(steps).await;
}
