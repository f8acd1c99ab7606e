//! Messages that were delivered again and again without an acknowledgement: the server gives up on them and says so.
//! They are kept whole for an operator and taken off their stream, so that nothing lies there for ever.
//!
//! A saga gets stuck by that only if the servers worked while its message was delivered: only then the message itself is known
//! to be the reason. After a fault of a server the message is taken off its stream and nothing else: the saga's row still asks
//! for it, and the sweeper sends it anew.
//!
//! What the server says is kept in a stream too: it is heard even if no orchestrator runs at that moment.

use async_nats::jetstream::Message;
use async_nats::jetstream::stream::RawMessageErrorKind;
use chrono::{DateTime, Utc};
use serde::Deserialize;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::Engine;
use crate::bus::deliveries::{self, InHand};
use crate::bus::publish::publish;
use crate::bus::{Deliveries, command_batch, messages, retry, subjects, topology};
use crate::clock::Clock;
use crate::saga::{Command, Direction, Poisoned, Reply};
use crate::store;

/// What the server says about a message that it gives up on.
#[derive(Debug, Deserialize)]
struct Advisory {
    stream: String,
    consumer: String,
    stream_seq: u64,
    deliveries: u64,
}

/// Listens until the service stops.
pub(super) async fn run(engine: Engine, stop: CancellationToken) {
    let config = topology::work_consumer("undelivered", "");
    let mut incoming = Deliveries::of(&engine.bus, subjects::UNDELIVERED, config);
    while !stop.is_cancelled() {
        let batch = incoming.next(&stop).await;
        let in_hand = InHand::of(&engine.bus, batch.iter());
        for message in batch {
            match serde_json::from_slice::<Advisory>(&message.payload) {
                Ok(advisory) => {
                    let taken = in_hand.during(take(&engine, &message, &advisory));
                    // What is cut short by the stop comes again.
                    let _stopped = stop.run_until_cancelled(taken).await;
                }
                Err(error) => engine.park(subjects::UNDELIVERED, &message, &error.to_string()).await,
            }
        }
    }
}

/// Tries until it succeeds: the server speaks of a message that it gives up on only once.
async fn take(engine: &Engine, message: &Message, advisory: &Advisory) {
    // Without a limit of time it cannot fail.
    let _kept = retry::retry("keeping a message that was given up", None, || keep(engine, advisory)).await;
    deliveries::acknowledge(message).await;
}

/// Keeps the message, stops a saga that still asks for it, and deletes it. One that is gone was handled after all.
async fn keep(engine: &Engine, advisory: &Advisory) -> anyhow::Result<()> {
    let Advisory { stream: name, consumer, stream_seq, deliveries } = advisory;
    let stream = engine.bus.jetstream.get_stream_no_info(name).await?;
    let found = match stream.get_raw_message(*stream_seq).await {
        Ok(found) => found,
        Err(error) if error.kind() == RawMessageErrorKind::NoMessageFound => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    let stored_at = found.time;
    let message = async_nats::Message {
        subject: found.subject,
        reply: None,
        payload: found.payload,
        headers: Some(found.headers),
        status: None,
        description: None,
        length: 0,
    };
    if name == subjects::STEPS
        && command_batch::is_batch(&message)
        && let Ok(commands) = command_batch::read(&message)
    {
        // Alone, each counts its own deliveries.
        publish(&engine.bus, &commands, messages::command).await?;
        stream.delete_message(*stream_seq).await?;
        return Ok(());
    }
    let error = format!("delivered {deliveries} times to {consumer}, and never acknowledged");
    match step_of(name, &message) {
        Some(Asked { saga, .. }) if servers_failed_since(engine, stored_at).await? => tracing::warn!(
            %saga, subject = %message.subject, error,
            "JetStream did not work meanwhile; the message is left to the sweeper, which sends it anew"
        ),
        Some(asked) if is_by_its_service(engine, &asked).await => {
            engine.keep(name, &message, &error).await?;
            let Asked { saga, step, direction, visit, .. } = asked;
            engine.poisoned(saga, Poisoned { step, direction, visit, error }).await;
        }
        // What cannot be read belongs to no saga that could be stopped.
        _ => engine.keep(name, &message, &error).await?,
    }
    stream.delete_message(*stream_seq).await?;
    Ok(())
}

/// Whether JetStream has failed since a message was stored, as far as this process has seen.
///
/// # Errors
/// If Postgres cannot be written now: then nothing is decided.
async fn servers_failed_since(engine: &Engine, stored_at: DateTime<Utc>) -> store::Result<bool> {
    engine.writes().await?;
    let age = (Clock::default().now() - stored_at).to_std().unwrap_or_default();
    Ok(engine.bus.health.has_failed_within(age))
}

/// The fence of a command, and by which subject it has come or was answered.
struct Asked {
    saga: Uuid,
    step: String,
    direction: Direction,
    visit: i32,
    by: By,
}

enum By {
    Command(String),
    /// The service that has answered; none where any may.
    Reply(Option<String>),
}

/// Whether the subject of the message is one for this step. A message of one service stops no step of another, and a saga
/// that cannot be read is not stopped either.
async fn is_by_its_service(engine: &Engine, asked: &Asked) -> bool {
    let Ok(Some(saga)) = store::sagas::get(&engine.pool, asked.saga).await else {
        return false;
    };
    let learnt = store::definitions::learn(&engine.pool, &engine.registry, std::slice::from_ref(&saga)).await;
    if let Err(error) = learnt {
        tracing::debug!(%error, "a definition could not be read now");
    }
    let Some(definition) = engine.registry.get(&saga.workflow, saga.version) else {
        return true;
    };
    let Some(command) = definition.command_of(&asked.step, asked.direction) else {
        return false;
    };
    let service = subjects::service_of(command);
    match &asked.by {
        By::Command(came) => subjects::service_of(came) == service || subjects::fits(command, came),
        By::Reply(from) => from.as_deref().is_none_or(|from| from == service),
    }
}

/// The command that a message brings or answers.
fn step_of(stream: &str, message: &async_nats::Message) -> Option<Asked> {
    if stream == subjects::STEPS {
        let Command { saga_id: saga, step, direction, visit, subject, .. } =
            messages::read_command(message).ok()?;
        return Some(Asked { saga, step, direction, visit, by: By::Command(subject) });
    }
    let reply = subjects::is_reply(&message.subject).then(|| messages::read_reply(message).ok()).flatten();
    let (saga, Reply { step, direction, visit, service, .. }) = reply?;
    Some(Asked { saga, step, direction, visit, by: By::Reply(service) })
}
