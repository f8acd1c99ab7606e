//! Publishing many messages at once: all are sent, then all acknowledgements are awaited.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use async_nats::jetstream::context::{PublishAckFuture, PublishError, PublishErrorKind};
use async_nats::jetstream::message::PublishMessage;

use super::{Bus, topology};

/// How long a publish is tried again before whoever asked must live without it; a leader election takes 8 s.
const PATIENCE: Duration = Duration::from_secs(12);

/// A message on its way out.
#[derive(Clone, Debug)]
pub struct Outgoing {
    pub subject: String,
    pub message: PublishMessage,
}

/// Publishes a message of each item and waits until JetStream has every one. What is not acknowledged is made and tried
/// again; a stream that is missing is made again. A message may be stored twice: receivers are fenced.
pub async fn publish<T>(
    bus: &Bus,
    items: &[T],
    message: impl Fn(&T) -> Outgoing,
) -> Result<(), PublishError> {
    let left: Mutex<Vec<&T>> = Mutex::new(items.iter().collect());
    super::retry::retry("publishing", Some(PATIENCE), || async {
        let batch = std::mem::take(&mut *left.lock().unwrap_or_else(PoisonError::into_inner));
        let (failed, error) = publish_once(bus, batch, &message).await;
        *left.lock().unwrap_or_else(PoisonError::into_inner) = failed;
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

async fn publish_once<'a, T>(
    bus: &Bus,
    items: Vec<&'a T>,
    message: &impl Fn(&T) -> Outgoing,
) -> (Vec<&'a T>, Option<PublishError>) {
    let mut waiting: Vec<(&T, Result<PublishAckFuture, PublishError>)> = Vec::with_capacity(items.len());
    for item in items {
        let Outgoing { subject, message } = message(item);
        waiting.push((item, bus.jetstream.send_publish(subject, message).await));
    }
    let (mut failed, mut last) = (Vec::new(), None);
    for (item, sent) in waiting {
        let acknowledged = match sent {
            Ok(ack) => ack.await.map(drop),
            Err(error) => Err(error),
        };
        if let Err(error) = acknowledged {
            last = Some(error);
            failed.push(item);
        }
    }
    (failed, last)
}

async fn remake(bus: &Bus) {
    if let Err(error) = topology::ensure(bus).await {
        tracing::warn!(%error, "a stream is missing and cannot be made again yet");
    }
}
