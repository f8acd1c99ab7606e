//! The settings of the engine's streams and consumers. Their names are in [`crate::subjects`].

use std::time::Duration;

use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, pull};
use async_nats::jetstream::stream::{Config, DiscardPolicy, RetentionPolicy, StorageType};

use crate::subjects;

/// How long a delivered message may stay unacknowledged before it is delivered again. After this time another process takes over
/// the messages of one that died. A slower process does some work twice, which the fence makes harmless.
pub const ACK_WAIT: Duration = Duration::from_secs(3);
/// How long a stream keeps a command or a reply. A service must keep its outcomes for longer. The sweeper sends a command again that
/// the saga still asks for by then.
pub const WORK_AGE: Duration = Duration::from_secs(7 * 24 * 3600);
/// Deliveries without an acknowledgement before the server gives up on a message. The engine then keeps the message for an operator.
/// A receiver asks for no messages while its database is away, so a message that comes this often ends every process that tries
/// it. Twenty deliveries take about two minutes. Giving up too early costs an operator's retry and no effect: the fence holds.
const MAX_DELIVER: i64 = 20;

/// The streams, each with so many copies. `STEPS`, `SAGAS` and `TIMERS` are work queues: an acknowledged message is gone.
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

/// The stream by which a process finds out whether JetStream works: one message, replaced by the next.
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

/// A durable pull consumer that all instances share.
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

fn text(words: &str) -> Option<String> {
    Some(words.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_kept_by_age_work_until_done() {
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
