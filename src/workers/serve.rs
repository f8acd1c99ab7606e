//! The loops of the services: commands are received by one loop each, and done in batches of whatever has come, by a few that
//! take all of them.
//!
//! A batch costs its statements and its commit, however many commands are in it and of whichever kinds. So kinds are not kept
//! apart: with few sagas under way, each kind alone would make batches of one or two.

use std::collections::BTreeSet;
use std::sync::Arc;

use rand::seq::SliceRandom;
use tokio::sync::{Mutex, mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use super::handle::{Delivered, handle_all};
use super::{Limits, Service};
use crate::bus::{Bus, Deliveries, deliveries, messages, presence, subjects, topology};
use crate::orchestrator::{Engine, Halves};

/// Batches under way at once: while one waits for the database, the next is put together. More of them would be smaller.
pub const LANES: usize = 2;

/// From this delivery on a command is handled alone.
const SUSPECT: i64 = 4;

/// Announces every service and serves its commands until `stop`.
pub fn run(engine: &Engine, limits: Limits, tasks: &TaskTracker, stop: &CancellationToken) {
    let (received, ready) = mpsc::channel(deliveries::BATCH);
    let (away, is_away) = watch::channel(false);
    for service in Service::ALL {
        tasks.spawn(announce(engine.bus.clone(), service, stop.clone()));
        for command in service.commands() {
            tasks.spawn(receive(engine.clone(), command, received.clone(), is_away.clone(), stop.clone()));
        }
    }
    let (ready, away) = (Arc::new(Mutex::new(ready)), Arc::new(away));
    for _ in 0..LANES {
        tasks.spawn(serve(engine.clone(), limits, Arc::clone(&ready), Arc::clone(&away), stop.clone()));
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

/// Receives the commands of one kind. While the database is away it asks for none: each delivery counts.
async fn receive(
    engine: Engine,
    command: &'static str,
    received: mpsc::Sender<Delivered>,
    mut away: watch::Receiver<bool>,
    stop: CancellationToken,
) {
    let mut incoming = Deliveries::of(&engine.bus, subjects::STEPS, topology::command_consumer(command));
    while !stop.is_cancelled() {
        let messages = tokio::select! {
            messages = incoming.next(&stop) => messages,
            () = until(&mut away, true) => {
                incoming.rest();
                stop.run_until_cancelled(until(&mut away, false)).await;
                continue;
            }
        };
        for message in messages {
            match messages::read_command(&message) {
                Ok(command) => {
                    // It is closed when the service stops; then the command comes again elsewhere.
                    let _taken = stop.run_until_cancelled(received.send((message, command))).await;
                }
                Err(error) => engine.park(subjects::STEPS, &message, &error.to_string()).await,
            }
        }
    }
}

async fn until(away: &mut watch::Receiver<bool>, is: bool) {
    if away.wait_for(|away| *away == is).await.is_err() {
        // Nobody is left to say so: the service stops.
        std::future::pending().await
    }
}

/// Does whatever has come.
async fn serve(
    engine: Engine,
    limits: Limits,
    ready: Arc<Mutex<mpsc::Receiver<Delivered>>>,
    away: Arc<watch::Sender<bool>>,
    stop: CancellationToken,
) {
    while !stop.is_cancelled() {
        let mut batch: Vec<Delivered> = Vec::new();
        let next = async { ready.lock().await.recv_many(&mut batch, deliveries::BATCH).await };
        if stop.run_until_cancelled(next).await.unwrap_or(0) == 0 {
            return;
        }
        let saga = |(_, command): &Delivered| command.saga_id;
        for round in rounds(batch, saga, |(message, _)| deliveries::count(message)) {
            if let Err(error) = handle_all(&engine, limits, Halves::of(round)).await {
                tracing::warn!(%error, "commands could not be handled; they come again");
                away.send_replace(true);
                engine.wait_for_database(&stop).await;
                away.send_replace(false);
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
}
