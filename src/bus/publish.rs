//! Publishing many messages at once: all are sent, then all acknowledgements are awaited together.
//!
//! A publish that failed is either tried again, within [`PUBLISH_TIMEOUT`] in all, or refused for good: the server will
//! never store it, whoever sends it again.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use async_nats::jetstream::context::{PublishAckFuture, PublishErrorKind};
use async_nats::jetstream::message::PublishMessage;
use futures::FutureExt;
use tokio::time::{Instant, timeout, timeout_at};

use super::{Bus, retry, topology};

/// How long a publish is tried, repeats included; a leader election takes 8 s.
const PUBLISH_TIMEOUT: Duration = Duration::from_secs(12);
/// How long the acknowledgements of messages that were sent together may take.
const ACK_TIMEOUT: Duration = Duration::from_secs(5);
/// Most messages of one publish that wait for their acknowledgements at a time. The client allows 5,000 of a process.
const MAX_IN_FLIGHT: usize = 512;

type AckError = async_nats::jetstream::context::PublishError;

/// A message on its way out.
#[derive(Clone, Debug)]
pub struct Outgoing {
    pub subject: String,
    pub message: PublishMessage,
}

/// JetStream did not store all messages in time. Some of them may be stored, or may be later.
#[derive(Clone, Debug, thiserror::Error)]
#[error("JetStream has not acknowledged {count} messages: {reason}")]
pub struct PublishError {
    count: usize,
    reason: String,
}

/// Publishes a message of each item and waits until JetStream has every one. What is not acknowledged is made and tried
/// again; a stream that is missing is made again. A message may be stored twice: receivers are fenced.
pub async fn publish<T>(
    bus: &Bus,
    items: &[T],
    message: impl Fn(&T) -> Outgoing,
) -> Result<(), PublishError> {
    let left: Mutex<Attempt<'_, T>> = Mutex::new(Attempt::new(items.iter().collect()));
    let attempts = retry::retry("publishing", None, || async {
        let batch = left.lock().unwrap_or_else(PoisonError::into_inner).failed.clone();
        let attempt = publish_once(bus, batch, &message).await;
        let (error, is_missing) = (attempt.error(), attempt.is_stream_missing);
        *left.lock().unwrap_or_else(PoisonError::into_inner) = attempt;
        if is_missing {
            remake(bus).await;
        }
        error.map_or(Ok(()), Err)
    });
    match timeout(PUBLISH_TIMEOUT, attempts).await {
        Ok(published) => published,
        Err(_elapsed) => {
            Err(left.lock().unwrap_or_else(PoisonError::into_inner).error().unwrap_or(PublishError {
                count: items.len(),
                reason: format!("no answer within {PUBLISH_TIMEOUT:?}"),
            }))
        }
    }
}

/// What is left of a publish after one attempt.
struct Attempt<'a, T> {
    failed: Vec<&'a T>,
    reason: Option<String>,
    is_stream_missing: bool,
}

impl<'a, T> Attempt<'a, T> {
    fn new(failed: Vec<&'a T>) -> Self {
        Self { failed, reason: None, is_stream_missing: false }
    }

    fn error(&self) -> Option<PublishError> {
        let reason = self.reason.clone()?;
        (!self.failed.is_empty()).then_some(PublishError { count: self.failed.len(), reason })
    }

    fn record(&mut self, item: &'a T, result: Result<(), AckError>) {
        if let Err(error) = result {
            self.is_stream_missing |= error.kind() == PublishErrorKind::StreamNotFound;
            self.reason = Some(error.to_string());
            self.failed.push(item);
        }
    }
}

async fn publish_once<'a, T>(
    bus: &Bus,
    items: Vec<&'a T>,
    message: &impl Fn(&T) -> Outgoing,
) -> Attempt<'a, T> {
    let mut attempt = Attempt::new(Vec::new());
    let mut items = items.into_iter();
    loop {
        let together: Vec<&T> = items.by_ref().take(MAX_IN_FLIGHT).collect();
        if together.is_empty() {
            return attempt;
        }
        let deadline = Instant::now() + ACK_TIMEOUT;
        let sent = send(bus, together, message, deadline, &mut attempt).await;
        if !acknowledged(sent, deadline, &mut attempt).await {
            // A server that does not answer is not given more.
            attempt.failed.extend(items);
            return attempt;
        }
    }
}

/// Sends messages until the deadline; those that could not be sent have failed.
async fn send<'a, T>(
    bus: &Bus,
    items: Vec<&'a T>,
    message: &impl Fn(&T) -> Outgoing,
    deadline: Instant,
    attempt: &mut Attempt<'a, T>,
) -> Vec<(&'a T, PublishAckFuture)> {
    let mut sent = Vec::with_capacity(items.len());
    for item in items {
        let Outgoing { subject, message } = message(item);
        match timeout_at(deadline, bus.jetstream.send_publish(subject, message)).await {
            Ok(Ok(ack)) => sent.push((item, ack)),
            Ok(Err(error)) => attempt.record(item, Err(error)),
            Err(_elapsed) => attempt.record(item, Err(AckError::new(PublishErrorKind::TimedOut))),
        }
    }
    sent
}

/// Awaits the acknowledgements, all of them until one deadline. Whether the server has answered to every message.
async fn acknowledged<'a, T>(
    sent: Vec<(&'a T, PublishAckFuture)>,
    deadline: Instant,
    attempt: &mut Attempt<'a, T>,
) -> bool {
    let mut is_silent = false;
    for (item, ack) in sent {
        let ack = ack.into_future();
        let answer = if is_silent { ack.now_or_never() } else { timeout_at(deadline, ack).await.ok() };
        is_silent |= answer.is_none();
        let answer = answer.unwrap_or_else(|| Err(AckError::new(PublishErrorKind::TimedOut)));
        attempt.record(item, answer.map(drop));
    }
    !is_silent
}

async fn remake(bus: &Bus) {
    if let Err(error) = topology::ensure(bus).await {
        tracing::warn!(%error, "a stream is missing and cannot be made again yet");
    }
}
