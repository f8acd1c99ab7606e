//! Reads and writes of the bucket of places, with a precise result for each write.
//!
//! Writes are compare-and-set by a revision: of the key itself, or of the lease as a fence. Reads go to the stream's
//! leader, because a replica may lag behind an acknowledged write.

use std::time::Duration;

use async_nats::HeaderMap;
use async_nats::jetstream::ErrorCode;
use async_nats::jetstream::context::{GetStreamErrorKind, PublishAckFuture, PublishError, PublishErrorKind};
use async_nats::jetstream::kv;
use async_nats::jetstream::message::PublishMessage;
use async_nats::jetstream::stream::{Info, LastRawMessageErrorKind, Stream};
use bytes::Bytes;
use chrono::{DateTime, Utc};

use crate::bus::{Bus, incarnation, subjects, topology};

/// Header of a delete marker whose place was still in line, see [`crate::waiting_room::join`].
pub const LEFT_THE_LINE: &str = "Box-Office-Left-The-Line";
const KV_OPERATION: &str = "KV-Operation";
const MARKER_REASON: &str = "Nats-Marker-Reason";
/// Names another subject whose last sequence is compared, together with `Nats-Expected-Last-Subject-Sequence`.
const EXPECTED_SUBJECT: &str = "Nats-Expected-Last-Subject-Sequence-Subject";

/// The condition of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// The key was last written at this revision; 0: never.
    Revision(u64),
    /// The lease was last written at this revision, so that the writer still leads.
    Lease(u64),
}

/// Why a write failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    /// The condition is false. Nothing was written.
    #[error("another write came first")]
    Conflict,
    /// An earlier write is under way and its result is unknown. Nothing was written.
    #[error("another write is on its way")]
    Busy,
    /// The bucket is missing, or has no leader now. Nothing was written.
    #[error("the bucket is not there")]
    Missing,
    /// No answer. It may have been written, or may be written later.
    #[error("no answer to a write: {0}")]
    Unknown(String),
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the bucket of places cannot be read: {0}")]
pub struct ReadError(String);

impl ReadError {
    pub fn new(reason: impl Into<String>) -> Self {
        Self(reason.into())
    }
}

/// What a key holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stored {
    Value {
        revision: u64,
        bytes: Bytes,
    },
    /// A delete marker; `left_the_line` if the place was still in line.
    Deleted {
        revision: u64,
        left_the_line: bool,
    },
    Nothing,
}

/// A write under way.
#[derive(Debug)]
pub struct Sent(PublishAckFuture);

impl Sent {
    /// Waits for the answer: the revision.
    pub async fn answer(self) -> Result<u64, WriteError> {
        self.0.await.map(|ack| ack.sequence).map_err(|error| refusal(&error))
    }
}

/// Waits for the answer to a write, if it was sent at all.
pub async fn answer_to(sent: Result<Sent, WriteError>) -> Result<u64, WriteError> {
    sent?.answer().await
}

/// The bucket `queue_tokens`.
#[derive(Clone, Debug)]
pub struct Bucket {
    bus: Bus,
}

impl Bucket {
    pub fn new(bus: Bus) -> Self {
        Self { bus }
    }

    /// Writes a value, for `life` or without a limit. Returns its revision.
    pub async fn write(
        &self,
        key: &str,
        condition: Condition,
        value: Bytes,
        life: Option<Duration>,
    ) -> Result<u64, WriteError> {
        self.send(key, condition, value, life).await?.answer().await
    }

    /// Sends a write without waiting for the answer. Writes are stored in the order in which they are sent.
    pub async fn send(
        &self,
        key: &str,
        condition: Condition,
        value: Bytes,
        life: Option<Duration>,
    ) -> Result<Sent, WriteError> {
        let message = PublishMessage::build().payload(value);
        let message = match life {
            Some(life) => message.ttl(life),
            None => message,
        };
        self.publish(key, condition, message).await
    }

    /// Deletes a key and leaves a marker, so that every watch sees it. It is not a purge with a TTL, because what such
    /// a purge removed can come back when the server is killed.
    pub async fn delete(
        &self,
        key: &str,
        condition: Condition,
        left_the_line: bool,
    ) -> Result<u64, WriteError> {
        let message = PublishMessage::build().header(KV_OPERATION, "DEL");
        let message = if left_the_line { message.header(LEFT_THE_LINE, "1") } else { message };
        self.publish(key, condition, message).await?.answer().await
    }

