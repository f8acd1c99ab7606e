//! Receives messages over the service's own connection, and acknowledges messages that carry several items.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_nats::Client;
use async_nats::jetstream::Message;
use async_nats::jetstream::consumer::{Consumer, pull};
pub use saga_worker::deliveries::*;

use super::{Bus, topology};

/// The messages of a durable consumer, in batches. Stream and consumer are made where they are missing.
pub type Deliveries = saga_worker::Deliveries<Bus>;

impl ConsumerSource for Bus {
    fn client(&self) -> &Client {
        &self.client
    }

    async fn consumer(&self, stream: &str, config: pull::Config) -> Result<Consumer<pull::Config>, String> {
        topology::ensure_consumer(self, stream, config).await.map_err(|error| error.to_string())
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
