//! Publishing many messages at once: all are sent, then all acknowledgements are awaited.

use std::time::Duration;

use async_nats::jetstream::context::{PublishAckFuture, PublishError, PublishErrorKind};
use async_nats::jetstream::message::PublishMessage;

use super::{Bus, topology};

/// How long a publish is tried again before whoever asked must live without it; a leader election takes 8 s.
const PATIENCE: Duration = Duration::from_secs(12);

/// A message on its way out. It is kept until it is acknowledged, for another try.
#[derive(Clone, Debug)]
pub struct Outgoing {
    pub subject: String,
    pub message: PublishMessage,
}

/// Publishes all of them and waits until JetStream has every one. What is not acknowledged is tried again;
/// a stream that is missing is made again. A message may be stored twice: receivers are fenced.
pub async fn publish(bus: &Bus, messages: Vec<Outgoing>) -> Result<(), PublishError> {
    let left = std::sync::Mutex::new(messages);
    super::retry::retry("publishing", Some(PATIENCE), || async {
        let batch = std::mem::take(&mut *left.lock().unwrap_or_else(std::sync::PoisonError::into_inner));
        let (failed, error) = publish_once(bus, batch).await;
        *left.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = failed;
        match error {
            None => Ok(()),
            Some(error) => {
                if error.kind() == PublishErrorKind::StreamNotFound {
                    remake(bus).await;
                }
                Err(error)
            }
        }
    })
    .await
}

async fn publish_once(bus: &Bus, messages: Vec<Outgoing>) -> (Vec<Outgoing>, Option<PublishError>) {
    let mut waiting: Vec<(Outgoing, Result<PublishAckFuture, PublishError>)> =
        Vec::with_capacity(messages.len());
    for outgoing in messages {
        let sent = bus.jetstream.send_publish(outgoing.subject.clone(), outgoing.message.clone()).await;
        waiting.push((outgoing, sent));
    }
    let (mut failed, mut last) = (Vec::new(), None);
    for (outgoing, sent) in waiting {
        let acknowledged = match sent {
            Ok(ack) => ack.await.map(drop),
            Err(error) => Err(error),
        };
        if let Err(error) = acknowledged {
            last = Some(error);
            failed.push(outgoing);
        }
    }
    (failed, last)
}

async fn remake(bus: &Bus) {
    if let Err(error) = topology::ensure(bus).await {
        tracing::warn!(%error, "a stream is missing and cannot be made again yet");
    }
}
