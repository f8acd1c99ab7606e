//! Whether JetStream does its work: every few seconds it has to store a message and give it back.
//!
//! A connection that stands says little: the server may be frozen, its disk full, its JetStream off, or too few servers of
//! a cluster there. The message lies on a stream of its own that keeps only the last one.

use std::time::Duration;

use async_nats::jetstream::ErrorCode;
use async_nats::jetstream::context::{
    AccountErrorKind, CreateStreamErrorKind, PublishError, PublishErrorKind,
};
use bytes::Bytes;
use fail::fail_point;
use tokio::time::{Instant, MissedTickBehavior, timeout};
use tokio_util::sync::CancellationToken;

use super::health::Problem;
use super::{Bus, subjects, topology};

/// How often it is asked.
const PROBE_INTERVAL: Duration = Duration::from_secs(3);
/// How long a write and a read may take.
const PROBE_TIMEOUT: Duration = Duration::from_secs(3);

/// Larger than a page of a file: a smaller message would still fit into what a file of a full disk already has.
const MESSAGE: Bytes = Bytes::from_static(&[0; 8 << 10]);

const CONNECT: &str = "look whether nats-server runs and whether this machine reaches it";
/// What to do about a server or a cluster whose JetStream does not answer.
pub const FROZEN: &str = "look at the load of nats-server and of its disk; in a cluster see that most of its servers run; \
                      restart a server that does not answer, or whose log says that JetStream was disabled";
/// What to do about a server whose JetStream is off.
pub const OFF: &str = "nats-server switches JetStream off when its disk is full or fails, and does not switch it on again: \
                   make room on the disk of its store_dir, then restart nats-server";
/// What to do where JetStream runs, but not for this user.
pub const OFF_FOR_ACCOUNT: &str = "switch JetStream on for the account of this user (`jetstream: enabled` in the configuration of nats-server)";
const FULL: &str = "make room on the disk of nats-server's store_dir or raise its limits (max_file_store); if its log says \
                    that JetStream was disabled, restart nats-server after that";
const DENIED: &str = "let this user publish to health.jetstream and to $JS.API.STREAM.MSG.GET.HEALTH";
const OTHER: &str = "look at the log of nats-server";

/// Probes until the process stops.
pub async fn run(bus: Bus, stop: CancellationToken) {
    let mut tick = tokio::time::interval(PROBE_INTERVAL);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while stop.run_until_cancelled(tick.tick()).await.is_some() {
        fail_point!("probe::begin");
        let begun = Instant::now();
        if let Some(result) = stop.run_until_cancelled(probe(&bus)).await {
            bus.health.record(begun, result);
        }
    }
}

/// One write and one read.
///
/// # Errors
/// What is wrong, and what can be done about it.
pub async fn probe(bus: &Bus) -> Result<(), Problem> {
    if !bus.is_connected() {
        return Err(Problem { found: "NATS cannot be reached".to_owned(), advice: CONNECT });
    }
    let begun = Instant::now();
    timeout(PROBE_TIMEOUT, write_and_read(bus)).await.unwrap_or_else(|_elapsed| {
        if bus.denials.is_denied(subjects::PROBE, begun) {
            let found = format!("NATS does not let this user publish to {}", subjects::PROBE);
            return Err(Problem { found, advice: DENIED });
        }
        let found = format!("JetStream did not store a message and give it back within {PROBE_TIMEOUT:?}");
        Err(Problem { found, advice: FROZEN })
    })
}

async fn write_and_read(bus: &Bus) -> Result<(), Problem> {
    let written = match write(bus).await {
        Err(error) if error.kind() == PublishErrorKind::StreamNotFound => {
            make_stream(bus).await?;
            write(bus).await
        }
        written => written,
    };
    let sequence = written.map_err(|error| refused(&error))?;
    let unreadable =
        |reason: String| Problem { found: format!("JetStream cannot be read: {reason}"), advice: OTHER };
    let stream = bus.jetstream.get_stream_no_info(subjects::HEALTH).await;
    let stream = stream.map_err(|error| unreadable(error.to_string()))?;
    let last = stream.get_last_raw_message_by_subject(subjects::PROBE).await;
    let last = last.map_err(|error| unreadable(error.to_string()))?;
    if last.sequence < sequence {
        return Err(unreadable(format!("message {sequence} was acknowledged and is not there")));
    }
    Ok(())
}

/// Makes the stream of the message. A cluster without a quorum has it, and no server of it answers for it.
async fn make_stream(bus: &Bus) -> Result<(), Problem> {
    let made = bus.jetstream.create_or_update_stream(topology::health(bus.replicas)).await;
    let Err(error) = made else { return Ok(()) };
    let advice = match error.kind() {
        CreateStreamErrorKind::TimedOut => FROZEN,
        CreateStreamErrorKind::JetStream(answer) => advice(answer.error_code()),
        // No server takes the request. Whether JetStream is off for this account alone is answered all the same.
        _ => match bus.jetstream.query_account().await.map_err(|error| error.kind()) {
            Err(AccountErrorKind::JetStream(answer)) => advice(answer.error_code()),
            _ => OFF,
        },
    };
    Err(Problem {
        found: format!("JetStream stores nothing: the stream HEALTH cannot be made: {error}"),
        advice,
    })
}

/// What to do about an error that JetStream has answered.
fn advice(code: ErrorCode) -> &'static str {
    match code {
        ErrorCode::JETSTREAM_NOT_ENABLED => OFF,
        ErrorCode::JETSTREAM_NOT_ENABLED_FOR_ACCOUNT => OFF_FOR_ACCOUNT,
        ErrorCode::CLUSTER_NOT_AVAILABLE | ErrorCode::CLUSTER_NO_PEERS => FROZEN,
        _ => FULL,
    }
}

async fn write(bus: &Bus) -> Result<u64, PublishError> {
    Ok(bus.jetstream.publish(subjects::PROBE, MESSAGE).await?.await?.sequence)
}

fn refused(error: &PublishError) -> Problem {
    let code = std::error::Error::source(error)
        .and_then(|source| source.downcast_ref::<async_nats::jetstream::Error>())
        .map(async_nats::jetstream::Error::error_code);
    let advice = match (error.kind(), code) {
        (PublishErrorKind::TimedOut, _) => FROZEN,
        (PublishErrorKind::StreamNotFound, _) => OFF,
        (_, Some(code)) => advice(code),
        _ => OTHER,
    };
    Problem { found: format!("JetStream stores nothing: {error}"), advice }
}
