//! What is done with a batch of commands: fence, do, advance, commit, publish, acknowledge.
//!
//! A batch is read and decided without locks, and written if nothing of it was changed meanwhile; else it is done again
//! under locks.

use async_nats::jetstream::Message;
use chrono::{DateTime, Utc};
use fail::fail_point;

use super::books::Books;
use super::changed::Changed;
use super::{Job, Limits};
use crate::bus::{deliveries, subjects};
use crate::config::Control;
use crate::orchestrator::{Batch, Consequences, Engine, Halves, Verdict};
use crate::saga::{Command, DEADLINE_PASSED, Direction, Event, Outcome, Poisoned, Reply};
use crate::store;
use crate::store::attempt::{Attempt, decide};
use crate::store::changes::Changes;

/// A command, and the message that brought it.
pub(super) type Delivered = (Message, Command);

/// Handles all of them, in halves where they cannot be done together.
pub(super) async fn handle_all(
    engine: &Engine,
    limits: Limits,
    mut halves: Halves<Delivered>,
) -> store::Result<()> {
    while let Some(items) = halves.next() {
        let result = handle(engine, limits, items).await;
        if let Some(((message, command), error)) = halves.record(result).await? {
            engine.park(subjects::STEPS, message, &error.to_string()).await;
            engine.poisoned(command.saga_id, poison(command, &error)).await;
        }
    }
    Ok(())
}

async fn handle(engine: &Engine, limits: Limits, items: &[Delivered]) -> store::Result<()> {
    let commands: Vec<&Command> = items.iter().map(|(_, command)| command).collect();
    let done = decide(engine.control, |control| attempt(engine, limits, &commands, control)).await?;
    let Done { illegal, changed, consequences } = done;
    fail_point!("worker::committed");
    // Before anybody is answered: who looks at the map then should see it.
    changed.tell(&engine.bus).await;
    for (at, why) in illegal {
        engine.park(subjects::STEPS, &items[at].0, &why).await;
    }
    if let Err(error) = engine.follow(consequences).await {
        tracing::warn!(%error, "what follows from commands is done when they come again");
        return Ok(());
    }
    fail_point!("worker::published");
    for (message, _) in items {
        deliveries::acknowledge(message).await;
    }
    Ok(())
}

/// What became of a batch.
struct Done {
    /// The commands that cannot be, by position.
    illegal: Vec<(usize, String)>,
    changed: Changed,
    consequences: Consequences,
}

/// Does what is still asked for, lets each saga go on, and writes all of it at once.
async fn attempt(
    engine: &Engine,
    limits: Limits,
    commands: &[&Command],
    control: Control,
) -> store::Result<Done> {
    let mut attempt = Attempt::begin(&engine.steps, control).await?;
    let (sagas, read_at) = engine.sagas_of(&mut attempt, commands).await?;
    let mut jobs: Vec<Job<'_>> = commands.iter().map(|command| Job::of(command)).collect();
    let mut books = Books::read(&mut attempt, limits, &jobs, read_at).await?;
    let mut batch = Batch::of(sagas, books.now);
    jobs.retain_mut(|job| is_asked_for(engine, &mut batch, job));
    jobs.iter_mut().for_each(|job| books.handle(job));
    let mut changes = Changes::default();
    books.write(&mut changes, control);
    let (mut illegal, mut changed) = (Vec::new(), Changed::default());
    for job in jobs {
        let outcome = job.outcome.unwrap_or(Outcome::Failed { code: "unanswered".to_owned() });
        changed.note(job.command, &outcome);
        let event = Event::Reply(answer(job.command, outcome, &engine.instance));
        if let Verdict::Illegal(why) = batch.apply(&engine.catalogue, job.command.saga_id, &event) {
            let at = commands.iter().position(|command| std::ptr::eq(*command, job.command));
            illegal.extend(at.map(|at| (at, why)));
        }
    }
    let consequences = batch.decided(&mut changes, &engine.catalogue);
    attempt.write(changes).await?;
    Ok(Done { illegal, changed, consequences })
}

/// Whether a job's saga still asks for it. If it is refused without any work it is answered by that.
fn is_asked_for(engine: &Engine, batch: &mut Batch, job: &mut Job<'_>) -> bool {
    let command = job.command;
    let Some(saga) = batch.saga(command.saga_id).filter(|saga| command.is_asked_by(saga)) else {
        metrics::counter!("boxoffice_stale_messages_total", "stream" => subjects::STEPS).increment(1);
        batch.note_stale(command.saga_id);
        return false;
    };
    let is_defined = engine.catalogue.get(&saga.workflow, saga.version).is_some();
    if let Some(refusal) = refusal(command, is_defined, batch.now) {
        job.outcome = Some(refusal);
    }
    true
}

/// What is to be said of a command whose handling fails even alone.
fn poison(command: &Command, error: &sqlx::Error) -> Poisoned {
    let Command { step, direction, visit, .. } = command.clone();
    Poisoned { step, direction, visit, error: error.to_string() }
}

/// What is answered without any work. A `do` that comes after its deadline is refused by the database's clock; an undo
/// has none. Nothing is done for a saga whose definition is not here: it gets stuck, and would ask for it again.
fn refusal(command: &Command, is_defined: bool, now: DateTime<Utc>) -> Option<Outcome> {
    if !is_defined {
        return Some(Outcome::Failed { code: "no_definition".to_owned() });
    }
    let late = command.direction == Direction::Do && command.deadline.is_some_and(|deadline| now >= deadline);
    late.then(|| Outcome::rejected(DEADLINE_PASSED))
}

fn answer(command: &Command, outcome: Outcome, worker: &str) -> Reply {
    Reply {
        step: command.step.clone(),
        direction: command.direction,
        visit: command.visit,
        send: command.send,
        outcome,
        worker: Some(worker.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn nothing_is_done_late_or_without_the_definition() {
        let now = DateTime::from_timestamp(1_800_000_000, 0).unwrap();
        let command = |direction, deadline| Command {
            saga_id: Uuid::from_u128(1),
            workflow: "booking".to_owned(),
            subject: "points.deduct".to_owned(),
            step: "pay".to_owned(),
            direction,
            visit: 1,
            send: 0,
            deadline,
            reason: None,
            context: std::sync::Arc::default(),
            trace: Uuid::from_u128(1),
        };
        let (late, undo) = (command(Direction::Do, Some(now)), command(Direction::Undo, None));
        assert_eq!(refusal(&late, true, now), Some(Outcome::rejected(DEADLINE_PASSED)));
        assert_eq!(refusal(&command(Direction::Do, None), true, now), None);
        assert_eq!(refusal(&undo, true, now), None);
        for asked in [late, undo] {
            assert!(matches!(refusal(&asked, false, now), Some(Outcome::Failed { .. })));
        }
    }
}
