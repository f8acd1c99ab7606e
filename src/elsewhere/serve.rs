//! The loop of a service elsewhere: fence, function, outcome in one transaction; then the reply, then the
//! acknowledgement.

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use anyhow::anyhow;
use async_nats::jetstream::Message;
use chrono::{DateTime, Utc};
use futures::{FutureExt, StreamExt};
use sqlx::{Acquire, PgConnection};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::judge::{self, Judgement};
use super::{Asked, Handler, Service};
use crate::background::Tasks;
use crate::bus::deliveries::InHand;
use crate::bus::publish::publish;
use crate::bus::retry::retry;
use crate::bus::{Bus, Deliveries, deliveries, messages, subjects, topology};
use crate::clock::Clock;
use crate::saga::{Command, DEADLINE_PASSED, Direction, Outcome, too_large};
use crate::store::outcomes::{self, Remembered};

/// Most commands of one kind under way at once, each on a connection of its own.
const AT_ONCE: usize = 8;
/// How often outcomes that nobody can ask about are forgotten, and how many in one statement.
const FORGET_EVERY: Duration = Duration::from_secs(600);
const FORGET_AT_ONCE: i64 = 5_000;
/// How long ending the session of a function that was cut off may take.
const END_TIMEOUT: Duration = Duration::from_secs(2);
/// The code of the answer to a command whose function ended with an error.
pub const HANDLER_FAILED: &str = "handler_failed";
/// The code of the answer to a command whose output would fit no message. Its effect was not kept.
pub const OUTPUT_TOO_LARGE: &str = "output_too_large";

/// Starts a loop for each command, and the one that forgets.
pub(super) fn run(service: &Service, bus: &Bus, tasks: &Tasks, stop: &CancellationToken) {
    for (command, handler) in &service.handlers {
        let (command, handler) = (command.clone(), handler.clone());
        let serving = serve(service.clone(), bus.clone(), command, handler, stop.clone());
        tasks.supervise("commands", serving);
    }
    tasks.supervise("old outcomes", forget(service.clone(), stop.clone()));
}

async fn serve(service: Service, bus: Bus, command: String, handler: Handler, stop: CancellationToken) {
    let mut incoming = Deliveries::of_existing(&bus, subjects::STEPS, topology::command_consumer(&command));
    while !stop.is_cancelled() {
        let batch = futures::stream::iter(incoming.next(&stop).await);
        let handled = batch.map(|message| take(&service, &bus, &handler, message)).buffer_unordered(AT_ONCE);
        let handled: Vec<Handled> = handled.collect().await;
        if handled.contains(&Handled::DatabaseAway) {
            // Each delivery counts, and after the last one a message is given up: ask for none meanwhile.
            incoming.rest();
            let answers = retry("reaching the service's database", None, || service.pool.acquire());
            let _answered = stop.run_until_cancelled(answers).await;
        }
    }
}

/// What became of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Handled {
    Done,
    /// It comes again.
    NotYet,
    /// It comes again, once the database answers.
    DatabaseAway,
}

/// Handles one message; whatever goes wrong, it comes again, and in the end the orchestrator parks it.
async fn take(service: &Service, bus: &Bus, handler: &Handler, message: Message) -> Handled {
    // A function that panics must not end the loop, and one that takes long must not have its command delivered again.
    let handling = AssertUnwindSafe(try_take(service, bus, handler, &message)).catch_unwind();
    let handled = InHand::of(bus, std::iter::once(&message)).during(handling).await;
    let handled = handled.unwrap_or_else(|_panic| Err(anyhow!("the function panicked")));
    match handled {
        Ok(()) => {
            deliveries::acknowledge(&message).await;
            Handled::Done
        }
        Err(error) => {
            let delivered = deliveries::count(&message);
            tracing::warn!(subject = %message.subject, %error, delivered, "a command was not handled");
            if is_away(&error) {
                deliveries::put_off(&message).await;
                return Handled::DatabaseAway;
            }
            deliveries::again_after(&message, deliveries::pause_after(delivered)).await;
            Handled::NotYet
        }
    }
}

async fn try_take(service: &Service, bus: &Bus, handler: &Handler, message: &Message) -> anyhow::Result<()> {
    let command = messages::read_command(message)?;
    let Some(outcome) = answer(service, handler, &command).await? else {
        metrics::counter!("boxoffice_stale_messages_total", "stream" => subjects::STEPS).increment(1);
        return Ok(());
    };
    publish(bus, &[outcome], |outcome| messages::reply(&command, outcome)).await?;
    Ok(())
}

