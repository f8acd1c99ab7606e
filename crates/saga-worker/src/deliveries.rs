//! Receives messages in batches: one open pull stream; it waits for one message, then takes all that have arrived.
//!
//! It does not wait for a batch to fill: an idle process handles a message at once, and a busy one finds a batch. If the stream or
//! its consumer fails, the pull stream is opened again.

use std::convert::Infallible;
use std::time::Duration;

use async_nats::jetstream::consumer::{Consumer, pull};
use async_nats::jetstream::{AckKind, Context, Message};
use async_nats::{Client, Subject};
use futures::{FutureExt, StreamExt};
use saga_protocol::headers;
use tokio_util::sync::CancellationToken;

/// Most items of one batch. A message may carry several items.
pub const BATCH: usize = 256;
/// Messages asked for ahead: below 64 the client can stall.
const PREFETCH: usize = 512;
const EXPIRES: Duration = Duration::from_secs(5);
const HEARTBEAT: Duration = Duration::from_secs(2);
/// How often the server hears that messages are being worked on: well within [`saga_protocol::topology::ACK_WAIT`].
const PROGRESS_INTERVAL: Duration = Duration::from_secs(1);
/// Deliveries after which a message that is put off is left to the engine's sweeper; well below those after which the server gives
/// up on it.
const MAX_PUT_OFF: i64 = 10;
/// The longest pause before a message that was put off comes again.
const MAX_PAUSE: Duration = Duration::from_secs(60);
/// The pause before a broken stream is opened anew.
const REOPEN_PAUSE: Duration = Duration::from_millis(250);

/// A connection by which messages are received.
pub trait ConsumerSource: Clone + Send + Sync {
    /// The connection to NATS.
    fn client(&self) -> &Client;

    /// The durable consumer with these settings, found or made.
    fn consumer(
        &self,
        stream: &str,
        config: pull::Config,
    ) -> impl Future<Output = Result<Consumer<pull::Config>, String>> + Send;
}

/// The named durable consumer of a stream as it is, or a new one if it is missing and this user may make it.
///
/// # Errors
/// Why JetStream has neither found nor made it.
pub async fn find_or_make_consumer(
    jetstream: &Context,
    stream: &str,
    config: pull::Config,
) -> Result<Consumer<pull::Config>, String> {
    let name = config.durable_name.clone().unwrap_or_default();
    let stream = jetstream.get_stream_no_info(stream).await.map_err(|error| error.to_string())?;
    match stream.get_consumer(&name).await {
        Ok(found) => Ok(found),
        Err(_) => stream.create_consumer(config).await.map_err(|error| error.to_string()),
    }
}

/// The messages of a durable consumer, in batches.
pub struct Deliveries<S> {
    source: S,
    stream: &'static str,
    config: pull::Config,
    open: Option<pull::Stream>,
}

impl<S: ConsumerSource> Deliveries<S> {
    /// Prepares to receive. The consumer is looked for or made when the first message is asked for.
    pub fn of(source: &S, stream: &'static str, config: pull::Config) -> Self {
        Self { source: source.clone(), stream, config, open: None }
    }

    /// Waits for the next messages: at least one, and so many that they have about [`BATCH`] items; none once `stop` is cancelled.
    pub async fn next(&mut self, stop: &CancellationToken) -> Vec<Message> {
        match stop.run_until_cancelled(self.first()).await {
            Some(first) => self.and_others(first).await,
            None => Vec::new(),
        }
    }

    /// Like [`Self::next`], but waits for `turn` after the first message has arrived. Messages that arrive meanwhile are part
    /// of the batch.
    pub async fn next_in_turn<T>(
        &mut self,
        turn: impl Future<Output = T>,
        stop: &CancellationToken,
    ) -> (Vec<Message>, Option<T>) {
        let Some(first) = stop.run_until_cancelled(self.first()).await else {
            return (Vec::new(), None);
        };
        let turn = turn.await;
        (self.and_others(first).await, Some(turn))
    }

    /// Asks for no more messages until the next call of [`Self::next`].
    pub fn rest(&mut self) {
        self.open = None;
    }

    async fn first(&mut self) -> Message {
        loop {
            match self.take().await {
                Ok(first) => return first,
                Err(reason) => {
                    self.open = None;
                    let consumer = self.config.durable_name.as_deref().unwrap_or_default();
                    tracing::warn!(stream = self.stream, consumer, %reason, "receiving again after an interruption");
                    tokio::time::sleep(REOPEN_PAUSE).await;
                }
            }
        }
    }

