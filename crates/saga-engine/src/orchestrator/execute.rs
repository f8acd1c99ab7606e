//! What is done with a batch of commands for a service in this database: fence, execute, apply, write, publish, acknowledge.
//!
//! A batch is read and decided without locks, and written if nothing of it was changed meanwhile; else it is done again
//! under locks.

use std::collections::BTreeSet;
use std::sync::Arc;

use async_nats::jetstream::Message;
use chrono::{DateTime, Utc};
use fail::fail_point;
use futures::future::BoxFuture;
use saga_protocol::spans;
use uuid::Uuid;

use super::participant::{Participant, Task};
use super::{Batch, Effects, Engine, Verdict, Work};
use crate::bus::command_batch;
use crate::bus::deliveries::{self, Carrier};
use crate::bus::messages;
use crate::bus::publish::publish;
use crate::bus::subjects;
use crate::saga::{self, Command, DEADLINE_PASSED, Direction, Event, Outcome, Poisoned, Reply, Saga};
use crate::store;
use crate::store::Control;
use crate::store::batch_tx::{BatchTx, with_lock_fallback};
use crate::store::write_batch::WriteBatch;

/// A command, and the message that brought it, alone or with others.
pub(super) type Delivered = (Arc<Carrier>, Command);

/// Executes commands of one service.
pub(super) struct Execution<'a> {
    pub engine: &'a Engine,
    pub participant: &'a dyn Participant,
}

impl Work<Delivered> for Execution<'_> {
    fn message<'a>(&self, (carrier, _): &'a Delivered) -> &'a Message {
        carrier.message()
    }

    async fn attempt(&self, items: &[Delivered]) -> store::Result<()> {
        self.execute(items).await
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

impl Execution<'_> {
    /// The messages are acknowledged after everything that follows from the commit was published.
    async fn execute(&self, items: &[Delivered]) -> store::Result<()> {
        let engine = self.engine;
        let commands: Vec<&Command> = items.iter().map(|(_, command)| command).collect();
        let Executed { illegal, effects } = execute(engine, self.participant, &commands).await?;
        let mut unsettled = BTreeSet::new();
        for (at, why) in illegal {
            if !park(engine, &items[at], &why).await {
                unsettled.insert(at);
            }
        }
        if let Err(error) = engine.dispatch(effects).await {
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

/// What became of a committed batch.
pub(super) struct Executed {
    /// The commands that cannot be, by position.
    pub illegal: Vec<(usize, String)>,
    pub effects: Effects,
}

/// Executes commands of different sagas for which the sagas still ask, moves the sagas on, and commits all of it.
pub(super) async fn execute(
    engine: &Engine,
    participant: &dyn Participant,
    commands: &[&Command],
) -> store::Result<Executed> {
    let done = with_lock_fallback(engine.control, |control| attempt(engine, participant, commands, control));
    let (executed, after_commit) = store::bounded(done).await?;
    fail_point!("worker::committed");
    after_commit.await;
    Ok(executed)
}

async fn attempt(
    engine: &Engine,
    participant: &dyn Participant,
    commands: &[&Command],
    control: Control,
) -> store::Result<(Executed, BoxFuture<'static, ()>)> {
    let begun = spans::begin();
    let mut attempt = BatchTx::begin(&engine.steps, control).await?;
    let sagas = engine.sagas_of(&mut attempt, commands).await?;
    let Sorted { places, tasks, stale, mut illegal } = sort(engine, commands, &sagas);
    let mut unit = participant.load(&mut attempt, &tasks).await?;
    let mut changes = WriteBatch::default();
    let now = attempt.time_to_decide(&engine.clock, &mut changes).await?;
    let replies: Vec<(Uuid, Event)> = tasks
        .iter()
        .enumerate()
        .map(|(index, Task { command, saga })| {
            let refused = refusal(command, engine.knows(saga), now);
            let outcome = refused.unwrap_or_else(|| unit.execute(index, now));
            (saga.id, Event::Reply(answer(command, outcome, &engine.instance)))
        })
        .collect();
    let mut batch = Batch::of(sagas, now);
    batch.begun_at(begun);
    for place in stale {
        let Command { saga_id, step, .. } = commands[place];
        metrics::counter!("boxoffice_stale_messages_total", "stream" => subjects::STEPS).increment(1);
        batch.note_stale(*saga_id, Some(step));
    }
    for (place, (saga, reply)) in places.into_iter().zip(replies) {
        if let Verdict::Illegal(why) = batch.apply(&engine.registry, saga, &reply) {
            illegal.push((place, why));
        }
    }
    let after_commit = unit.write(&mut changes, &batch);
    let effects = batch.decided(&mut changes, engine);
    attempt.write(changes).await?;
    Ok((Executed { illegal, effects }, after_commit))
}

/// Commands by what they are to their sagas.
struct Sorted<'a> {
    /// The positions of the tasks among the commands.
    places: Vec<usize>,
    tasks: Vec<Task<'a>>,
    /// The positions of the commands that their sagas do not ask for.
    stale: Vec<usize>,
    illegal: Vec<(usize, String)>,
}

fn sort<'a>(engine: &Engine, commands: &[&Command], sagas: &'a [Saga]) -> Sorted<'a> {
    let (places, tasks, stale, illegal) = Default::default();
    let mut sorted = Sorted { places, tasks, stale, illegal };
    for (place, command) in commands.iter().enumerate() {
        let saga = sagas.iter().find(|saga| saga.id == command.saga_id);
        match asked_for(engine, command, saga) {
            Asked::Now(saga, command) => {
                sorted.places.push(place);
                sorted.tasks.push(Task { command, saga });
            }
            Asked::NotNow => sorted.stale.push(place),
            Asked::Never(why) => sorted.illegal.push((place, why)),
        }
    }
    sorted
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
    let Some(saga) = saga else { return Asked::NotNow };
    let Some(definition) = engine.registry.get(&saga.workflow, saga.version) else {
        // The message is acknowledged; the sweeper sends the command again when the definition can be read.
        return Asked::NotNow;
    };
    let is_same = |asked: &Command| (asked.direction, asked.visit) == (command.direction, command.visit);
    let Some(asked) = saga::command(&definition, saga, &command.step).filter(is_same) else {
        return Asked::NotNow;
    };
    if !subjects::fits(&asked.subject, &command.subject) {
        return Asked::Never(format!("the saga asks for {}, not {}", asked.subject, command.subject));
    }
    Asked::Now(saga, Command { subject: command.subject.clone(), send: command.send, ..asked })
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
            workflow: "parcel".to_owned(),
            subject: "shelf.reserve".to_owned(),
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
