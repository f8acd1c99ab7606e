//! A command that takes longer than its consumer waits for the acknowledgement.

use std::time::Duration;

use saga_core::{Command, Outcome};
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use super::outcomes::needed;
use crate::tester::{Ended, Ending, Tester, named, shown};

/// When the command is sent again, and when the undo of another one is sent, while the worker is at work.
const MEANWHILE: Duration = Duration::from_millis(700);

pub(super) async fn slow(tester: &mut Tester) -> Ending {
    let context = needed(tester.options.contexts.slow.as_ref(), "--slow")?;
    let begun = Instant::now();
    let saga = tester.saga();
    let command = tester.command_with(saga, 1, &context);
    let sequence = tester.send(&command).await?;
    let withdrawn = tester.saga();
    let mut undone = None;
    if tester.undo.is_some() {
        let command = tester.command_with(withdrawn, 1, &context);
        undone = Some((tester.undo_of(&command)?, tester.send(&command).await?, command));
    }
    sleep(MEANWHILE).await;
    // The engine sends a command again that is not answered within the step's time.
    let again = Command { send: 1, ..command.clone() };
    let resent = tester.send(&again).await?;
    let undoing = match &undone {
        Some((undo, ..)) => Some(tester.send(undo).await?),
        None => None,
    };
    tester.acknowledged(&command, sequence).await?;
    let took = begun.elapsed();
    tester.acknowledged(&again, resent).await?;
    judge(tester, saga, &command, &again).await?;
    if let (Some((undo, sequence, command)), Some(undoing)) = (undone, undoing) {
        tester.acknowledged(&command, sequence).await?;
        tester.acknowledged(&undo, undoing).await?;
        judge_undone(tester, withdrawn, &command, &undo).await?;
    }
    let deliveries = tester.traffic.lock().deliveries(sequence);
    tester.did(format!("it took {took:.1?}, and was delivered {deliveries} times"));
    let wait = tester.ack_wait;
    if took < wait {
        return Err(Ended::Skipped(format!(
            "the context of --slow took {took:.1?}, less than the acknowledgement wait of {wait:?}"
        )));
    }
    Ok(())
}

async fn judge(tester: &mut Tester, saga: Uuid, command: &Command, again: &Command) -> Ending {
    let (first, second) = (tester.replies(command), tester.replies(again));
    tester.did(format!(
        "sent a slow `do`, and again while it ran; replies: {} and {}",
        first.len(),
        second.len()
    ));
    let all: Vec<&Outcome> = first.iter().chain(&second).collect();
    let done = all.iter().find(|outcome| matches!(outcome, Outcome::Done { .. }));
    let Some(done) = done.map(|done| (*done).clone()) else {
        let all: Vec<String> = all.into_iter().map(shown).collect();
        tester.wrong(format!("the slow {} was not done; its replies: [{}]", named(command), all.join(", ")));
        return Err(Ended::Failed);
    };
    if first.is_empty() || second.is_empty() {
        tester.wrong("of a slow `do` and its repeat, one was acknowledged without a reply");
    }
    for reply in all.into_iter().filter(|reply| !matches!(reply, Outcome::Unknown { .. })) {
        tester.compare(again, reply, &done, "a slow `do` was done again while it ran");
    }
    tester.effects(saga, 1, "after a slow `do` that was sent again").await;
    Ok(())
}

async fn judge_undone(tester: &mut Tester, saga: Uuid, command: &Command, undo: &Command) -> Ending {
    let replies = tester.replies(undo);
    tester.did(format!("sent the undo of another slow `do` while it ran; replies: {}", replies.len()));
    if !replies.iter().any(|reply| matches!(reply, Outcome::Done { .. })) {
        let all: Vec<String> = replies.iter().map(shown).collect();
        tester.wrong(format!("the undo of a slow `do` was not done; its replies: [{}]", all.join(", ")));
    }
    let late = "a late `do` after its undo must be acknowledged without a reply";
    tester.nothing(&Command { send: 1, ..command.clone() }, late).await?;
    tester.effects(saga, 0, "after the undo of a slow `do`").await;
    Ok(())
}
