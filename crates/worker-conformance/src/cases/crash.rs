//! The worker is killed while it has commands in hand: some are done and not acknowledged, some are half done.

use std::time::Duration;

use saga_core::{Command, Outcome};

use crate::setup;
use crate::shell;
use crate::tester::{Ended, Ending, Tester, shown};

/// Commands in hand at the first crash; each round has four times as many.
const FIRST_BURST: usize = 40;
/// The crash is tried so often until a command came again.
const ROUNDS: u32 = 3;
/// Effects are counted of so many sagas of a round: those that came again first.
const COUNTED: usize = 20;
/// How long the first reply of a burst is waited for before the worker is killed.
const FIRST_REPLY: Duration = Duration::from_secs(2);

pub(super) async fn crash(tester: &mut Tester) -> Ending {
    let Some(restart) = tester.options.restart.clone() else {
        return Err(Ended::Skipped("it needs --restart".to_owned()));
    };
    let mut burst = FIRST_BURST;
    for _ in 0..ROUNDS {
        let again = round(tester, &restart, burst).await?;
        if again > 0 {
            return Ok(());
        }
        burst *= 4;
    }
    Err(Ended::Skipped("no command was in the worker's hand when it was killed; give --slow too".to_owned()))
}

/// One crash; gives the number of commands that came again after it.
async fn round(tester: &mut Tester, restart: &str, burst: usize) -> Result<usize, Ended> {
    let mut sent: Vec<(Command, u64)> = Vec::new();
    // A slow one is surely in hand.
    if let Some(context) = tester.options.contexts.slow.clone() {
        let command = tester.command_with(tester.saga(), 1, &context);
        sent.push((command.clone(), tester.send(&command).await?));
    }
    let first = tester.command(tester.saga(), 1);
    let id = first.message_id();
    sent.push((first.clone(), tester.send(&first).await?));
    for _ in 1..burst {
        let command = tester.command(tester.saga(), 1);
        sent.push((command.clone(), tester.send(&command).await?));
    }
    tester.traffic.wait(FIRST_REPLY, |seen| (!seen.replies(&id).is_empty()).then_some(())).await;
    if let Err(problem) = shell::restart(restart).await {
        tester.wrong(problem);
        return Err(Ended::Failed);
    }
    for (command, sequence) in &sent {
        tester.acknowledged(command, *sequence).await?;
    }
    // Those that came again first.
    let deliveries: Vec<u64> =
        sent.iter().map(|(_, sequence)| tester.traffic.lock().deliveries(*sequence)).collect();
    let again = deliveries.iter().filter(|count| **count > 1).count();
    tester.did(format!("killed the worker with {} commands sent; {again} of them came again", sent.len()));
    let mut order: Vec<usize> = (0..sent.len()).collect();
    order.sort_by_key(|at| std::cmp::Reverse(deliveries[*at]));
    for (rank, at) in order.into_iter().enumerate() {
        judge(tester, &sent[at].0).await;
        if rank < COUNTED {
            tester.effects(sent[at].0.saga_id, 1, "after a crash").await;
        }
    }
    let command = tester.options.command.clone();
    if setup::workers(&tester.client, &command, tester.options.timeout).await?.is_empty() {
        tester.wrong("after the restart no worker announces the command");
    }
    Ok(again)
}

async fn judge(tester: &mut Tester, command: &Command) {
    let replies = tester.replies(command);
    let Some(done) = replies.iter().find(|reply| matches!(reply, Outcome::Done { .. })).cloned() else {
        let all: Vec<String> = replies.iter().map(shown).collect();
        tester.wrong(format!(
            "after a crash saga {} was acknowledged and never answered `done`; its replies: [{}]",
            command.saga_id,
            all.join(", ")
        ));
        return;
    };
    for reply in &replies {
        tester.compare(
            command,
            reply,
            &done,
            "after a crash it was done again, and not answered from the fence",
        );
    }
}
