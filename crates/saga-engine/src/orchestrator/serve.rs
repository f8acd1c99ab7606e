//! The loop of each command: receive, do what came in batches, and wait while the database is away.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::Message;
use rand::seq::SliceRandom;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::Engine;
use super::execute::{Delivered, Execution};
use super::participant::Participant;
use crate::background::Tasks;
use crate::bus::command_batch;
use crate::bus::deliveries::{self, Carrier, InHand};
use crate::bus::publish::publish;
use crate::bus::retry::retry;
use crate::bus::{Bus, Deliveries, messages, presence, subjects, topology};
use crate::saga::Command;

/// From this delivery on a command is handled alone.
const SUSPECT: i64 = 4;
/// From this delivery on the commands of a message are sent on as messages of their own: each counts its own deliveries.
const SPLIT: i64 = 3;
/// How long taking back an announcement may take.
const STOP_TIMEOUT: Duration = Duration::from_secs(1);

impl Engine {
    /// Announces every service in this database and serves its commands until `stop`, each command by a loop of its own.
    pub fn serve(&self, tasks: &Tasks, stop: &CancellationToken) {
        for participant in self.participants.iter() {
            tasks.supervise(
                participant.name(),
                announce(self.bus.clone(), Arc::clone(participant), stop.clone()),
            );
            for command in participant.commands() {
                tasks.supervise(command, serve(self.clone(), Arc::clone(participant), command, stop.clone()));
            }
        }
    }
}

/// Makes known that this process serves these commands.
async fn announce(bus: Bus, participant: Arc<dyn Participant>, stop: CancellationToken) {
    let words = "steps of sagas, in the engine's own database";
    let announcing = retry("announcing a service", None, || {
        presence::announce(&bus, participant.name(), words, participant.commands())
    });
    if let Some(Ok(announced)) = stop.run_until_cancelled(announcing).await {
        stop.cancelled().await;
        if let Ok(Err(error)) = timeout(STOP_TIMEOUT, announced.stop()).await {
            tracing::debug!(%error, "an announcement was not taken back; it ends with the process");
        }
    }
}

async fn serve(
    engine: Engine,
    participant: Arc<dyn Participant>,
    command: &'static str,
    stop: CancellationToken,
) {
    let config = topology::command_consumer(command);
    let mut incoming = Deliveries::of(&engine.bus, subjects::STEPS, config);
    while !stop.is_cancelled() {
        let mut readable: Vec<Delivered> = Vec::new();
        let (messages, _permit) = incoming.next_in_turn(engine.limit.take(), &stop).await;
        let in_hand = InHand::of(&engine.bus, messages.iter());
        for message in messages {
            match command_batch::read(&message) {
                Ok(commands) if command_batch::is_batch(&message) && deliveries::count(&message) >= SPLIT => {
                    send_on(&engine.bus, &message, &commands).await;
                }
                Ok(commands) => readable.extend(Carrier::share(message, commands)),
                Err(error) => engine.park(subjects::STEPS, &message, &error.to_string()).await,
            }
        }
        let saga = |(_, command): &Delivered| command.saga_id;
        let execution = Execution { engine: &engine, participant: &*participant };
        for round in rounds(readable, saga, |(carrier, _)| deliveries::count(carrier.message())) {
            engine.work_off(round, &execution, &in_hand, &mut incoming, &stop).await;
            if stop.is_cancelled() {
                break;
            }
        }
    }
}

/// Sends the commands of a message on alone. If that fails it comes again.
async fn send_on(bus: &Bus, message: &Message, commands: &[Command]) {
    match publish(bus, commands, messages::command).await {
        Ok(()) => deliveries::acknowledge(message).await,
        Err(error) => tracing::warn!(%error, "commands were not sent on alone; they come again together"),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_of_one_saga_stay_in_order() {
        let (one, other) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let commands = vec![(one, 1), (one, 2), (other, SUSPECT), (other, 1), (one, 9), (one, 3)];
        let mut rounds = rounds(commands, |command| command.0, |command| command.1);
        let alone = rounds.split_off(3);
        assert_eq!(rounds, [vec![(one, 1), (other, 1)], vec![(one, 2)], vec![(one, 3)]]);
        assert!(
            alone.contains(&vec![(other, SUSPECT)]) && alone.contains(&vec![(one, 9)]) && alone.len() == 2
        );
    }
}