    async fn take(&mut self) -> Result<Message, String> {
        let stream = match self.open.take() {
            Some(stream) => self.open.insert(stream),
            None => {
                let stream = self.subscribe().await?;
                self.open.insert(stream)
            }
        };
        stream.next().await.ok_or("the pull stream ended")?.map_err(|error| error.to_string())
    }

    /// This message, and those that have arrived after it.
    async fn and_others(&mut self, first: Message) -> Vec<Message> {
        let mut items = headers::items(&first);
        let mut batch = vec![first];
        let Some(stream) = &mut self.open else {
            return batch;
        };
        // The runtime's budget would cut large batches short.
        tokio::task::coop::unconstrained(async {
            while items < BATCH {
                match stream.next().now_or_never() {
                    Some(Some(Ok(message))) => {
                        items = items.saturating_add(headers::items(&message));
                        batch.push(message);
                    }
                    _ => break,
                }
            }
        })
        .await;
        batch
    }

    async fn subscribe(&self) -> Result<pull::Stream, String> {
        let consumer = self.source.consumer(self.stream, self.config.clone()).await?;
        consumer
            .stream()
            .max_messages_per_batch(PREFETCH)
            .expires(EXPIRES)
            .heartbeat(HEARTBEAT)
            .messages()
            .await
            .map_err(|error| error.to_string())
    }
}

/// Messages whose work may take longer than the server waits for an acknowledgement. The server gives up on a message after
/// [a number of deliveries](saga_protocol::topology::work_consumer), so a message must not be delivered again while it waits for
/// the database.
#[derive(Debug)]
pub struct InHand {
    client: Client,
    replies: Vec<Subject>,
}

impl InHand {
    /// Takes note of messages that were received by this connection.
    pub fn of<'a>(source: &impl ConsumerSource, messages: impl Iterator<Item = &'a Message>) -> Self {
        Self {
            client: source.client().clone(),
            replies: messages.filter_map(|message| message.reply.clone()).collect(),
        }
    }

    /// Does the work. Meanwhile the server hears every second that the messages are being worked on.
    pub async fn during<T>(&self, work: impl Future<Output = T>) -> T {
        tokio::select! {
            done = work => done,
            never = self.report() => match never {},
        }
    }

    async fn report(&self) -> Infallible {
        loop {
            tokio::time::sleep(PROGRESS_INTERVAL).await;
            for reply in &self.replies {
                let progress = self.client.publish(reply.clone(), AckKind::Progress.into());
                if let Err(error) = progress.await {
                    tracing::debug!(%error, "progress was not reported; a message may come again");
                }
            }
        }
    }
}

/// How often a message was delivered by now, this time included.
pub fn count(message: &Message) -> i64 {
    message.info().map_or(1, |info| info.delivered)
}

/// Acknowledges a message whose work is committed. If the acknowledgement is lost, the message comes again, which is harmless.
pub async fn acknowledge(message: &Message) {
    if let Err(error) = message.ack().await {
        tracing::debug!(%error, "an acknowledgement was not sent; the message comes again");
    }
}

/// Puts off a message whose work fails for a reason that passes. It comes again after a pause that grows with every delivery.
/// After the tenth delivery it is acknowledged, before the server gives up on it: the engine's sweeper sends the command again.
pub async fn put_off(message: &Message) {
    let delivered = count(message);
    if delivered >= MAX_PUT_OFF {
        tracing::warn!(subject = %message.subject, delivered, "a message is left to the sweeper, which sends it anew");
        return acknowledge(message).await;
    }
    again_after(message, pause_after(delivered)).await;
}

/// The pause after so many deliveries: 250 ms after the first, doubled with every further one, a minute at most.
pub fn pause_after(delivered: i64) -> Duration {
    let doublings = u32::try_from(delivered.clamp(1, 20) - 1).unwrap_or(0);
    (Duration::from_millis(250) * 2_u32.pow(doublings)).min(MAX_PAUSE)
}

/// Asks for a message again after a while.
pub async fn again_after(message: &Message, delay: Duration) {
    if let Err(error) = message.ack_with(AckKind::Nak(Some(delay))).await {
        tracing::debug!(%error, "a refusal was not sent; the message comes again after the ack wait");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pause_grows_to_a_minute() {
        assert_eq!(pause_after(1), Duration::from_millis(250));
        assert_eq!(pause_after(4), Duration::from_secs(2));
        assert_eq!(pause_after(1_000), MAX_PAUSE);
    }
}
