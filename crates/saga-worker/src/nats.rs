//! The connection of a worker to NATS.

use async_nats::jetstream::consumer::{Consumer, pull};
use async_nats::{Client, ConnectError, ConnectOptions, ServerAddr, jetstream};

use crate::deliveries::{ConsumerSource, find_or_make_consumer};

/// Connects to a server, as the user that the address names (`nats://user:password@host`), if it names one. `async_nats::connect` ignores
/// this user.
///
/// # Errors
/// If the server does not answer or refuses the user.
pub async fn connect(url: &str) -> Result<Client, ConnectError> {
    let options = match credentials(url) {
        Some((user, password)) => ConnectOptions::with_user_and_password(user, password),
        None => ConnectOptions::new(),
    };
    options.connect(url).await
}

/// User and password of an address, if it has them.
pub fn credentials(url: &str) -> Option<(String, String)> {
    let address: ServerAddr = url.parse().ok()?;
    Some((address.username()?.to_owned(), address.password().unwrap_or_default().to_owned()))
}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_read_from_the_address() {
        assert_eq!(credentials("nats://staff:secret@host:4222"), Some(("staff".into(), "secret".into())));
        assert_eq!(credentials("host:4222"), None);
    }
}
