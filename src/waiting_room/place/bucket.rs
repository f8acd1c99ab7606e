//! The bucket of places: every read and write of it, with what the server said to a write told apart.
//!
//! Writes are compare-and-set, by revision: of the key itself, or of the lease (a fence: the writer still leads). Reads
//! ask the stream's leader, because a replica may lag behind an acknowledged write.

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

/// Says that a deleted key held a place that was still in line, see [`crate::waiting_room::join`].
pub const LEFT_THE_LINE: &str = "Box-Office-Left-The-Line";
const KV_OPERATION: &str = "KV-Operation";
const MARKER_REASON: &str = "Nats-Marker-Reason";
/// Names another subject whose last sequence is expected, beside `Nats-Expected-Last-Subject-Sequence`.
const EXPECTED_SUBJECT: &str = "Nats-Expected-Last-Subject-Sequence-Subject";

/// What a write asks for to be true.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum If {
    /// The key was last written at this revision; 0: never.
    At(u64),
    /// The lease was last written at this revision: whoever writes still leads.
    Leading(u64),
}

/// Why a write was not done, as far as is known.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    /// What was asked for is not true; nothing was written.
    #[error("another write came first")]
    Conflict,
    /// Another write is on its way, its outcome not known yet; nothing was written.
    #[error("another write is on its way")]
    Busy,
    /// The bucket is missing, or no server leads it this moment; nothing was written.
    #[error("the bucket is not there")]
    Missing,
    /// No answer: it may have been written, or may be later.
    #[error("no answer to a write: {0}")]
    Unknown(String),
}

/// The bucket could not be asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the bucket of places cannot be read: {0}")]
pub struct ReadError(String);

impl ReadError {
    /// With what went wrong.
    pub fn new(reason: impl Into<String>) -> Self {
        Self(reason.into())
    }
}

/// What lies at a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stored {
    /// A value.
    Value { revision: u64, bytes: Bytes },
    /// The trace of a deletion; `left_the_line` if the place was still in line then.
    Deleted { revision: u64, left_the_line: bool },
    /// Nothing.
    Nothing,
}

/// A write on its way.
#[derive(Debug)]
pub struct Sent(PublishAckFuture);

impl Sent {
    /// Waits for the server's answer: the revision.
    pub async fn answer(self) -> Result<u64, WriteError> {
        self.0.await.map(|ack| ack.sequence).map_err(|error| refusal(&error))
    }
}

/// Waits for the server's answer to a write that may not even have been sent.
pub async fn answer_to(sent: Result<Sent, WriteError>) -> Result<u64, WriteError> {
    sent?.answer().await
}

/// The bucket `queue_tokens`.
#[derive(Clone, Debug)]
pub struct Bucket {
    bus: Bus,
}

impl Bucket {
    /// Over this connection.
    pub fn new(bus: Bus) -> Self {
        Self { bus }
    }

    /// Writes a value, for `life` or for good; answers its revision.
    pub async fn write(
        &self,
        key: &str,
        condition: If,
        value: Bytes,
        life: Option<Duration>,
    ) -> Result<u64, WriteError> {
        self.send(key, condition, value, life).await?.answer().await
    }

    /// The same without waiting for the answer: writes are stored in the order in which they were sent.
    pub async fn send(
        &self,
        key: &str,
        condition: If,
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

    /// Deletes a key; the trace stays, so that every watch is told. Never a purge with a lifetime: what it removed can
    /// come back when the server is killed.
    pub async fn delete(&self, key: &str, condition: If, left_the_line: bool) -> Result<u64, WriteError> {
        let message = PublishMessage::build().header(KV_OPERATION, "DEL");
        let message = if left_the_line { message.header(LEFT_THE_LINE, "1") } else { message };
        self.publish(key, condition, message).await?.answer().await
    }

    async fn publish(&self, key: &str, condition: If, message: PublishMessage) -> Result<Sent, WriteError> {
        let message = match condition {
            If::At(revision) => message.expected_last_subject_sequence(revision),
            If::Leading(revision) => message
                .expected_last_subject_sequence(revision)
                .header(EXPECTED_SUBJECT, subjects::queue_key(subjects::QUEUE_LEASE)),
        };
        let subject = subjects::queue_key(key);
        let sent = self.bus.jetstream.send_publish(subject, message).await;
        sent.map(Sent).map_err(|error| refusal(&error))
    }

    /// What lies at a key, asked of the stream's leader.
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

    /// Clears away the trace of a deletion at `revision`, and what came before it, but nothing later.
    pub async fn clear(&self, key: &str, revision: u64) -> Result<(), ReadError> {
        let purge = self
            .stream()
            .await?
            .purge()
            .filter(subjects::queue_key(key))
            .sequence(revision.saturating_add(1));
        purge.await.map(|_| ()).map_err(|error| ReadError(error.to_string()))
    }

    /// The state of the stream beneath: how far it is, and when it was made; nothing if it is missing.
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

    /// Makes the bucket if it is missing, with revisions behind all that are `known`.
    pub async fn ensure(&self, known: u64) -> Result<(), ReadError> {
        topology::ensure_bucket(&self.bus, known).await.map_err(|error| ReadError(error.to_string()))
    }

    /// Empties a bucket that is not what it should be, and lets it go on behind all revisions that are `known`.
    pub async fn begin_behind(&self, known: u64, now: DateTime<Utc>) -> Result<(), ReadError> {
        let first = incarnation::first_revision(incarnation::next(now, known));
        let purge = self.stream().await?.purge().sequence(first);
        purge.await.map(|_| ()).map_err(|error| ReadError(error.to_string()))
    }

    /// Everything that lies in the bucket, and then every change.
    pub async fn watch(&self) -> Result<kv::Watch, ReadError> {
        let told = |error: &dyn std::error::Error| ReadError(error.to_string());
        let store = self.bus.jetstream.get_key_value(subjects::QUEUE_TOKENS).await.map_err(|e| told(&e))?;
        store.watch_with_history(">").await.map_err(|e| told(&e))
    }

    async fn stream(&self) -> Result<Stream<()>, ReadError> {
        let stream = self.bus.jetstream.get_stream_no_info(subjects::QUEUE_TOKENS_STREAM).await;
        stream.map_err(|error| ReadError(error.to_string()))
    }
}

fn is_marker(headers: &HeaderMap) -> bool {
    headers.get(KV_OPERATION).is_some() || headers.get(MARKER_REASON).is_some()
}

/// Two codes mean that a compare-and-set lost; the client library tells only one of them by kind. The second one
/// decides nothing: the server has not compared, because an earlier write is still on its way to the replicas.
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
