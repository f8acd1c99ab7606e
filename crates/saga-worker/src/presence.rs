//! Announces a service, so that operators see which workers are there.

use async_nats::Client;
use async_nats::service::{Service, ServiceExt};
use saga_protocol::presence::metadata;

/// The machine's name and the number of this process, with a colon between them.
pub fn process_name() -> String {
    let host = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok());
    format!("{}:{}", host.as_deref().unwrap_or("unknown"), std::process::id())
}

/// Announces a worker of these commands by the service API of NATS. The announcement lasts until [`Service::stop`], or until the
/// process ends. `instance` is what the process calls itself.
///
/// # Errors
/// If the connection is closed, or the name or the version is not of the form that NATS asks for.
pub async fn announce(
    client: &Client,
    (service, version): (&str, &str),
    description: &str,
    commands: &[&str],
    instance: String,
) -> Result<Service, async_nats::Error> {
    let builder = client.service_builder().description(description).metadata(metadata(commands, instance));
    builder.start(service, version).await
}
