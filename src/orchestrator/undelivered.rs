//! Messages that were delivered again and again without an acknowledgement: the server gives up on them and says so.
//! They are kept whole for an operator and taken off their stream, so that nothing lies there for ever.
//!
//! What the server says is kept in a stream too: it is heard even if no orchestrator runs at that moment.

use async_nats::jetstream::Message;
use async_nats::jetstream::stream::RawMessageErrorKind;
use serde::Deserialize;
use tokio_util::sync::CancellationToken;

use super::Engine;
use crate::bus::deliveries::{self, InHand};
use crate::bus::publish::publish;
use crate::bus::{Deliveries, command_batch, messages, retry, subjects, topology};
use crate::saga::{Command, Poisoned, Reply};

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
    let message = async_nats::Message {
        subject: found.subject,
        reply: None,
        payload: found.payload,
        headers: Some(found.headers),
        status: None,
        description: None,
        length: 0,
    };
    if name == subjects::STEPS && command_batch::is_batch(&message) {
        // Alone, each counts its own deliveries.
        publish(&engine.bus, &command_batch::read(&message)?, messages::command).await?;
        stream.delete_message(*stream_seq).await?;
        return Ok(());
    }
    let error = format!("delivered {deliveries} times to {consumer}, and never acknowledged");
    engine.keep(name, &message, &error).await?;
    stop_saga(engine, name, &message, error).await;
    stream.delete_message(*stream_seq).await?;
    Ok(())
}

/// What cannot be read belongs to no saga that could be stopped.
async fn stop_saga(engine: &Engine, stream: &str, message: &async_nats::Message, error: String) {
    if stream == subjects::STEPS
        && let Ok(Command { saga_id, step, direction, visit, .. }) = messages::read_command(message)
    {
        engine.poisoned(saga_id, Poisoned { step, direction, visit, error }).await;
    } else if subjects::is_reply(&message.subject)
        && let Ok((saga, Reply { step, direction, visit, .. })) = messages::read_reply(message)
    {
        engine.poisoned(saga, Poisoned { step, direction, visit, error }).await;
    }
}
