//! Makes the streams, consumers and the bucket at start-up, and again when they are missing. The settings of those of the
//! engine are part of the saga protocol.

use std::time::Duration;

use async_nats::jetstream::consumer::pull;
use async_nats::jetstream::context::CreateStreamErrorKind;
use async_nats::jetstream::stream::{Config, DiscardPolicy, StorageType};
use async_nats::jetstream::{ErrorCode, consumer, stream};
pub use saga_protocol::topology::{ACK_WAIT, WORK_AGE, command_consumer, health, streams, work_consumer};

use super::{Bus, incarnation, subjects};
use crate::clock::Clock;

/// What is wrong with the topology, and with which part of it.
#[derive(Debug, thiserror::Error)]
#[error("JetStream refused {what}: {reason}")]
pub struct TopologyError {
    what: String,
    reason: String,
    /// It cannot be made as long as an operator changes nothing.
    pub is_permanent: bool,
}

/// The stream beneath the bucket of the places in line. `first` is the revision with which a new one begins.
pub fn bucket(replicas: usize, first: Option<u64>) -> Config {
    Config {
        name: subjects::QUEUE_TOKENS_STREAM.to_owned(),
        description: Some(
            "places in line, one key per concert and user; the lease of the admission leader".to_owned(),
        ),
        subjects: vec![subjects::queue_key(">")],
        storage: StorageType::File,
        discard: DiscardPolicy::New,
        num_replicas: replicas,
        // What makes a stream a bucket, as the client library would make it.
        max_messages_per_subject: 1,
        allow_rollup: true,
        deny_delete: true,
        allow_direct: true,
        allow_message_ttl: true,
        subject_delete_marker_ttl: Some(Duration::from_secs(60)),
        first_sequence: first,
        ..Config::default()
    }
}

/// Makes what is missing and brings settings up to date. Safe to call from every process at any time.
pub async fn ensure(bus: &Bus) -> Result<(), TopologyError> {
    // One that cannot be made does not keep the others from being made.
    let mut ensured = Ok(());
    for config in streams(bus.replicas).into_iter().chain([health(bus.replicas)]) {
        ensured = ensured.and(ensure_stream(bus, config).await);
    }
    if bus.makes_bucket {
        ensured = ensured.and(ensure_bucket(bus, 0).await);
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

/// Makes the bucket of the places in line if it is missing. It begins behind `known`, the last revision that is known of
/// buckets before it.
pub async fn ensure_bucket(bus: &Bus, known: u64) -> Result<(), TopologyError> {
    let told = |error: &dyn std::fmt::Display| refused("bucket", subjects::QUEUE_TOKENS, &error);
    // Never with a first revision: the server would empty the bucket at its next start if it were a later one.
    let there_is = bucket(bus.replicas, None);
    match bus.jetstream.update_stream(there_is.clone()).await {
        Ok(_) => return Ok(()),
        Err(error) if error.kind() == CreateStreamErrorKind::NotFound => (),
        Err(error) => return Err(told(&error)),
    }
    let first = incarnation::first_revision(incarnation::next(Clock::default().now(), known));
    match bus.jetstream.create_stream(bucket(bus.replicas, Some(first))).await {
        Ok(_) => Ok(()),
        // Another process may have been quicker.
        Err(error) => match bus.jetstream.update_stream(there_is).await {
            Ok(_) => Ok(()),
            Err(_) => Err(told(&error)),
        },
    }
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

fn refused(kind: &str, name: &str, error: &impl std::fmt::Display) -> TopologyError {
    TopologyError { what: format!("the {kind} {name}"), reason: error.to_string(), is_permanent: false }
}
