//! What is done with a batch of commands: fence, do, advance, commit, publish, acknowledge.
//!
//! A batch is read and decided without locks, and written if nothing of it was changed meanwhile; else it is done again
//! under locks.

use std::collections::BTreeSet;
use std::sync::Arc;

use async_nats::jetstream::Message;
use chrono::{DateTime, Utc};
use fail::fail_point;

use super::books::Books;
use super::changed::Changed;
use super::written::Notes;
use super::{Job, Limits, Written};
use crate::bus::command_batch;
use crate::bus::deliveries::{self, Carrier};
use crate::bus::messages;
use crate::bus::publish::publish;
use crate::bus::subjects;
use crate::config::Control;
use crate::orchestrator::{Batch, Consequences, Engine, Verdict, Work};
use crate::saga::{self, Command, DEADLINE_PASSED, Direction, Event, Outcome, Poisoned, Reply, Saga};
use crate::store;
use crate::store::attempt::{Attempt, decide};
use crate::store::changes::Changes;
use crate::store::seats::Seat;

/// A command, and the message that brought it, alone or with others.
pub(super) type Delivered = (Arc<Carrier>, Command);

/// Handles commands.
pub(super) struct Handling<'a> {
    pub engine: &'a Engine,
    pub limits: Limits,
    pub written: &'a Written,
}

impl Work<Delivered> for Handling<'_> {
    fn message<'a>(&self, (carrier, _): &'a Delivered) -> &'a Message {
        carrier.message()
    }

    async fn attempt(&self, items: &[Delivered]) -> store::Result<()> {
        handle(self.engine, self.limits, self.written, items).await
    }

    async fn give_up(&self, item: &Delivered, error: sqlx::Error) {
        if park(self.engine, item, &error.to_string()).await {
            item.0.settle().await;
        }
        let command = &item.1;
        self.engine.poisoned(command.saga_id, poison(command, &error)).await;
    }

    /// One that came with others is sent on alone, and put off when it fails again.
    async fn put_off(&self, item: &Delivered) {
        let (carrier, command) = item;
        if !command_batch::is_batch(carrier.message()) {
            return deliveries::put_off(carrier.message()).await;
        }
        match publish(&self.engine.bus, std::slice::from_ref(command), messages::command).await {
            Ok(()) => carrier.settle().await,
            Err(error) => tracing::warn!(%error, "a command was not sent on; it comes again with others"),
        }
    }
}

async fn handle(
    engine: &Engine,
    limits: Limits,
    written: &Written,
    items: &[Delivered],
) -> store::Result<()> {
    let commands: Vec<&Command> = items.iter().map(|(_, command)| command).collect();
    let done = decide(engine.control, |control| attempt(engine, limits, written, &commands, control));
    let done = store::bounded(done).await?;
    let Done { illegal, changed, consequences, notes } = done;
    fail_point!("worker::committed");
    written.note(notes);
    // Before anybody is answered: who looks at the map then should see it.
    changed.tell(&engine.bus).await;
    let mut unsettled = BTreeSet::new();
    for (at, why) in illegal {
        if !park(engine, &items[at], &why).await {
            unsettled.insert(at);
        }
    }
    if let Err(error) = engine.follow(consequences).await {
        tracing::warn!(%error, "what follows from commands is done when they come again");
        return Ok(());
    }
    fail_point!("worker::published");
    for (at, (carrier, _)) in items.iter().enumerate() {
        if !unsettled.contains(&at) {
            carrier.settle().await;
        }
    }
    Ok(())
}

/// Keeps the message of a command for an operator; one that came with others as if it had come alone.
async fn park(engine: &Engine, (carrier, command): &Delivered, error: &str) -> bool {
    let message = carrier.message();
    let kept = match command_batch::is_batch(message) {
        true => engine.keep(subjects::STEPS, &messages::command(command).into_message(), error).await,
        false => engine.keep(subjects::STEPS, message, error).await,
    };
    if let Err(error) = &kept {
        tracing::warn!(%error, "a message could not be parked; it comes again");
    }
    kept.is_ok()
}

/// What became of a batch.
pub(super) struct Done {
    /// The commands that cannot be, by position.
    pub illegal: Vec<(usize, String)>,
    pub changed: Changed,
    pub consequences: Consequences,
    pub notes: Notes,
}

