//! Do and undo in every order.

use saga_core::{Command, Outcome};
use uuid::Uuid;

use crate::tester::{Ending, Tester, named, shown};

/// Sagas whose `do` and undo are sent at the same time.
const PAIRS: usize = 10;

const LATE_DO: &str =
    "a late `do` after its undo must be acknowledged without a reply, and nothing may be done";

pub(super) async fn late_do(tester: &mut Tester) -> Ending {
    let saga = tester.saga();
    let command = tester.command(saga, 1);
    let undo = tester.undo_of(&command)?;
    tester.done(&command, "it was not done before").await?;
    undone(tester, &undo).await?;
    tester.effects(saga, 0, "after the undo").await;
    // By a higher Send its replies differ from those to the first.
    undone(tester, &Command { send: 1, ..undo }).await?;
    tester.did("sent do, undo, and the undo again");
    tester.nothing(&Command { send: 1, ..command.clone() }, LATE_DO).await?;
    tester.did("sent the `do` again, as if it had been delayed");
    tester.effects(saga, 0, "after a late `do`").await;
    let anew = Command { visit: 2, ..command };
    tester.done(&anew, "a later visit than that of the undo is done").await?;
    tester.effects(saga, 1, "after a `do` at a later visit").await;
    tester.did("sent a `do` at the next visit");
    Ok(())
}

pub(super) async fn undo_first(tester: &mut Tester) -> Ending {
    let saga = tester.saga();
    let command = tester.command(saga, 2);
    let undo = tester.undo_of(&command)?;
    undone(tester, &undo).await?;
    tester.did("sent an undo without a `do`");
    let earlier = "an undo of a visit before one that was undone must be acknowledged without a reply";
    tester.nothing(&Command { visit: 1, ..undo }, earlier).await?;
    for visit in [1, 2] {
        tester.nothing(&Command { visit, ..command.clone() }, LATE_DO).await?;
    }
    tester.did("sent its `do` after it, and those of the visit before");
    tester.effects(saga, 0, "after an undo that came before its `do`").await;
    Ok(())
}

pub(super) async fn at_once(tester: &mut Tester) -> Ending {
    let mut pairs: Vec<(Uuid, Command, Command, u64, u64)> = Vec::new();
    for _ in 0..PAIRS {
        let saga = tester.saga();
        let command = tester.command(saga, 1);
        let undo = tester.undo_of(&command)?;
        let (one, other) = (tester.send(&command).await?, tester.send(&undo).await?);
        pairs.push((saga, command, undo, one, other));
    }
    for (saga, command, undo, one, other) in pairs {
        tester.acknowledged(&command, one).await?;
        tester.acknowledged(&undo, other).await?;
        let replies = tester.replies(&undo);
        if !matches!(&replies[..], [Outcome::Done { .. }]) {
            let all: Vec<String> = replies.iter().map(shown).collect();
            tester.wrong(format!(
                "the {} was answered [{}], expected one `done`",
                named(&undo),
                all.join(", ")
            ));
        }
        tester.nothing(&Command { send: 1, ..command }, LATE_DO).await?;
        tester.effects(saga, 0, "after `do` and undo at the same time").await;
    }
    tester.did(format!("sent `do` and undo of {PAIRS} sagas at the same time"));
    Ok(())
}

/// Sends an undo that must be done.
async fn undone(tester: &mut Tester, undo: &Command) -> Ending {
    tester.done(undo, "an undo is never refused, also if there is nothing to undo").await.map(drop)
}
