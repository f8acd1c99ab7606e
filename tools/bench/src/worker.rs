//! An external worker that gives the same answer to every command: it makes failures that the service itself does not
//! have.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use chrono::{DateTime, Utc};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::stage::Stage;
use boxoffice::bus::publish::publish;
use boxoffice::bus::{Deliveries, deliveries, messages, subjects, topology};
use boxoffice::saga::Outcome;

type Moments = Arc<Mutex<BTreeMap<Uuid, DateTime<Utc>>>>;

/// Serves one command until it is dropped, and remembers when it first answered each saga.
#[derive(Debug)]
pub(super) struct Worker {
    answered: Moments,
    serving: JoinHandle<()>,
}

impl Worker {
    /// Begins to serve with this answer; the streams must be there.
    pub(super) fn of(stage: &Stage, command: &str, outcome: Outcome) -> Self {
        let answered = Moments::default();
        let incoming = Deliveries::of(&stage.bus, subjects::STEPS, topology::command_consumer(command));
        let (bus, clock) = (stage.bus.clone(), stage.clock.clone());
        let serving = tokio::spawn(serve(bus, clock, incoming, outcome, Arc::clone(&answered)));
        Self { answered, serving }
    }

    /// The moment before the answer to each saga was sent.
    pub(super) fn answered(&self) -> BTreeMap<Uuid, DateTime<Utc>> {
        self.answered.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn serve(
    bus: boxoffice::bus::Bus,
    clock: boxoffice::clock::Clock,
    mut incoming: Deliveries,
    outcome: Outcome,
    answered: Moments,
) {
    let never = CancellationToken::new();
    loop {
        let batch = incoming.next(&never).await;
        let commands = batch.iter().filter_map(|message| messages::read_command(message).ok());
        let commands: Vec<_> = commands.collect();
        let now = clock.now();
        {
            let mut answered = answered.lock().unwrap_or_else(PoisonError::into_inner);
            for command in &commands {
                answered.entry(command.saga_id).or_insert(now);
            }
        }
        if let Err(error) = publish(&bus, &commands, |command| messages::reply(command, &outcome)).await {
            tracing::error!(%error, "answers were not taken; the commands come again");
            continue;
        }
        for message in &batch {
            deliveries::acknowledge(message).await;
        }
    }
}
