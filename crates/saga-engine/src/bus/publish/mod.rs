//! Publishing many messages at once: all are sent, then all acknowledgements are awaited together.
//!
//! A message that is not stored is either tried again, within `PUBLISH_TIMEOUT` in all, or refused: JetStream will never
//! store it, however often it is sent.

mod refusal;

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use async_nats::Subject;
use async_nats::jetstream::context::{PublishAckFuture, PublishErrorKind};
use futures::FutureExt;
pub use saga_protocol::Outgoing;
use tokio::time::{Instant, timeout, timeout_at};

use super::{Bus, retry, topology};
use refusal::{Ack, Complaints, is_refused};

/// How long a publish is tried, repeats included; a leader election takes 8 s.
const PUBLISH_TIMEOUT: Duration = Duration::from_secs(12);
/// How long the acknowledgements of messages that were sent together may take.
const ACK_TIMEOUT: Duration = Duration::from_secs(5);
/// Most messages of one publish that wait for their acknowledgements at a time. The client allows 5,000 of a process.
const MAX_IN_FLIGHT: usize = 512;
/// A subject that no stream takes, so often although every stream is there, will not be taken later either.
const MISSING_STREAM_TRIES: u32 = 3;

/// JetStream did not store all messages in time. Some of them may be stored, or may be later.
#[derive(Clone, Debug, thiserror::Error)]
#[error("JetStream has not stored {count} messages: {reason}")]
pub struct PublishError {
    count: usize,
    reason: String,
}

/// What JetStream has not stored, by the positions of the items.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unpublished {
    /// Those that it may store later, or has stored without saying so.
    pub failed: Vec<usize>,
    /// Those that it will never store, and why.
    pub refused: Vec<(usize, String)>,
    reason: String,
}

impl From<Unpublished> for PublishError {
    fn from(left: Unpublished) -> Self {
        let count = left.failed.len() + left.refused.len();
        let refused = left.refused.into_iter().next().map(|(_, reason)| reason);
        Self { count, reason: refused.unwrap_or(left.reason) }
    }
}

/// Publishes a message of each item and waits until JetStream has every one. What is not acknowledged is made and tried
/// again; a stream that is missing is made again. A message may be stored twice: receivers are fenced.
pub async fn publish<T>(
    bus: &Bus,
    items: &[T],
    message: impl Fn(&T) -> Outgoing,
) -> Result<(), PublishError> {
    publish_each(bus, items, message).await.map_err(PublishError::from)
}

/// The same, and says which items were not stored, and which of them never will be.
pub async fn publish_each<T>(
    bus: &Bus,
    items: &[T],
    message: impl Fn(&T) -> Outgoing,
) -> Result<(), Unpublished> {
    let begin = Unpublished { failed: (0..items.len()).collect(), ..Unpublished::default() };
    let (left, missing) = (Mutex::new(begin), Mutex::new(0));
    // A panic elsewhere leaves both usable: they are replaced as a whole.
    let locked = || left.lock().unwrap_or_else(PoisonError::into_inner);
    let attempts = retry::retry("publishing", None, || async {
        let before = locked().clone();
        let (after, is_missing) = publish_once(bus, items, before, &message).await;
        *locked() = after;
        if is_missing {
            let times = remake(bus).await;
            let mut missing = missing.lock().unwrap_or_else(PoisonError::into_inner);
            *missing += times;
            if *missing >= MISSING_STREAM_TRIES {
                refuse_the_rest(&mut locked());
            }
        }
        let after = locked();
        if after.failed.is_empty() { Ok(()) } else { Err(PublishError::from(after.clone())) }
    });
    // A server that is known not to work is tried once.
    let bound = if bus.health.is_failing() { ACK_TIMEOUT } else { PUBLISH_TIMEOUT };
    let is_late = timeout(bound, attempts).await.is_err();
    let mut left = left.into_inner().unwrap_or_else(PoisonError::into_inner);
    if is_late && left.reason.is_empty() {
        left.reason = format!("no answer within {bound:?}");
    }
    if left.failed.is_empty() && left.refused.is_empty() { Ok(()) } else { Err(left) }
}

/// Sends what has failed so far once more. Whether a stream was missing.
async fn publish_once<T>(
    bus: &Bus,
    items: &[T],
    before: Unpublished,
    message: &impl Fn(&T) -> Outgoing,
) -> (Unpublished, bool) {
    let mut left = Left { all: Unpublished { failed: Vec::new(), ..before.clone() }, is_missing: false };
    let mut waiting = before.failed.into_iter();
    loop {
        let together: Vec<usize> = waiting.by_ref().take(MAX_IN_FLIGHT).collect();
        if together.is_empty() {
            return (left.all, left.is_missing);
        }
        let (begin, mut complaints) = (Instant::now(), Complaints::heard_by(&bus.denials));
        let deadline = begin + ACK_TIMEOUT;
        let mut sent = Vec::with_capacity(together.len());
        for at in together {
            let Outgoing { subject, message } = message(&items[at]);
            let subject = Subject::from(subject);
            match timeout_at(deadline, bus.jetstream.send_publish(subject.clone(), message)).await {
                Ok(Ok(ack)) => sent.push((at, subject, ack)),
                Ok(Err(error)) => left.record(at, &subject, Ack::Error(error)),
                Err(_elapsed) => left.record(at, &subject, Ack::Late),
            }
        }
        let mut is_silent = false;
        for (at, subject, ack) in sent {
            let ack = if is_silent {
                ack.into_future().now_or_never().map_or(Ack::Late, Ack::of)
            } else {
                complaints.answer(&subject, begin, timeout_at(deadline, answer(ack))).await
            };
            is_silent |= matches!(ack, Ack::Late);
            left.record(at, &subject, ack);
        }
        if is_silent {
            // A server that does not answer is not given more.
            left.all.failed.extend(waiting);
            return (left.all, left.is_missing);
        }
    }
}

async fn answer(ack: PublishAckFuture) -> Ack {
    Ack::of(ack.await)
}

struct Left {
    all: Unpublished,
    is_missing: bool,
}

impl Left {
    fn record(&mut self, at: usize, subject: &str, ack: Ack) {
        let reason = match ack {
            Ack::Stored => return,
            Ack::Denied => {
                let reason = format!("NATS does not let this user publish to {subject}");
                return self.all.refused.push((at, reason));
            }
            Ack::Late => "it was not acknowledged in time".to_owned(),
            Ack::Error(error) => {
                if let Some(reason) = is_refused(&error, subject) {
                    return self.all.refused.push((at, reason));
                }
                self.is_missing |= error.kind() == PublishErrorKind::StreamNotFound;
                error.to_string()
            }
        };
        self.all.reason = format!("{subject}: {reason}");
        self.all.failed.push(at);
    }
}

/// What is left has no stream, and none can be made for it.
fn refuse_the_rest(left: &mut Unpublished) {
    let reason = format!("no stream takes the subject: {}", left.reason);
    let refused = std::mem::take(&mut left.failed).into_iter().map(|at| (at, reason.clone()));
    left.refused.extend(refused);
}

/// Makes missing streams. How much it counts that one is missing: not at all while JetStream does not answer, in full if the
/// stream can never be made.
async fn remake(bus: &Bus) -> u32 {
    match topology::ensure(bus).await {
        Ok(()) => 1,
        Err(error) => {
            tracing::warn!(%error, "a stream is missing and cannot be made again");
            if error.is_permanent { MISSING_STREAM_TRIES } else { 0 }
        }
    }
}
