//! What the suite finds and makes on the server: streams, announcements of workers, consumers.

use std::time::Duration;

use async_nats::Client;
use async_nats::jetstream::consumer::{AckPolicy, Info as Consumer, pull};
use async_nats::jetstream::context::GetStreamErrorKind;
use async_nats::jetstream::stream::Stream;
use async_nats::jetstream::{self, ErrorCode};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use saga_protocol::presence::{self, Info, WorkerSeen};
use saga_protocol::{subjects, topology};
use tokio::time::{Instant, sleep, timeout_at};

/// How long to wait for another announcement after the last one: their number is not known.
const QUIET: Duration = Duration::from_millis(300);
/// The pause between two looks for the worker and its consumers.
const LOOK_INTERVAL: Duration = Duration::from_millis(300);
/// The engine makes the consumers of an announced worker within this time, if the worker may not.
const CONSUMER_TIMEOUT: Duration = Duration::from_secs(12);

/// How many replies are taken off their stream at a time.
const PURGE_BATCH: usize = 256;

/// The suite cannot go on: the fault is not the worker's.
#[derive(Debug, thiserror::Error)]
#[error("{what} failed: {reason}")]
pub struct SuiteError {
    what: String,
    reason: String,
}

/// The error of something that was tried on NATS.
pub(crate) fn failed<E: std::fmt::Display>(what: &str) -> impl FnOnce(E) -> SuiteError {
    move |error| SuiteError { what: what.to_owned(), reason: error.to_string() }
}

/// Finds the streams of commands and replies, or makes those that are missing. Gives the stream of commands, and the names of
/// those that were made.
pub(crate) async fn streams(jetstream: &jetstream::Context) -> Result<(Stream, Vec<String>), SuiteError> {
    let mut made = Vec::new();
    let wanted = [subjects::STEPS, subjects::SAGAS];
    for config in topology::streams(1).into_iter().filter(|config| wanted.contains(&config.name.as_str())) {
        let missing = match jetstream.get_stream(&config.name).await {
            Ok(_) => false,
            Err(error) => match error.kind() {
                GetStreamErrorKind::JetStream(why) if why.error_code() == ErrorCode::STREAM_NOT_FOUND => true,
                _ => return Err(failed("looking for the streams")(error)),
            },
        };
        if missing {
            made.push(config.name.clone());
            jetstream.create_stream(config).await.map_err(failed("making a stream"))?;
        }
    }
    let steps = jetstream.get_stream(subjects::STEPS).await.map_err(failed("looking for the streams"))?;
    Ok((steps, made))
}

/// The workers that announce a command, waited for until one does.
pub(crate) async fn workers(
    client: &Client,
    command: &str,
    limit: Duration,
) -> Result<Vec<WorkerSeen>, SuiteError> {
    let end = Instant::now() + limit;
    loop {
        let present = presence::joined(announcements(client).await?, Vec::new());
        let serving: Vec<WorkerSeen> = presence::served_by(&present, command).into_iter().cloned().collect();
        if !serving.is_empty() || Instant::now() > end {
            return Ok(serving);
        }
        sleep(LOOK_INTERVAL).await;
    }
}

async fn announcements(client: &Client) -> Result<Vec<(Info, Duration)>, SuiteError> {
    let what = "asking for announcements";
    let inbox = client.new_inbox();
    let mut answers = client.subscribe(inbox.clone()).await.map_err(failed(what))?;
    let asked = client.publish_with_reply(subjects::SERVICES_INFO, inbox, Bytes::new()).await;
    asked.map_err(failed(what))?;
    let begun = Instant::now();
    let mut found = Vec::new();
    while let Ok(Some(answer)) = timeout_at(Instant::now() + QUIET, answers.next()).await {
        // A status is the server's answer that no service listens.
        if answer.status.is_some() {
            break;
        }
        found.extend(serde_json::from_slice(&answer.payload).ok().map(|info| (info, begun.elapsed())));
    }
    Ok(found)
}

/// The consumer of a command. One that is missing is waited for, and then made as the engine makes it.
pub(crate) async fn consumer(steps: &Stream, command: &str) -> Result<(Consumer, bool), SuiteError> {
    let (subject, end) = (subjects::step(command), Instant::now() + CONSUMER_TIMEOUT);
    loop {
        let all: Vec<Consumer> =
            steps.consumers().try_collect().await.map_err(failed("listing the consumers of STEPS"))?;
        let takes = |consumer: &Consumer| {
            let config = &consumer.config;
            let all = config.filter_subjects.iter().chain([&config.filter_subject]);
            let mut filters = all.filter(|filter| !filter.is_empty()).peekable();
            filters.peek().is_none() || filters.any(|filter| subjects::covers(filter, &subject))
        };
        if let Some(found) = all.into_iter().find(takes) {
            return Ok((found, false));
        }
        if Instant::now() > end {
            let made = steps.create_consumer::<pull::Config>(topology::command_consumer(command)).await;
            let made = made.map_err(failed("making the consumer of a command"))?;
            return Ok((made.cached_info().clone(), true));
        }
        sleep(LOOK_INTERVAL).await;
    }
}

/// What is wrong with the consumer of a command.
pub(crate) fn consumer_problem(consumer: &Consumer) -> Option<String> {
    let config = &consumer.config;
    let name = &consumer.name;
    if config.ack_policy != AckPolicy::Explicit {
        return Some(format!(
            "the consumer {name} does not ask for explicit acknowledgements: a crash loses commands"
        ));
    }
    (config.max_deliver == 1)
        .then(|| format!("the consumer {name} delivers a command only one time: a crash loses commands"))
}

/// Takes the replies of a service about made-up sagas off their stream, if no engine takes them. A consumer for them can be made
/// only then.
pub(crate) async fn purge_replies(jetstream: &jetstream::Context, subject: &str) -> Result<(), SuiteError> {
    let what = "taking the replies off their stream";
    let stream = jetstream.get_stream(subjects::SAGAS).await.map_err(failed(what))?;
    let name = format!("worker-test-{}", subject.replace('.', "-"));
    let config = topology::work_consumer(&name, subject);
    let Ok(consumer) = stream.create_consumer::<pull::Config>(config).await else { return Ok(()) };
    loop {
        let batch = consumer.fetch().max_messages(PURGE_BATCH).messages().await.map_err(failed(what))?;
        let messages: Vec<_> = batch.collect().await;
        for message in messages.iter().flatten() {
            message.ack().await.map_err(failed(what))?;
        }
        if messages.len() < PURGE_BATCH {
            break;
        }
    }
    stream.delete_consumer(&name).await.map(drop).map_err(failed(what))
}
