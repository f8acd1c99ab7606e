//! Each step misses its deadline because no worker serves it or the reply is lost, and each step gets a late reply.
//! Silence costs no attempt.

use std::sync::Arc;

use boxoffice::saga::{self, Definition, Direction, Outcome, Saga, Status};

use super::case::{CODE, Case, Cases, compensating, expected_ending, last_compensable};
use super::command_proxy::{Rule, Rules, is_here};
use super::harness::{Harness, Timing, workflows};

/// Every deadline is short.
const SHORT_DEADLINES: Timing = Timing {
    timeout_ms: 300,
    deadline_seconds: Some(5),
    flags: &["--hold-seconds", "5", "--payment-grace-seconds", "1"],
};

/// The reply timeout is short, and the deadlines leave time for a late reply.
const SHORT_REPLY_TIMEOUT: Timing = Timing { timeout_ms: 500, ..Timing::NORMAL };

/// No reply, or no signal, arrives before the deadline. What arrives later changes nothing.
async fn timed_out(harness: Arc<Harness>, workflow: String, index: usize, rule: Rule) {
    let definition = harness.definition(&workflow);
    let definition = definition.as_ref();
    let step = &definition.steps[index];
    let rules = Rules::default().with(&step.name, Direction::Do, rule);
    let mut case = Case::begin(&harness, &workflow, rules, None).await;
    case.wait_without_signal = step.wait.as_ref().map(|_| step.name.clone());
    let reason = &step.deadline.as_ref().unwrap().reason;
    let saga = case.check_ending(&expected_ending(definition, index, reason, true), None).await;
    check_no_attempt_counted(&case, None).await;
    harness.proxy.release(saga.id).await;
    if let Some(signal) = &step.wait {
        case.send_signal(signal).await;
    }
    harness.drained().await;
    assert_eq!(case.saga().await.seq, saga.seq, "a late message changed the saga");
    case.check(&saga).await;
}

/// Only the step that was made to fail has failed.
async fn check_no_attempt_counted(case: &Case, failing: Option<&str>) {
    for row in case.history().await {
        let meant = failing == Some(row.step.as_str()) && row.direction == Direction::Do;
        assert!(meant || (row.event != "failed" && row.attempt == 0), "an attempt was counted: {row:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn unanswered_step_is_undone_at_its_deadline() {
    let harness = Arc::new(Harness::start(SHORT_DEADLINES).await);
    let mut cases = Cases::default();
    for (_, definition) in workflows() {
        let steps = definition.steps.iter().enumerate().filter(|(_, step)| step.deadline.is_some());
        for (index, step) in steps {
            let name = format!("{}, {}", definition.name, step.name);
            let (workflow, lost) = (definition.name.clone(), format!("{name}, the answer is lost"));
            cases.add(name, timed_out(Arc::clone(&harness), workflow.clone(), index, Rule::Hold));
            if step.command.as_ref().is_some_and(|command| !is_here(command)) {
                cases.add(lost, timed_out(Arc::clone(&harness), workflow, index, Rule::DropReply));
            }
        }
    }
    cases.finish(harness).await;
}

/// What happens to the first sends of a command.
#[derive(Clone, Copy, Debug)]
enum ReplyLoss {
    /// No worker gets the command.
    CommandHeld,
    /// The command is executed, and its reply is lost.
    ReplyLost,
    /// The worker replies that it does not know the result.
    Unknown,
}

/// The command is sent several times. Then a reply to the first send arrives.
async fn answered_late(
    harness: Arc<Harness>,
    workflow: String,
    step: String,
    direction: Direction,
    loss: ReplyLoss,
) {
    let definition = harness.definition(&workflow);
    let definition = definition.as_ref();
    let rule = match loss {
        ReplyLoss::CommandHeld => Rule::Hold,
        ReplyLoss::ReplyLost => Rule::DropReply,
        ReplyLoss::Unknown => Rule::Answer(Outcome::Unknown { reason: CODE.to_owned() }),
    };
    let mut rules = Rules::default().with(&step, direction, rule);
    let (mut end, mut failing) = (Status::Completed, None);
    if direction == Direction::Undo {
        rules = compensating(definition, rules);
        (end, failing) =
            (Status::Compensated, Some(&definition.steps[last_compensable(definition).unwrap()].name));
    }
    let case = Case::begin(&harness, &workflow, rules, None).await;
    let asked = || {
        let mut commands = harness.proxy.commands(case.started.saga);
        commands.retain(|message| message.is_of(&step, direction));
        commands
    };
    let again = |_: &Saga| asked().len() >= 3;
    case.run_until("the step to be asked for three times", again).await;
    let first = asked().remove(0);
    harness.proxy.forward(&first).await;
    let index = definition.index(&step).unwrap();
    let moved = |saga: &Saga| {
        !matches!(saga.status, Status::Running | Status::Compensating)
            || saga.direction != direction
            || !saga::open_steps(definition, saga).contains(&index)
    };
    case.run_until("the late answer to count", moved).await;
    harness.proxy.release(case.started.saga).await;
    let saga = case.run_to_end().await;
    assert_eq!(saga.status, end);
    check_no_attempt_counted(&case, failing.map(String::as_str)).await;
    case.check(&saga).await;
}

/// Every command, and every undo that a saga can reach.
fn commands(definition: &Definition) -> Vec<(String, Direction, bool)> {
    let all = definition.steps.iter().enumerate().flat_map(|(index, step)| {
        let undo = step.undo.as_ref().filter(|_| definition.can_compensate(index));
        let both = [(Direction::Do, step.command.as_ref()), (Direction::Undo, undo)];
        both.into_iter()
            .filter_map(|(direction, command)| Some((step.name.clone(), direction, is_here(command?))))
    });
    all.collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn late_reply_counts_and_costs_no_attempt() {
    let harness = Arc::new(Harness::start(SHORT_REPLY_TIMEOUT).await);
    let mut cases = Cases::default();
    for (_, definition) in workflows() {
        for (step, direction, here) in commands(&definition) {
            for loss in [ReplyLoss::CommandHeld, ReplyLoss::ReplyLost, ReplyLoss::Unknown] {
                if here && matches!(loss, ReplyLoss::ReplyLost) {
                    continue;
                }
                // A member of a group differs from a step in what else is out, not in why its reply is missing.
                let is_member = definition.index(&step).and_then(|index| definition.group(index)).is_some();
                if definition.name == "parallel" && !(is_member && matches!(loss, ReplyLoss::CommandHeld)) {
                    continue;
                }
                let name = format!("{}, {direction} {step}, {loss:?}", definition.name);
                let (workflow, step) = (definition.name.clone(), step.clone());
                cases.add(name, answered_late(Arc::clone(&harness), workflow, step, direction, loss));
            }
        }
    }
    cases.finish(harness).await;
}