/// Does what is still asked for, lets each saga go on, and writes all of it at once.
pub(super) async fn attempt(
    engine: &Engine,
    limits: Limits,
    written: &Written,
    commands: &[&Command],
    control: Control,
) -> store::Result<Done> {
    let mut attempt = Attempt::begin(&engine.steps, control).await?;
    let (sagas, read_at) = engine.sagas_of(&mut attempt, commands).await?;
    let (mut jobs, mut stale, mut illegal) = (Vec::with_capacity(commands.len()), Vec::new(), Vec::new());
    for (at, command) in commands.iter().enumerate() {
        let saga = sagas.iter().find(|saga| saga.id == command.saga_id);
        match asked_for(engine, command, saga) {
            Asked::Now(saga, asked) => jobs.push(Job::of(at, asked, saga)),
            Asked::NotNow => stale.push(command.saga_id),
            Asked::Never(why) => illegal.push((at, why)),
        }
    }
    let known = seats_written(written, &jobs, &sagas, control);
    let mut books = Books::read(&mut attempt, limits, &jobs, known, read_at, &engine.clock).await?;
    let mut batch = Batch::of(sagas, books.now);
    for saga in stale {
        metrics::counter!("boxoffice_stale_messages_total", "stream" => subjects::STEPS).increment(1);
        batch.note_stale(saga);
    }
    for job in &mut jobs {
        let is_defined = is_defined(engine, batch.saga(job.command.saga_id));
        if let Some(refusal) = refusal(&job.command, is_defined, batch.now) {
            job.outcome = Some(refusal);
        }
        books.handle(job);
    }
    let mut notes = written.notes(&jobs, &books, &batch);
    let mut changes = Changes::default();
    books.write(&mut changes, control);
    let mut changed = Changed::default();
    for Job { at, command, outcome, .. } in jobs {
        let outcome = outcome.unwrap_or(Outcome::Failed { code: "unanswered".to_owned() });
        changed.note(&command, &outcome);
        let event = Event::Reply(answer(&command, outcome, &engine.instance));
        if let Verdict::Illegal(why) = batch.apply(&engine.registry, command.saga_id, &event) {
            illegal.push((at, why));
        }
    }
    notes.settle(&batch);
    let consequences = batch.decided(&mut changes, engine);
    attempt.write(changes).await?;
    Ok(Done { illegal, changed, consequences, notes })
}

/// Seats that tickets are to be issued for, as they were written when they were held.
fn seats_written(written: &Written, jobs: &[Job], sagas: &[Saga], control: Control) -> Vec<Seat> {
    let issues =
        jobs.iter().filter(|job| control == Control::Optimistic && job.command.subject == "tickets.issue");
    let seats =
        issues.filter_map(|job| written.seats_of(sagas.iter().find(|saga| saga.id == job.command.saga_id)?));
    seats.flatten().collect()
}

/// What a command that came is to its saga.
enum Asked<'a> {
    /// The saga asks for it: this is what its row says it is.
    Now(&'a Saga, Command),
    /// It came twice or late, or there is no such saga.
    NotNow,
    /// Its fence is right, but the saga asks for something else.
    Never(String),
}

/// Compares a command with what its saga's row asks for. Only its fence and its number count from here on.
fn asked_for<'a>(engine: &Engine, command: &Command, saga: Option<&'a Saga>) -> Asked<'a> {
    let Some(saga) = saga.filter(|saga| command.is_asked_by(saga)) else {
        return Asked::NotNow;
    };
    let Some(definition) = engine.registry.get(&saga.workflow, saga.version) else {
        return Asked::Now(saga, command.clone());
    };
    let Some(asked) = saga::command(definition, saga) else {
        return Asked::NotNow;
    };
    if !subjects::fits(&asked.subject, &command.subject) {
        return Asked::Never(format!("the saga asks for {}, not {}", asked.subject, command.subject));
    }
    Asked::Now(saga, Command { subject: command.subject.clone(), send: command.send, ..asked })
}

fn is_defined(engine: &Engine, saga: Option<&Saga>) -> bool {
    saga.is_some_and(|saga| engine.registry.get(&saga.workflow, saga.version).is_some())
}

/// What is to be said of a command whose handling fails even alone.
pub(super) fn poison(command: &Command, error: &sqlx::Error) -> Poisoned {
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
        service: None,
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
            context: Arc::default(),
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
