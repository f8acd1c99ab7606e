//! The connection of a worker to NATS.

use async_nats::jetstream::consumer::{Consumer, pull};
use async_nats::{Client, jetstream};

use crate::deliveries::{ConsumerSource, find_or_make_consumer};

/// A connection to NATS and its JetStream.
#[derive(Clone, Debug)]
pub struct Nats {
    /// The connection.
    pub client: Client,
    /// JetStream, as this connection reaches it.
    pub jetstream: jetstream::Context,
}

impl Nats {
    /// JetStream of the account that the client belongs to.
    pub fn new(client: Client) -> Self {
        Self { jetstream: jetstream::new(client.clone()), client }
    }

    /// JetStream of another account, which this account reaches under the name `domain`.
    pub fn with_domain(client: Client, domain: &str) -> Self {
        Self { jetstream: jetstream::with_domain(client.clone(), domain), client }
    }
}

impl ConsumerSource for Nats {
    fn client(&self) -> &Client {
        &self.client
    }

    /// The consumer as it is. It is made only if it is missing: this user may have no right to make or change one.
    async fn consumer(&self, stream: &str, config: pull::Config) -> Result<Consumer<pull::Config>, String> {
        find_or_make_consumer(&self.jetstream, stream, config).await
    }
}
