//! Makes the bucket of the places in line beside the streams of the engine, at start-up and again when it is missing.

use std::time::Duration;

use async_nats::jetstream::context::CreateStreamErrorKind;
use async_nats::jetstream::stream::{Config, DiscardPolicy, StorageType};
pub use saga_engine::bus::topology::*;

use super::{Bus, incarnation, subjects};
use crate::clock::Clock;

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

/// Makes the engine's streams and the bucket where they are missing, and brings settings up to date. Safe to call from every
/// process at any time.
pub async fn ensure_with_bucket(bus: &Bus) -> Result<(), TopologyError> {
    // One that cannot be made does not keep the other from being made.
    let ensured = ensure(bus).await;
    ensured.and(ensure_bucket(bus, 0).await)
}

/// Makes the bucket of the places in line if it is missing. It begins behind `known`, the last revision that is known of
/// buckets before it.
pub async fn ensure_bucket(bus: &Bus, known: u64) -> Result<(), TopologyError> {
    let failed = |error: &dyn std::fmt::Display| refused("bucket", subjects::QUEUE_TOKENS, &error);
    // Never with a first revision: the server would empty the bucket at its next start if it were a later one.
    let there_is = bucket(bus.replicas, None);
    match bus.jetstream.update_stream(there_is.clone()).await {
        Ok(_) => return Ok(()),
        Err(error) if error.kind() == CreateStreamErrorKind::NotFound => (),
        Err(error) => return Err(failed(&error)),
    }
    let first = incarnation::first_revision(incarnation::next(Clock::default().now(), known));
    match bus.jetstream.create_stream(bucket(bus.replicas, Some(first))).await {
        Ok(_) => Ok(()),
        // Another process may have been quicker.
        Err(error) => match bus.jetstream.update_stream(there_is).await {
            Ok(_) => Ok(()),
            Err(_) => Err(failed(&error)),
        },
    }
}
