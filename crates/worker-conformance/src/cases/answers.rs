//! Commands are answered by the contract: each of them, duplicates with the same answer, late ones not at all.

use std::time::Duration;

use chrono::TimeDelta;
use saga_core::{Command, DEADLINE_PASSED, Outcome};

use crate::tester::{Ended, Ending, Tester, shown};

/// Duplicates that are sent at the same time.
const DUPLICATES: usize = 6;
/// How far in the past a deadline lies: more than clocks differ.
const PAST: TimeDelta = TimeDelta::minutes(10);
/// How long late replies are waited for at the end.
const GRACE: Duration = Duration::from_millis(500);

pub(super) async fn answered(tester: &mut Tester) -> Ending {
    let saga = tester.saga();
    let command = tester.command(saga, 1);
    let why = "the suite needs a command that the worker does; name its context with --input";
    let outcome = tester.done(&command, why).await?;
    tester.did(format!("a `do` was answered {}", shown(&outcome)));
    tester.effects(saga, 1, "after a `do`").await;
    Ok(())
}

pub(super) async fn duplicates(tester: &mut Tester) -> Ending {
    let saga = tester.saga();
    let command = tester.command(saga, 1);
    let mut sequences = Vec::new();
    for _ in 0..DUPLICATES {
        sequences.push(tester.send(&command).await?);
    }
    for sequence in sequences {
        tester.acknowledged(&command, sequence).await?;
    }
    let id = command.message_id();
    let all = tester.traffic.wait(GRACE, |seen| (seen.replies(&id).len() >= DUPLICATES).then_some(())).await;
    let replies = tester.replies(&command);
    tester.did(format!("sent the same `do` {DUPLICATES} times at once; replies: {}", replies.len()));
    if all.is_none() {
        tester.wrong(format!(
            "only {} of {DUPLICATES} duplicates were answered: a reply that was lost never comes again",
            replies.len()
        ));
    }
    let Some(first) = replies.first().cloned() else { return Err(Ended::Failed) };
    let twice = "a duplicate was done again, and not answered from the fence";
    for reply in &replies[1..] {
        tester.compare(&command, reply, &first, twice);
    }
    tester.effects(saga, 1, "after duplicates").await;
    tester.same(&Command { send: 1, ..command.clone() }, &first, twice).await?;
    tester.did("sent it again with a higher Send");
    tester
        .same(&Command { visit: 2, ..command }, &first, "what is done at an earlier visit is not done again")
        .await?;
    tester.did("sent it at the next visit");
    tester.effects(saga, 1, "after a duplicate at a later visit").await;
    Ok(())
}

pub(super) async fn late_visit(tester: &mut Tester) -> Ending {
    let saga = tester.saga();
    let later = tester.command(saga, 2);
    tester.done(&later, "a saga may begin with any visit").await?;
    let late = "a `do` of an earlier visit must be acknowledged without a reply";
    tester.nothing(&Command { visit: 1, ..later }, late).await?;
    tester.did("sent visit 2, then visit 1");
    tester.effects(saga, 1, "after a late visit").await;
    Ok(())
}

pub(super) async fn deadline(tester: &mut Tester) -> Ending {
    let past = Some((tester.options.now)() - PAST);
    let future = Some((tester.options.now)() + PAST);
    let saga = tester.saga();
    let late = Command { deadline: past, ..tester.command(saga, 1) };
    let outcome = tester.answer(&late).await?;
    tester.did(format!("a `do` after its deadline was answered {}", shown(&outcome)));
    if !matches!(&outcome, Outcome::Rejected { code, .. } if code == DEADLINE_PASSED) {
        tester.wrong(format!(
            "a `do` after its deadline must be answered `rejected` with the code {DEADLINE_PASSED}; it was answered {}",
            shown(&outcome)
        ));
    }
    tester.effects(saga, 0, "after a `do` whose deadline has passed").await;

    let saga = tester.saga();
    let timely = Command { deadline: future, ..tester.command(saga, 1) };
    let first = tester.done(&timely, "its deadline is in ten minutes").await?;
    let why = "what was done in time stays done, also if it is asked for after the deadline";
    tester.same(&Command { deadline: past, send: 1, ..timely.clone() }, &first, why).await?;
    tester.did("a duplicate of a `do` that was done in time came after the deadline");
    tester.effects(saga, 1, "after a duplicate whose deadline has passed").await;
    Ok(())
}

pub(super) async fn last(tester: &mut Tester) -> Ending {
    tokio::time::sleep(GRACE).await;
    tester.late_replies();
    if tester.undo.is_some() {
        let count = tester.undo_all().await?;
        tester.did(format!("undid what the suite has done: {count} sagas"));
    }
    if tester.options.count.is_none() {
        return Err(Ended::Skipped("effects were not counted: it needs --count".to_owned()));
    }
    Ok(())
}
