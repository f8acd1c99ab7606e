//! Which workers are there: they announce themselves by the service API of NATS, and one question finds all of them.
//!
//! What they say about themselves is part of the saga protocol. `nats micro ls` lists the same. An announcement ends with its
//! process.

use std::time::Duration;

use async_nats::service::Service;
use futures::StreamExt;
pub use saga_protocol::presence::*;
use serde::de::DeserializeOwned;
use tokio::time::Instant;

use super::{Bus, subjects};
use crate::ids;

/// How long to wait for another answer after the last one: the number of answers is not known.
const QUIET: Duration = Duration::from_millis(250);
/// How long to wait for answers in all.
const LONGEST: Duration = Duration::from_secs(1);

/// Why presence could not be announced or asked for.
#[derive(Debug, thiserror::Error)]
#[error("NATS did not take {what}: {reason}")]
pub struct PresenceError {
    what: &'static str,
    reason: String,
}

impl PresenceError {
    /// Something that NATS did not take, and why.
    pub fn new(what: &'static str, reason: &impl std::fmt::Display) -> Self {
        Self { what, reason: reason.to_string() }
    }
}

/// Announces a worker of these commands until the answer is dropped with its [`Service::stop`], or the process ends.
pub async fn announce(
    bus: &Bus,
    service: &str,
    description: &str,
    commands: &[&str],
) -> Result<Service, PresenceError> {
    let version = env!("CARGO_PKG_VERSION");
    let announced = saga_worker::presence::announce(
        &bus.client,
        (service, version),
        description,
        commands,
        ids::process(),
    );
    announced.await.map_err(|error| PresenceError::new("an announcement", &error))
}

/// Every worker that answers, by service and id; this takes a quarter of a second, a second at most.
pub async fn present(bus: &Bus) -> Result<Vec<WorkerSeen>, PresenceError> {
    let (infos, stats) =
        tokio::join!(ask::<Info>(bus, subjects::SERVICES_INFO), ask::<Stats>(bus, subjects::SERVICES_STATS));
    Ok(joined(infos?, stats?))
}

/// Asks all and gathers what they say, with the time that each took. An answer that cannot be read is dropped.
async fn ask<T: DeserializeOwned>(
    bus: &Bus,
    subject: &'static str,
) -> Result<Vec<(T, Duration)>, PresenceError> {
    let inbox = bus.client.new_inbox();
    let mut answers = bus
        .client
        .subscribe(inbox.clone())
        .await
        .map_err(|error| PresenceError::new("a question", &error))?;
    let asked = bus.client.publish_with_reply(subject, inbox, bytes::Bytes::new()).await;
    asked.map_err(|error| PresenceError::new("a question", &error))?;
    let (begin, mut found) = (Instant::now(), Vec::new());
    let mut end = begin + QUIET;
    while let Ok(Some(answer)) = tokio::time::timeout_at(end, answers.next()).await {
        // The server answers at once that there is no listener.
        if answer.status.is_some() {
            break;
        }
        end = (Instant::now() + QUIET).min(begin + LONGEST);
        found.extend(serde_json::from_slice(&answer.payload).ok().map(|one| (one, begin.elapsed())));
    }
    Ok(found)
}