/// What is said to a command, committed with its effect; nothing if it belongs to the past.
async fn answer(service: &Service, handler: &Handler, command: &Command) -> anyhow::Result<Option<Outcome>> {
    let mut conn = service.pool.acquire().await?;
    let session = outcomes::session(&mut conn).await?;
    let limit = limit(service.limit, command.direction, command.deadline, Clock::default().now());
    if let Ok(answered) = timeout(limit, decide(service, handler, command, &mut conn)).await {
        return answered;
    }
    let Command { saga_id, step, .. } = command;
    tracing::error!(saga = %saga_id, step, ?limit, "a step's function took too long and was cut off");
    // A statement of it may still run. Its session ends, so that nothing of it is committed later and no lock stays.
    conn.close_on_drop();
    if let Ok(Err(error)) = timeout(END_TIMEOUT, outcomes::end_session(&service.pool, session)).await {
        tracing::warn!(%error, "the session of a function that was cut off was not ended; it ends with its statement");
    }
    Ok(Some(Outcome::Unknown { reason: format!("the function did not end within {} ms", limit.as_millis()) }))
}

/// How long a command may take: a `do` at most until its deadline. A `do` that came after its deadline is answered from memory
/// or refused.
fn limit(
    limit: Duration,
    direction: Direction,
    deadline: Option<DateTime<Utc>>,
    now: DateTime<Utc>,
) -> Duration {
    let left =
        deadline.filter(|_| direction == Direction::Do).and_then(|deadline| (deadline - now).to_std().ok());
    left.filter(|left| !left.is_zero()).map_or(limit, |left| limit.min(left))
}

async fn decide(
    service: &Service,
    handler: &Handler,
    command: &Command,
    conn: &mut PgConnection,
) -> anyhow::Result<Option<Outcome>> {
    let mut tx = conn.begin().await?;
    let Command { saga_id, step, deadline, .. } = command;
    let (known, now) = outcomes::lock(&mut tx, *saga_id, step, *deadline, service.keep).await?;
    let outcome = match judge::judge(&known, command, now) {
        Judgement::Past => None,
        Judgement::Replay(outcome) => Some(outcome),
        Judgement::Late => Some(Outcome::rejected(DEADLINE_PASSED)),
        Judgement::Act { done } => {
            let asked = Asked { command, done: done.as_ref() };
            Some(act(&mut tx, handler, asked, &known).await?)
        }
    };
    tx.commit().await?;
    Ok(outcome)
}

/// Runs the function; its writes stay only if it says `done`. Then the outcome is remembered.
async fn act(
    conn: &mut PgConnection,
    handler: &Handler,
    asked: Asked<'_>,
    known: &Remembered,
) -> anyhow::Result<Outcome> {
    let command = asked.command;
    let mut effect = conn.begin().await?;
    let handled = handler(&mut effect, asked).await;
    // What the database refuses is found before it is saved, where it would fail the transaction at every try.
    let handled = handled.and_then(|outcome| outcome.check().map(|()| outcome).map_err(anyhow::Error::from));
    let outcome = match handled {
        Ok(outcome) => outcome,
        Err(error) if is_away(&error) => return Err(error),
        Err(error) => {
            tracing::error!(saga = %command.saga_id, step = command.step, %error, "a step's function failed");
            Outcome::Failed { code: HANDLER_FAILED.to_owned() }
        }
    };
    let outcome = match outcome {
        Outcome::Done { output } if too_large(&command.context, &output).is_some() => {
            tracing::error!(saga = %command.saga_id, step = command.step, "the output of a step's function is too large");
            Outcome::Failed { code: OUTPUT_TOO_LARGE.to_owned() }
        }
        outcome => outcome,
    };
    match outcome {
        Outcome::Done { .. } => effect.commit().await?,
        _ => effect.rollback().await?,
    }
    let remembered = judge::after(known, command, &outcome);
    outcomes::save(conn, command.saga_id, &command.step, &remembered).await?;
    Ok(outcome)
}

/// Whether the database was away, so that nothing is known of the step.
fn is_away(error: &anyhow::Error) -> bool {
    error.downcast_ref::<sqlx::Error>().is_some_and(crate::store::is_unavailable)
}

/// Forgets what nobody can ask about any more, now and then.
async fn forget(service: Service, stop: CancellationToken) {
    loop {
        match outcomes::purge(&service.pool, FORGET_AT_ONCE).await {
            Ok(forgotten) if forgotten == FORGET_AT_ONCE as u64 => continue,
            Ok(_) => {}
            Err(error) => tracing::warn!(service = service.name, %error, "old outcomes were not forgotten"),
        }
        if stop.run_until_cancelled(tokio::time::sleep(FORGET_EVERY)).await.is_none() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;

    use super::*;

    #[test]
    fn a_do_may_take_until_its_deadline() {
        let now = DateTime::from_timestamp(1_800_000_000, 0).unwrap();
        let most = Duration::from_secs(30);
        let at = |direction, seconds| limit(most, direction, Some(now + TimeDelta::seconds(seconds)), now);
        assert_eq!(at(Direction::Do, 5), Duration::from_secs(5));
        assert_eq!(at(Direction::Do, 60), most);
        assert_eq!(at(Direction::Do, -1), most, "it is refused or answered from memory");
        assert_eq!(at(Direction::Undo, 5), most, "an undo has no deadline");
        assert_eq!(limit(most, Direction::Do, None, now), most);
    }
}
