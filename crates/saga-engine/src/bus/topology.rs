//! Makes the streams and consumers at start-up, and again when they are missing. Their settings are part of the saga
//! protocol.

use async_nats::jetstream::consumer::pull;
use async_nats::jetstream::context::CreateStreamErrorKind;
use async_nats::jetstream::stream::Config;
use async_nats::jetstream::{ErrorCode, consumer, stream};
pub use saga_protocol::topology::{ACK_WAIT, WORK_AGE, command_consumer, health, streams, work_consumer};

use super::{Bus, subjects};

/// What is wrong with the topology, and with which part of it.
#[derive(Debug, thiserror::Error)]
#[error("JetStream refused {what}: {reason}")]
pub struct TopologyError {
    what: String,
    reason: String,
    /// It cannot be made as long as an operator changes nothing.
    pub is_permanent: bool,
}

/// Makes what is missing and brings settings up to date. Safe to call from every process at any time.
pub async fn ensure(bus: &Bus) -> Result<(), TopologyError> {
    // One that cannot be made does not keep the others from being made.
    let mut ensured = Ok(());
    for config in streams(bus.replicas).into_iter().chain([health(bus.replicas)]) {
        ensured = ensured.and(ensure_stream(bus, config).await);
    }
    ensured
}

async fn ensure_stream(bus: &Bus, config: Config) -> Result<(), TopologyError> {
    let name = config.name.clone();
    bus.jetstream.create_or_update_stream(config).await.map(drop).map_err(|error| {
        // Another stream has its subjects.
        let is_permanent = matches!(error.kind(),
            CreateStreamErrorKind::JetStream(why) if why.error_code() == ErrorCode::STREAM_SUBJECT_OVERLAP);
        TopologyError { is_permanent, ..refused("stream", &name, &error) }
    })
}

/// The named durable consumer of a stream; stream and consumer are made if they are missing.
pub async fn ensure_consumer(
    bus: &Bus,
    stream: &str,
    config: pull::Config,
) -> Result<consumer::Consumer<pull::Config>, TopologyError> {
    let name = config.durable_name.clone().unwrap_or_default();
    let handle = match bus.jetstream.get_stream(stream).await {
        Ok(handle) => handle,
        Err(_) => {
            ensure(bus).await?;
            bus.jetstream.get_stream(stream).await.map_err(|error| refused("stream", stream, &error))?
        }
    };
    create_consumer(&handle, config).await.map_err(|error| refused("consumer", &name, &error))
}

/// The named durable consumer of a stream, as it is; it is made if it is missing and this user may make it.
pub async fn find_or_make_consumer(
    bus: &Bus,
    stream: &str,
    config: pull::Config,
) -> Result<consumer::Consumer<pull::Config>, TopologyError> {
    let name = config.durable_name.clone().unwrap_or_default();
    let found = saga_worker::deliveries::find_or_make_consumer(&bus.jetstream, stream, config).await;
    found.map_err(|reason| refused("consumer", &name, &reason))
}

async fn create_consumer(
    stream: &stream::Stream,
    config: pull::Config,
) -> Result<consumer::Consumer<pull::Config>, stream::ConsumerError> {
    match stream.create_consumer(config.clone()).await {
        Err(error) if overlaps(&error) && delete_leftover(stream, &config.filter_subject).await => {
            stream.create_consumer(config).await
        }
        other => other,
    }
}

/// Whether another consumer of the work queue wants the same messages.
fn overlaps(error: &stream::ConsumerError) -> bool {
    match error.kind() {
        stream::ConsumerErrorKind::JetStream(error) => {
            error.error_code() == ErrorCode::CONSUMER_WQ_CONSUMER_NOT_UNIQUE
        }
        _ => false,
    }
}

/// Deletes the consumer of a whole service that stands in the way of one for a single command, as an earlier version
/// made them. What it had not acknowledged stays in the stream. Says whether it was there.
async fn delete_leftover(stream: &stream::Stream, filter: &str) -> bool {
    let service = subjects::service_of(subjects::command(filter));
    let leftover = stream.get_consumer::<pull::Config>(service).await.ok();
    let is_old =
        leftover.is_some_and(|found| found.cached_info().config.filter_subject == subjects::service(service));
    if is_old {
        tracing::info!(
            consumer = service,
            "a consumer of all commands of a service gives way to one for each"
        );
        // Another process may have deleted it in the meantime.
        let _deleted = stream.delete_consumer(service).await;
    }
    is_old
}

/// The error of a stream, consumer or bucket that JetStream did not make.
pub fn refused(kind: &str, name: &str, error: &impl std::fmt::Display) -> TopologyError {
    TopologyError { what: format!("the {kind} {name}"), reason: error.to_string(), is_permanent: false }
}
