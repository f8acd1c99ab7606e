//! Which failures of a publish are for good.

use std::error::Error;
use std::future::Future;

use async_nats::jetstream::ErrorCode;
use async_nats::jetstream::context::{PublishError, PublishErrorKind};
use async_nats::jetstream::publish::PublishAck;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio::time::error::Elapsed;

use super::super::denials::Denials;

/// What became of a message that was sent.
pub(super) enum Ack {
    Stored,
    Error(PublishError),
    Late,
    Denied,
}

impl Ack {
    pub(super) fn of(answer: Result<PublishAck, PublishError>) -> Self {
        match answer {
            Ok(_) => Self::Stored,
            Err(error) if error.kind() == PublishErrorKind::TimedOut => Self::Late,
            Err(error) => Self::Error(error),
        }
    }
}

/// Why this message will never be stored, if that is so.
pub(super) fn is_refused(error: &PublishError, subject: &str) -> Option<String> {
    let code = error.source().and_then(|source| source.downcast_ref::<async_nats::jetstream::Error>());
    let why = match (error.kind(), code.map(async_nats::jetstream::Error::error_code)) {
        (PublishErrorKind::MaxPayloadExceeded, _) => {
            "the message is larger than the server takes (max_payload)"
        }
        (_, Some(ErrorCode::STREAM_MESSAGE_EXCEEDS_MAXIMUM)) => "the message is larger than its stream takes",
        (_, Some(ErrorCode::STREAM_HEADER_EXCEEDS_MAXIMUM)) => "the message's headers are too large",
        (_, Some(ErrorCode::STREAM_SEALED)) => "its stream is sealed and takes nothing any more",
        _ => return None,
    };
    Some(format!("{subject}: {why}: {error}"))
}

/// What the server complains about from now on.
pub(super) struct Complaints {
    denials: Denials,
    news: watch::Receiver<()>,
}

impl Complaints {
    pub(super) fn heard_by(denials: &Denials) -> Self {
        Self { denials: denials.clone(), news: denials.news() }
    }

    /// The answer to a message that was sent after `since`, or that its subject is forbidden.
    pub(super) async fn answer(
        &mut self,
        subject: &str,
        since: Instant,
        answer: impl Future<Output = Result<Ack, Elapsed>>,
    ) -> Ack {
        tokio::pin!(answer);
        // The complaint may have come while another answer was awaited.
        while !self.denials.is_denied(subject, since) {
            tokio::select! {
                biased;
                answer = &mut answer => return answer.unwrap_or(Ack::Late),
                // The sender lives in `denials`.
                _ = self.news.changed() => {}
            }
        }
        Ack::Denied
    }
}
