//! The streams, consumers and the bucket: one table, made at start-up and made again when they are missing.

use std::time::Duration;

use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, pull};
use async_nats::jetstream::context::CreateStreamErrorKind;
use async_nats::jetstream::stream::{Config, DiscardPolicy, RetentionPolicy, StorageType};
use async_nats::jetstream::{ErrorCode, consumer, stream};

use super::{Bus, incarnation, subjects};
use crate::clock::Clock;

/// How long a delivered message may stay unacknowledged before it is delivered again: what a process that died had in
/// hand goes on elsewhere after so long. Who is slower than this does some work twice, which the fence makes harmless.
pub const ACK_WAIT: Duration = Duration::from_secs(3);
/// How long a command or a reply may lie: services elsewhere may forget their outcomes later. What is still asked for by
/// then is sent again by the sweeper.
pub const WORK_AGE: Duration = Duration::from_secs(7 * 24 * 3600);
/// Deliveries without an acknowledgement before the server gives up on a message, which is then kept for an operator.
/// Whoever takes messages asks for none while the database is away, so what comes so often ends every process that
/// tries it: twenty are enough to be sure, and within two minutes. Giving up too early would cost an operator's retry
/// and no effect: the fence holds.
const MAX_DELIVER: i64 = 20;

/// What is wrong with the topology, and with which part of it.
#[derive(Debug, thiserror::Error)]
#[error("JetStream refused {what}: {reason}")]
pub struct TopologyError {
    what: String,
    reason: String,
    /// It cannot be made as long as an operator changes nothing.
    pub is_permanent: bool,
}

/// The streams. `STEPS`, `SAGAS` and `TIMERS` are work queues: an acknowledged message is gone.
pub fn streams(replicas: usize) -> Vec<Config> {
    let work = |name: &str, subjects: &[&str]| Config {
        name: name.to_owned(),
        subjects: subjects.iter().map(ToString::to_string).collect(),
        retention: RetentionPolicy::WorkQueue,
        storage: StorageType::File,
        discard: DiscardPolicy::New,
        num_replicas: replicas,
        duplicate_window: Duration::from_secs(120),
        ..Config::default()
    };
    let given_up = [subjects::STEPS, subjects::SAGAS, subjects::TIMERS].map(subjects::given_up);
    vec![
        Config {
            description: text("step commands to workers, until they are done or too old"),
            max_age: WORK_AGE,
            ..work(subjects::STEPS, &[subjects::ALL_STEPS])
        },
        Config {
            description: text("replies and signals to the orchestrator, until they are taken or too old"),
            max_age: WORK_AGE,
            ..work(subjects::SAGAS, &[subjects::ALL_SAGAS])
        },
        Config {
            description: text("schedules, and the alarms they become"),
            // The server wants it so for schedules; there is no limit that could make it discard any.
            discard: DiscardPolicy::Old,
            allow_message_schedules: true,
            allow_message_ttl: true,
            ..work(subjects::TIMERS, &[subjects::ALL_TIMERS])
        },
        Config {
            description: text("what the server says about messages that it gave up on"),
            max_age: WORK_AGE,
            ..work(subjects::UNDELIVERED, &given_up.each_ref().map(String::as_str))
        },
        Config {
            description: text("domain events for other systems, kept seven days"),
            retention: RetentionPolicy::Limits,
            discard: DiscardPolicy::Old,
            max_age: Duration::from_secs(7 * 24 * 3600),
            max_bytes: 4 << 30,
            ..work(subjects::EVENTS, &[subjects::ALL_EVENTS])
        },
    ]
}

/// The stream of the probe: one message, replaced by the next.
pub fn health(replicas: usize) -> Config {
    Config {
        name: subjects::HEALTH.to_owned(),
        description: text("the last message by which a process found out whether JetStream works"),
        subjects: vec![subjects::PROBE.to_owned()],
        storage: StorageType::File,
        discard: DiscardPolicy::Old,
        max_messages: 1,
        num_replicas: replicas,
        ..Config::default()
    }
}

/// The stream beneath the bucket of the places in line. `first` is the revision with which a new one begins.
pub fn bucket(replicas: usize, first: Option<u64>) -> Config {
    Config {
        name: subjects::QUEUE_TOKENS_STREAM.to_owned(),
        description: text("places in line, one key per concert and user; the lease of the admission leader"),
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

/// A durable pull consumer that a loop shares with its like on other instances.
pub fn work_consumer(name: &str, filter: &str) -> pull::Config {
    pull::Config {
        durable_name: Some(name.to_owned()),
        filter_subject: filter.to_owned(),
        ack_policy: AckPolicy::Explicit,
        ack_wait: ACK_WAIT,
        max_deliver: MAX_DELIVER,
        max_ack_pending: 4_096,
        deliver_policy: DeliverPolicy::All,
        ..pull::Config::default()
    }
}

/// The durable consumer of one command, shared by all who serve it: it can be paused alone.
pub fn command_consumer(command: &str) -> pull::Config {
    work_consumer(&subjects::consumer(command), &subjects::step(command))
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
    let handle = bus.jetstream.get_stream_no_info(stream).await;
    let handle = handle.map_err(|error| refused("stream", stream, &error))?;
    match handle.get_consumer(&name).await {
        Ok(found) => Ok(found),
        Err(_) => {
            let made = handle.create_consumer(config).await;
            made.map_err(|error| refused("consumer", &name, &error))
        }
    }
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

fn text(words: &str) -> Option<String> {
    Some(words.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_kept_by_age_whoever_listens_and_work_until_it_is_done() {
        for stream in streams(1) {
            let events = stream.name == subjects::EVENTS;
            // A consumer that sleeps must neither keep events for ever nor make publishing fail.
            assert_eq!(stream.retention == RetentionPolicy::Limits, events, "{}", stream.name);
            assert_eq!(stream.max_bytes > 0, events, "{}", stream.name);
            // An alarm may be set for any time.
            assert_eq!(stream.max_age > Duration::ZERO, stream.name != subjects::TIMERS, "{}", stream.name);
            assert!(!events || stream.discard == DiscardPolicy::Old);
        }
    }
}
