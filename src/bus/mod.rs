//! What the service adds to the engine's use of NATS: the bucket of the places in line, notices, and how it connects.

pub mod topology;
pub mod incarnation;
pub mod messages;
pub mod stream_sizes;
pub mod subjects;

use saga_engine::bus::connect::ConnectError;
pub use saga_engine::bus::*;

use crate::config;

/// Connects and checks the server, as [`connect()`] does, as a user with credentials or a key, by TLS, or from another account.
pub async fn connect_as(
    urls: &str,
    name: &str,
    replicas: u8,
    access: &config::NatsAccess,
) -> Result<Bus, ConnectError> {
    let connected = saga_engine::bus::connect_as(urls, name, replicas, &access.access()).await;
    connected.map_err(|error| match error {
        ConnectError::File { setting, path, reason } => {
            ConnectError::File { setting: format!("BOXOFFICE_NATS_{}", setting.to_uppercase()), path, reason }
        }
        error => error,
    })
}
