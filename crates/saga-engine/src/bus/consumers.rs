//! Who takes a command from the stream, how far behind, and pausing it: one consumer per command makes a step type
//! one thing to pause everywhere.
//!
//! The server keeps a pause, also when the consumer is brought up to date, and ends it at its time. A message that
//! was delivered before is still worked on. A pause does not stop a hold's clock.

use async_nats::jetstream::stream::{self, ConsumerErrorKind};
use async_nats::jetstream::{ErrorCode, consumer};
use chrono::{DateTime, Utc};
use futures::TryStreamExt;

use super::{Bus, subjects};

/// A consumer of step commands as it stands now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsumerState {
    pub name: String,
    /// The subjects it wants, with commas between them; it may cover more than one command.
    pub filter: String,
    /// Messages that were not delivered yet.
    pub pending: u64,
    /// Messages that were delivered and are not acknowledged yet.
    pub ack_pending: usize,
    /// Those of them that were delivered more than once.
    pub redelivered: usize,
    /// Requests for messages that are open: a worker is ready.
    pub waiting: usize,
    /// The end of its pause, if it is paused.
    pub paused_until: Option<DateTime<Utc>>,
}

impl ConsumerState {
    /// Whether it takes this command, perhaps among others.
    pub fn takes(&self, command: &str) -> bool {
        let subject = subjects::step(command);
        self.filter.split(", ").any(|filter| subjects::covers(filter, &subject))
    }
}

/// Why a consumer could not be looked at or changed.
#[derive(Debug, thiserror::Error)]
pub enum ConsumersError {
    #[error("the stream {stream} has no consumer {name}")]
    NoConsumer { stream: &'static str, name: String },
    #[error("JetStream did not answer about the consumers of {stream}: {reason}")]
    Unavailable { stream: &'static str, reason: String },
}

/// The consumers that take this command. Another program may have made them, and they may take more than it. None: no worker
/// has ever served it.
pub async fn of_command(bus: &Bus, command: &str) -> Result<Vec<ConsumerState>, ConsumersError> {
    Ok(all(bus).await?.into_iter().filter(|state| state.takes(command)).collect())
}

/// All consumers of step commands.
pub async fn all(bus: &Bus) -> Result<Vec<ConsumerState>, ConsumersError> {
    let found: Result<Vec<consumer::Info>, _> = steps(bus).await?.consumers().try_collect().await;
    Ok(found.map_err(|error| unavailable(&error))?.into_iter().map(state).collect())
}

/// Pauses a consumer of step commands until a time: nothing is delivered by it. In place of an earlier pause.
pub async fn pause(bus: &Bus, name: &str, until: DateTime<Utc>) -> Result<(), ConsumersError> {
    let answer = steps(bus).await?.pause_consumer(name, until).await;
    answer.map(drop).map_err(|error| refused(name, &error))
}

/// Ends the pause of a consumer of step commands; one that is not paused stays as it is.
pub async fn resume(bus: &Bus, name: &str) -> Result<(), ConsumersError> {
    let answer = steps(bus).await?.resume_consumer(name).await;
    answer.map(drop).map_err(|error| refused(name, &error))
}

async fn steps(bus: &Bus) -> Result<stream::Stream<()>, ConsumersError> {
    bus.jetstream.get_stream_no_info(subjects::STEPS).await.map_err(|error| unavailable(&error))
}

fn state(info: consumer::Info) -> ConsumerState {
    let consumer::Config { filter_subject, filter_subjects, pause_until, .. } = info.config;
    let one = Some(filter_subject).filter(|filter| !filter.is_empty());
    let filters: Vec<String> = one.into_iter().chain(filter_subjects).collect();
    ConsumerState {
        name: info.name,
        filter: filters.join(", "),
        pending: info.num_pending,
        ack_pending: info.num_ack_pending,
        redelivered: info.num_redelivered,
        waiting: info.num_waiting,
        // The time of a pause that is over stays in the settings.
        paused_until: pause_until.filter(|_| info.paused),
    }
}

fn unavailable(error: &impl std::fmt::Display) -> ConsumersError {
    ConsumersError::Unavailable { stream: subjects::STEPS, reason: error.to_string() }
}

fn refused(name: &str, error: &stream::ConsumerError) -> ConsumersError {
    match error.kind() {
        ConsumerErrorKind::JetStream(reason) if reason.error_code() == ErrorCode::CONSUMER_NOT_FOUND => {
            ConsumersError::NoConsumer { stream: subjects::STEPS, name: name.to_owned() }
        }
        _ => unavailable(error),
    }
}
