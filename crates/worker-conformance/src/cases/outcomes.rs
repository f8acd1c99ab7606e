//! The outcomes that a worker gives only to contexts that the user names.

use saga_core::{Command, Outcome};
use serde_json::{Map, Value};

use crate::tester::{Ended, Ending, Tester, named, shown};

/// How often a command is asked that was answered `failed` or `unknown`.
const TRIES: i32 = 5;

pub(super) async fn rejection(tester: &mut Tester) -> Ending {
    let context = needed(tester.options.contexts.rejected.as_ref(), "--rejected")?;
    let saga = tester.saga();
    let command = tester.command_with(saga, 1, &context);
    let first = tester.answer(&command).await?;
    if !matches!(first, Outcome::Rejected { .. }) {
        tester.wrong(format!("the context of --rejected was answered {}", shown(&first)));
        return Err(Ended::Failed);
    }
    tester.same(&Command { send: 1, ..command.clone() }, &first, "a rejection is repeated").await?;
    tester.did(format!("a rejection was repeated: {}", shown(&first)));
    tester.effects(saga, 0, "after a rejection").await;
    let anew = tester.command(saga, 2);
    tester.done(&anew, "a rejected step is asked anew at a later visit").await?;
    let late = Command { send: 2, ..command };
    tester.nothing(&late, "a `do` of an earlier visit must be acknowledged without a reply").await?;
    tester.effects(saga, 1, "after a `do` at the visit after a rejection").await;
    Ok(())
}

pub(super) async fn failure(tester: &mut Tester) -> Ending {
    let context = needed(tester.options.contexts.failed.as_ref(), "--failed")?;
    again(tester, &context, "--failed", |outcome| matches!(outcome, Outcome::Failed { .. })).await
}

pub(super) async fn unknown(tester: &mut Tester) -> Ending {
    let context = needed(tester.options.contexts.unknown.as_ref(), "--unknown")?;
    let is_unknown = |outcome: &Outcome| matches!(outcome, Outcome::Unknown { .. });
    again(tester, &context, "--unknown", is_unknown).await?;
    if tester.undo.is_none() {
        return Ok(());
    }
    let saga = tester.saga();
    let command = tester.command_with(saga, 1, &context);
    let first = tester.answer(&command).await?;
    let undo = tester.undo_of(&command)?;
    tester.done(&undo, "what may have happened is undone").await?;
    let late = "a late `do` after its undo must be acknowledged without a reply";
    tester.nothing(&Command { send: 1, ..command }, late).await?;
    tester.did(format!("undid what was answered {}", shown(&first)));
    tester.effects(saga, 0, "after the undo of an unknown outcome").await;
    Ok(())
}

/// Asks until it is done, in the same visit; then the answer must stay.
async fn again(
    tester: &mut Tester,
    context: &Map<String, Value>,
    option: &str,
    is_wanted: impl Fn(&Outcome) -> bool,
) -> Ending {
    let saga = tester.saga();
    let mut command = tester.command_with(saga, 1, context);
    let first = tester.answer(&command).await?;
    if !is_wanted(&first) {
        tester.wrong(format!("the context of {option} was answered {} the first time", shown(&first)));
        return Err(Ended::Failed);
    }
    let mut outcome = first.clone();
    while is_wanted(&outcome) && command.send < TRIES {
        command.send += 1;
        outcome = tester.answer(&command).await?;
    }
    if !matches!(outcome, Outcome::Done { .. }) {
        tester.wrong(format!(
            "asked {} times in the same visit, the {} was answered {} at last: {} is no outcome to keep, the step must be tried \
             again",
            command.send + 1,
            named(&command),
            shown(&outcome),
            shown(&first)
        ));
        return Err(Ended::Failed);
    }
    tester.did(format!("{} the first time, then {}", shown(&first), shown(&outcome)));
    command.send += 1;
    tester.same(&command, &outcome, "a duplicate was done again, and not answered from the fence").await?;
    tester.effects(saga, 1, "after it was done in the end").await;
    Ok(())
}

/// A context that the user has given.
pub(super) fn needed(
    context: Option<&Map<String, Value>>,
    option: &str,
) -> Result<Map<String, Value>, Ended> {
    context.cloned().ok_or_else(|| Ended::Skipped(format!("it needs {option}")))
}
