//! Receiving in batches: one open pull stream; await one message, then take what is there.
//!
//! No linger: an idle system handles a message at once, a busy one finds its batches waiting. Whatever goes
//! wrong with the stream or its consumer, both are made again and the pull stream is opened anew.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_nats::Subject;
use async_nats::jetstream::consumer::pull;
use async_nats::jetstream::{AckKind, Message};
use futures::{FutureExt, StreamExt};
use tokio_util::sync::CancellationToken;

use super::{Bus, headers, topology};
use crate::store::turns::{Turn, Turns};

/// Most items of one batch; a message may carry several.
pub const BATCH: usize = 256;
/// Messages asked for ahead: below 64 the client can stall.
const PREFETCH: usize = 512;
const EXPIRES: Duration = Duration::from_secs(5);
const HEARTBEAT: Duration = Duration::from_secs(2);
/// How often the server hears that messages are being worked on: well within [`topology::ACK_WAIT`].
const PROGRESS_INTERVAL: Duration = Duration::from_secs(1);
/// Deliveries after which a message that is put off is left to the sweeper; well below those after which the server gives
/// up on it.
const PUT_OFF_MOST: i64 = 10;
/// The longest pause before a message that was put off comes again.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// The pause before a broken stream is opened anew.
const PAUSE: Duration = Duration::from_millis(250);

/// The messages of a durable consumer, in batches.
pub struct Deliveries {
    bus: Bus,
    stream: &'static str,
    config: pull::Config,
    /// Whether a consumer that is there is used as it is: this process may have no right to make or change one.
    made_by_others: bool,
    open: Option<pull::Stream>,
}

impl Deliveries {
    /// Prepares to receive; nothing is opened yet.
    pub fn of(bus: &Bus, stream: &'static str, config: pull::Config) -> Self {
        Self { bus: bus.clone(), stream, config, made_by_others: false, open: None }
    }

    /// The same for a process that may have no right to make the consumer: one that is there is used as it is.
    pub fn of_existing(bus: &Bus, stream: &'static str, config: pull::Config) -> Self {
        Self { made_by_others: true, ..Self::of(bus, stream, config) }
    }

    /// The next messages, at least one, with [`BATCH`] items or the few more of the last message; none once `stop` is cancelled.
    pub async fn next(&mut self, stop: &CancellationToken) -> Vec<Message> {
        match stop.run_until_cancelled(self.first()).await {
            Some(first) => self.and_others(first).await,
            None => Vec::new(),
        }
    }

    /// The same, once it is their turn: what comes while they wait for it is among them.
    pub async fn next_in_turn(
        &mut self,
        turns: &Turns,
        stop: &CancellationToken,
    ) -> (Vec<Message>, Option<Turn>) {
        let Some(first) = stop.run_until_cancelled(self.first()).await else {
            return (Vec::new(), None);
        };
        let turn = turns.take().await;
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
                    tokio::time::sleep(PAUSE).await;
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

    /// With this one, what is there by now.
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
        let consumer = match self.made_by_others {
            true => topology::find_or_make_consumer(&self.bus, self.stream, self.config.clone()).await,
            false => topology::ensure_consumer(&self.bus, self.stream, self.config.clone()).await,
        };
        consumer
            .map_err(|error| error.to_string())?
            .stream()
            .max_messages_per_batch(PREFETCH)
            .expires(EXPIRES)
            .heartbeat(HEARTBEAT)
            .messages()
            .await
            .map_err(|error| error.to_string())
    }
}

/// Messages whose work may take longer than the server waits for an acknowledgement. Each delivery counts, and after the last
/// one a message is given up: what waits for the database must not be delivered again meanwhile.
#[derive(Debug)]
pub struct InHand {
    bus: Bus,
    replies: Vec<Subject>,
}

impl InHand {
    /// These messages.
    pub fn of<'a>(bus: &Bus, messages: impl Iterator<Item = &'a Message>) -> Self {
        Self { bus: bus.clone(), replies: messages.filter_map(|message| message.reply.clone()).collect() }
    }

    /// Does the work; meanwhile the server hears that the messages are being worked on.
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
                let progress = self.bus.client.publish(reply.clone(), AckKind::Progress.into());
                if let Err(error) = progress.await {
                    tracing::debug!(%error, "progress was not reported; a message may come again");
                }
            }
        }
    }
}

/// A message with several items. It is acknowledged when the last of them is settled: done, parked, or sent on alone.
#[derive(Debug)]
pub struct Carrier {
    message: Message,
    open: AtomicUsize,
}

impl Carrier {
    /// The items of a message, each with the message that it shares with the others.
    pub fn share<T>(message: Message, items: Vec<T>) -> impl Iterator<Item = (Arc<Self>, T)> {
        let carrier = Arc::new(Self { message, open: AtomicUsize::new(items.len()) });
        items.into_iter().map(move |item| (Arc::clone(&carrier), item))
    }

    /// The message.
    pub fn message(&self) -> &Message {
        &self.message
    }

    /// One of its items is settled. Called once for each.
    pub async fn settle(&self) {
        if self.open.fetch_sub(1, Ordering::AcqRel) == 1 {
            acknowledge(&self.message).await;
        }
    }
}

/// How often a message was delivered by now, this time included.
pub fn count(message: &Message) -> i64 {
    message.info().map_or(1, |info| info.delivered)
}

/// Acknowledges a message whose work is committed. One that gets lost means a redelivery, which is harmless.
pub async fn acknowledge(message: &Message) {
    if let Err(error) = message.ack().await {
        tracing::debug!(%error, "an acknowledgement was not sent; the message comes again");
    }
}

/// Puts off a message whose work fails for a reason that passes: it comes again after a pause that grows, but before the
/// server gives up on it, it is left to the saga's row, from which the sweeper sends it anew.
pub async fn put_off(message: &Message) {
    let delivered = count(message);
    if delivered >= PUT_OFF_MOST {
        tracing::warn!(subject = %message.subject, delivered, "a message is left to the sweeper, which sends it anew");
        return acknowledge(message).await;
    }
    again_after(message, pause_after(delivered)).await;
}

/// Doubles with every delivery, from a quarter of a second on.
pub fn pause_after(delivered: i64) -> Duration {
    let doublings = u32::try_from(delivered.clamp(1, 20) - 1).unwrap_or(0);
    (Duration::from_millis(250) * 2_u32.pow(doublings)).min(LONGEST_PAUSE)
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
    fn the_pause_grows_to_a_minute() {
        assert_eq!(pause_after(1), Duration::from_millis(250));
        assert_eq!(pause_after(4), Duration::from_secs(2));
        assert_eq!(pause_after(1_000), LONGEST_PAUSE);
    }
}