    async fn publish(
        &self,
        key: &str,
        condition: Condition,
        message: PublishMessage,
    ) -> Result<Sent, WriteError> {
        let message = match condition {
            Condition::Revision(revision) => message.expected_last_subject_sequence(revision),
            Condition::Lease(revision) => message
                .expected_last_subject_sequence(revision)
                .header(EXPECTED_SUBJECT, subjects::queue_key(subjects::QUEUE_LEASE)),
        };
        let subject = subjects::queue_key(key);
        let sent = self.bus.jetstream.send_publish(subject, message).await;
        sent.map(Sent).map_err(|error| refusal(&error))
    }

    /// Reads a key from the stream's leader.
    pub async fn read(&self, key: &str) -> Result<Stored, ReadError> {
        let stream = self.stream().await?;
        match stream.get_last_raw_message_by_subject(&subjects::queue_key(key)).await {
            Ok(message) if is_marker(&message.headers) => {
                let left_the_line = message.headers.get(LEFT_THE_LINE).is_some();
                Ok(Stored::Deleted { revision: message.sequence, left_the_line })
            }
            Ok(message) => Ok(Stored::Value { revision: message.sequence, bytes: message.payload }),
            Err(error) if matches!(error.kind(), LastRawMessageErrorKind::NoMessageFound) => {
                Ok(Stored::Nothing)
            }
            Err(error) => Err(ReadError(error.to_string())),
        }
    }

    /// Removes the delete marker at `revision` and everything before it, but nothing later.
    pub async fn clear(&self, key: &str, revision: u64) -> Result<(), ReadError> {
        let purge = self
            .stream()
            .await?
            .purge()
            .filter(subjects::queue_key(key))
            .sequence(revision.saturating_add(1));
        purge.await.map(|_| ()).map_err(|error| ReadError(error.to_string()))
    }

    /// The state of the stream: its last revision and the time when it was made; `None` if it is missing.
    pub async fn info(&self) -> Result<Option<Info>, ReadError> {
        match self.bus.jetstream.get_stream(subjects::QUEUE_TOKENS_STREAM).await {
            Ok(stream) => Ok(Some(stream.cached_info().clone())),
            Err(error) => match error.kind() {
                GetStreamErrorKind::JetStream(why) if why.error_code() == ErrorCode::STREAM_NOT_FOUND => {
                    Ok(None)
                }
                _ => Err(ReadError(error.to_string())),
            },
        }
    }

    /// Creates the bucket if it is missing. Its revisions continue after `known`.
    pub async fn ensure(&self, known: u64) -> Result<(), ReadError> {
        topology::ensure_bucket(&self.bus, known).await.map_err(|error| ReadError(error.to_string()))
    }

    /// Empties the bucket. Its revisions continue after `known`.
    pub async fn reset_after(&self, known: u64, now: DateTime<Utc>) -> Result<(), ReadError> {
        let first = incarnation::first_revision(incarnation::next(now, known));
        let purge = self.stream().await?.purge().sequence(first);
        purge.await.map(|_| ()).map_err(|error| ReadError(error.to_string()))
    }

    /// The content of the bucket, then every change.
    pub async fn watch(&self) -> Result<kv::Watch, ReadError> {
        let read_error = |error: &dyn std::error::Error| ReadError(error.to_string());
        let store =
            self.bus.jetstream.get_key_value(subjects::QUEUE_TOKENS).await.map_err(|e| read_error(&e))?;
        store.watch_with_history(">").await.map_err(|e| read_error(&e))
    }

    async fn stream(&self) -> Result<Stream<()>, ReadError> {
        let stream = self.bus.jetstream.get_stream_no_info(subjects::QUEUE_TOKENS_STREAM).await;
        stream.map_err(|error| ReadError(error.to_string()))
    }
}

fn is_marker(headers: &HeaderMap) -> bool {
    headers.get(KV_OPERATION).is_some() || headers.get(MARKER_REASON).is_some()
}

/// Two error codes mean that a compare-and-set did not succeed, and the client library reports only one of them as
/// such. The second one means that the server has not compared yet, because an earlier write is still under way to the
/// replicas.
fn refusal(error: &PublishError) -> WriteError {
    let code = std::error::Error::source(error)
        .and_then(|source| source.downcast_ref::<async_nats::jetstream::Error>())
        .map(async_nats::jetstream::Error::error_code);
    match (code, error.kind()) {
        (Some(ErrorCode::STREAM_WRONG_LAST_SEQUENCE_CONSTANT), _) => WriteError::Busy,
        (Some(ErrorCode::STREAM_WRONG_LAST_SEQUENCE), _) | (_, PublishErrorKind::WrongLastSequence) => {
            WriteError::Conflict
        }
        (_, PublishErrorKind::StreamNotFound) => WriteError::Missing,
        _ => WriteError::Unknown(error.to_string()),
    }
}
