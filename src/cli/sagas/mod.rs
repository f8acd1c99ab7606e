//! `saga`: what operators look at first when something is late, and what they may do about it.

mod pauses;
mod act;
mod batch;
mod acts;
mod list;
mod parked;
mod replay;
mod show;
mod start;
mod tail;
mod why;
mod acting;

use uuid::Uuid;

use super::{Context, Ending, Misuse};
use crate::operations::{AskError, SagaFilter};
use crate::saga::OperatorAction;

#[derive(clap::Subcommand, Debug)]
pub(super) enum Command {
    /// List sagas, newest first
    List(list::Wanted),
    /// Count sagas by workflow, status and step
    Counts(SagaFilter),
    /// Show one saga: its steps as they stand, what happened, and the way back
    Show {
        /// The saga; for a booking the reservation's id
        id: Uuid,
    },
    /// Say in one line what a saga waits for, since when, until when, and who could move it
    Why {
        /// The saga
        id: Uuid,
    },
    /// Start a saga of a deployed workflow
    Start(start::Wanted),
    /// Give a waiting saga a signal
    Signal(start::Signalled),
    /// Wait until a saga has ended: the exit code is 0 if it is completed, else 1
    Wait(start::Awaited),
    /// Watch sagas move, live, until Ctrl-C
    Tail(tail::Wanted),
    /// Try the current step again now; a stuck saga's with a new visit
    Retry(act::What),
    /// Take the current step as done, with an output made by hand
    Complete(act::ByHand),
    /// Leave out the undo that a saga is at
    SkipUndo(act::What),
    /// Cancel a saga: undo what it has done so far
    Cancel(act::What),
    /// Give a saga up as it is, and say what is left behind
    Abandon(act::What),
    /// Give back the points of an ended saga whose reservation has no ticket for them
    Refund(act::What),
    /// Hold back one saga, a workflow, or a step type everywhere; no clock stops
    Pause(pauses::Hold),
    /// Let it go on
    Resume(pauses::Target),
    /// List what is paused, by whom, since when and why
    Pauses,
    /// Do one act to every saga that a filter finds
    Batch(batch::Order),
    /// List what operators did, newest first
    Acts(acts::Wanted),
    /// Look at messages that the service could not handle, and release or drop them
    #[command(subcommand)]
    Parked(parked::Command),
    /// Publish events again, from history
    ReplayEvents(replay::Arguments),
}

pub(super) async fn run(context: &Context, command: Command) -> anyhow::Result<Ending> {
    match command {
        Command::List(wanted) => list::run(context, &wanted).await,
        Command::Counts(filter) => list::counts(context, &filter).await,
        Command::Show { id } => show::run(context, id).await,
        Command::Why { id } => why::run(context, id).await,
        Command::Start(wanted) => start::run(context, wanted).await,
        Command::Signal(signalled) => start::signal(context, signalled).await,
        Command::Wait(awaited) => start::wait(context, &awaited).await,
        Command::Tail(wanted) => tail::run(context, &wanted).await,
        Command::Retry(what) => act::run(context, OperatorAction::Retry, &what).await,
        Command::Complete(by_hand) => {
            let (act, what) = by_hand.read()?;
            act::run(context, act, what).await
        }
        Command::SkipUndo(what) => act::run(context, OperatorAction::SkipUndo, &what).await,
        Command::Cancel(what) => act::run(context, OperatorAction::Cancel, &what).await,
        Command::Abandon(what) => act::run(context, OperatorAction::Abandon, &what).await,
        Command::Refund(what) => act::refund(context, &what).await,
        Command::Pause(hold) => pauses::pause(context, &hold).await,
        Command::Resume(target) => pauses::resume(context, &target).await,
        Command::Pauses => pauses::list(context).await,
        Command::Batch(order) => batch::run(context, order).await,
        Command::Acts(wanted) => acts::run(context, &wanted).await,
        Command::Parked(command) => parked::run(context, command).await,
        Command::ReplayEvents(arguments) => replay::run(context, arguments).await,
    }
}

/// A filter whose parts contradict each other is a misuse.
fn check(filter: &SagaFilter) -> Result<(), Misuse> {
    match filter.problems().first() {
        Some((field, problem)) => Err(Misuse(format!("{field} {problem}"))),
        None => Ok(()),
    }
}

/// Names the saga that is not there.
fn about(id: Uuid) -> impl FnOnce(AskError) -> anyhow::Error {
    move |error| match error {
        AskError::Unknown => anyhow::anyhow!("there is no saga {id}"),
        error => error.into(),
    }
}
