//! The loop of a service: receive, fence, do, advance, commit, publish, acknowledge.
//!
//! A batch is read and decided without locks, and written if nothing of it was changed meanwhile; else it is done again
//! under locks.

use std::collections::BTreeSet;

use async_nats::jetstream::Message;
use chrono::{DateTime, Utc};
use fail::fail_point;
use rand::seq::SliceRandom;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use super::changed::Changed;
use super::{Job, Limits, Service};
use crate::bus::{Bus, Deliveries, deliveries, messages, presence, subjects, topology};
use crate::config::Control;
use crate::orchestrator::{Batch, Consequences, Engine, Halves, Verdict};
use crate::saga::{Command, DEADLINE_PASSED, Direction, Event, Outcome, Poisoned, Reply};
use crate::store;
use crate::store::attempt::Attempt;
use crate::store::changes::{Changes, is_not_as_read};

type Delivered = (Message, Command);

/// From this delivery on a command is handled alone.
const SUSPECT: i64 = 4;

/// Announces every service and serves its commands until `stop`, each command by a loop of its own.
pub fn run(engine: &Engine, limits: Limits, tasks: &TaskTracker, stop: &CancellationToken) {
    for service in Service::ALL {
        tasks.spawn(announce(engine.bus.clone(), service, stop.clone()));
        for command in service.commands() {
            tasks.spawn(serve(engine.clone(), service, command, limits, stop.clone()));
        }
    }
}

/// Tells whoever asks that this process serves these commands.
async fn announce(bus: Bus, service: Service, stop: CancellationToken) {
    let words = "steps of sagas, in the engine's own database";
    match presence::announce(&bus, service.name(), words, service.commands()).await {
        Ok(announced) => {
            stop.cancelled().await;
            if let Err(error) = announced.stop().await {
                tracing::debug!(%error, "an announcement was not taken back; it ends with the process");
            }
        }
        Err(error) => tracing::warn!(%error, service = service.name(), "served, but not announced"),
    }
}

async fn serve(engine: Engine, service: Service, command: &str, limits: Limits, stop: CancellationToken) {
    let config = topology::command_consumer(command);
    let mut incoming = Deliveries::of(&engine.bus, subjects::STEPS, config);
    while !stop.is_cancelled() {
        let mut readable: Vec<Delivered> = Vec::new();
        for message in incoming.next(&stop).await {
            match messages::read_command(&message) {
                Ok(command) => readable.push((message, command)),
                Err(error) => engine.park(subjects::STEPS, &message, &error.to_string()).await,
            }
        }
        let saga = |(_, command): &Delivered| command.saga_id;
        for round in rounds(readable, saga, |(message, _)| deliveries::count(message)) {
            if let Err(error) = handle_all(&engine, service, limits, Halves::of(round)).await {
                tracing::warn!(command, %error, "commands could not be handled; they come again");
                incoming.rest();
                engine.wait_for_database(&stop).await;
                break;
            }
        }
    }
}

/// What is handled together, one round after the other. A second command of a saga can only be judged once the first
/// is done. What came again and again may be what ends every process that tries it: it is handled alone, at last and in
/// an order of chance, so that it does not take others with it each time.
fn rounds<T>(commands: Vec<T>, saga: impl Fn(&T) -> Uuid, delivered: impl Fn(&T) -> i64) -> Vec<Vec<T>> {
    let (mut left, mut suspects): (Vec<T>, Vec<T>) =
        commands.into_iter().partition(|command| delivered(command) < SUSPECT);
    let mut rounds = Vec::new();
    while !left.is_empty() {
        let mut seen = BTreeSet::new();
        let (now, later) = left.into_iter().partition(|command| seen.insert(saga(command)));
        rounds.push(now);
        left = later;
    }
    suspects.shuffle(&mut rand::rng());
    rounds.extend(suspects.into_iter().map(|alone| vec![alone]));
    rounds
}

async fn handle_all(
    engine: &Engine,
    service: Service,
    limits: Limits,
    mut halves: Halves<Delivered>,
) -> store::Result<()> {
    while let Some(items) = halves.next() {
        let result = handle(engine, service, limits, items).await;
        if let Some(((message, command), error)) = halves.record(result).await? {
            engine.park(subjects::STEPS, message, &error.to_string()).await;
            engine.poisoned(command.saga_id, poison(command, &error)).await;
        }
    }
    Ok(())
}

async fn handle(engine: &Engine, service: Service, limits: Limits, items: &[Delivered]) -> store::Result<()> {
    let commands: Vec<&Command> = items.iter().map(|(_, command)| command).collect();
    let done = match attempt(engine, service, limits, &commands, engine.control).await {
        Err(error) if is_not_as_read(&error) => {
            metrics::counter!("boxoffice_batches_done_again_total").increment(1);
            attempt(engine, service, limits, &commands, Control::Pessimistic).await?
        }
        done => done?,
    };
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
    service: Service,
    limits: Limits,
    commands: &[&Command],
    control: Control,
) -> store::Result<Done> {
    let mut attempt = Attempt::begin(&engine.steps, control).await?;
    let ids: Vec<_> = commands.iter().map(|command| command.saga_id).collect();
    let mut batch = Batch::read(&mut attempt, &ids).await?;
    let (mut open, refused) = asked_for(engine, &mut batch, commands);
    let mut changes = Changes::default();
    service.run(&mut attempt, &mut changes, limits, batch.now, &mut open).await?;
    let (mut illegal, mut changed) = (Vec::new(), Changed::default());
    for job in open.into_iter().chain(refused) {
        let outcome = job.outcome.unwrap_or(Outcome::Failed { code: "unanswered".to_owned() });
        changed.note(service, job.command, &outcome);
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

/// What is still asked for: to be done, and refused without any work.
fn asked_for<'a>(
    engine: &Engine,
    batch: &mut Batch,
    commands: &[&'a Command],
) -> (Vec<Job<'a>>, Vec<Job<'a>>) {
    let mut jobs: Vec<Job<'_>> = Vec::with_capacity(commands.len());
    for command in commands {
        if batch.asks_for(command) {
            let known = batch
                .saga(command.saga_id)
                .is_some_and(|saga| engine.catalogue.get(&saga.workflow, saga.version).is_some());
            jobs.push(Job { command, outcome: refusal(command, known, batch.now) });
        } else {
            metrics::counter!("boxoffice_stale_messages_total", "stream" => subjects::STEPS).increment(1);
            batch.note_stale(command.saga_id);
        }
    }
    jobs.into_iter().partition(|job| job.outcome.is_none())
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
    use super::*;

    #[test]
    fn commands_of_one_saga_come_one_after_the_other_and_what_came_often_comes_alone() {
        let (one, other) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let commands = vec![(one, 1), (one, 2), (other, SUSPECT), (other, 1), (one, 9), (one, 3)];
        let mut rounds = rounds(commands, |command| command.0, |command| command.1);
        let alone = rounds.split_off(3);
        assert_eq!(rounds, [vec![(one, 1), (other, 1)], vec![(one, 2)], vec![(one, 3)]]);
        assert!(
            alone.contains(&vec![(other, SUSPECT)]) && alone.contains(&vec![(one, 9)]) && alone.len() == 2
        );
    }

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
