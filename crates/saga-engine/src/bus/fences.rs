//! Asks a service to complete a step by hand. The messages are part of the saga protocol.

use async_nats::client::RequestErrorKind;
use async_nats::service::NATS_SERVICE_ERROR;
pub use saga_protocol::fences::*;

use super::{Bus, subjects};

/// Why a step could not be completed at its service. Nothing is known to be written.
#[derive(Debug, thiserror::Error)]
pub enum FenceError {
    #[error("no worker serves {service} now; start a worker of it, then try again")]
    NobodyServes { service: String },
    #[error("the service {service} refused: {reason}")]
    Refused { service: String, reason: String },
    #[error(
        "the service {service} gave no answer that can be read ({reason}); the same request may be sent again"
    )]
    NoAnswer { service: String, reason: String },
}

/// Asks a service to write that a step is done.
pub async fn complete(bus: &Bus, service: &str, wanted: &Completion) -> Result<Completed, FenceError> {
    let silent = |reason: String| FenceError::NoAnswer { service: service.to_owned(), reason };
    let (headers, body) = request(wanted);
    let answer = bus.client.request_with_headers(subjects::complete(service), headers, body).await;
    let answer = answer.map_err(|error| match error.kind() {
        RequestErrorKind::NoResponders => FenceError::NobodyServes { service: service.to_owned() },
        _ => silent(error.to_string()),
    })?;
    if let Some(reason) = answer.headers.as_ref().and_then(|headers| headers.get(NATS_SERVICE_ERROR)) {
        return Err(FenceError::Refused { service: service.to_owned(), reason: reason.to_string() });
    }
    read_answer(&answer).map_err(|error| silent(error.to_string()))
}
