//! Publishes the reply to a command.

use std::time::Duration;

use async_nats::jetstream;
use saga_protocol::Outgoing;
use tokio::time::{sleep, timeout};

/// How long to wait for one acknowledgement.
const ACK_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a reply is tried in all; JetStream elects a new leader within 8 s.
const PUBLISH_TIMEOUT: Duration = Duration::from_secs(12);
/// The first pause between two tries; each pause is twice the one before it.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
/// The longest pause between two tries.
const MAX_PAUSE: Duration = Duration::from_secs(1);

/// JetStream has not stored a reply, or has not said so in time.
#[derive(Debug, thiserror::Error)]
#[error("the reply on {subject} was not stored: {reason}")]
pub(crate) struct NotStored {
    subject: String,
    reason: String,
}

/// Publishes a reply and waits until JetStream has stored it. A reply may be stored twice: the engine ignores the second.
pub(crate) async fn publish(jetstream: &jetstream::Context, reply: &Outgoing) -> Result<(), NotStored> {
    let mut reason = "no answer".to_owned();
    let tries = async {
        let mut pause = FIRST_PAUSE;
        loop {
            match timeout(ACK_TIMEOUT, try_publish(jetstream, reply.clone())).await {
                Ok(Ok(())) => return,
                Ok(Err(error)) => reason = error,
                Err(_elapsed) => reason = format!("no acknowledgement within {ACK_TIMEOUT:?}"),
            }
            sleep(pause).await;
            pause = (pause * 2).min(MAX_PAUSE);
        }
    };
    let stored = timeout(PUBLISH_TIMEOUT, tries).await;
    stored.map_err(|_elapsed| NotStored { subject: reply.subject.clone(), reason })
}

async fn try_publish(jetstream: &jetstream::Context, reply: Outgoing) -> Result<(), String> {
    let Outgoing { subject, message } = reply;
    let sent = jetstream.send_publish(subject, message).await.map_err(|error| error.to_string())?;
    sent.await.map(drop).map_err(|error| error.to_string())
}
