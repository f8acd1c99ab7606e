//! Locks in a KV bucket: a key exists while a caller has the lock.
//!
//! A lock ends by itself after [`LIFE`], so that the lock of a dead holder does not stay for ever. So a holder
//! cannot be sure of its lock: one that was suspended for longer has lost it and does not know. So each lock names its revision, which
//! rises with every holder, and a write under the lock succeeds only if the row is still as the holder read it.
//!
//! The client library can take a key that was deleted, but forgets the lifetime then; so keys are written here as the
//! bucket stores them.

use std::sync::Arc;
use std::time::Duration;

use anyhow::bail;
use async_nats::jetstream::context::PublishErrorKind;
use async_nats::jetstream::kv::{Config, Operation, Store};
use async_nats::jetstream::message::PublishMessage;
use tokio::time::{Instant, sleep};

use super::cost::Cost;
use boxoffice::bus::{Bus, subjects};

/// How long a lock stays if its holder does not give it back. The server counts in whole seconds.
pub const LIFE: Duration = Duration::from_secs(2);
/// How long a lock is waited for.
const PATIENCE: Duration = Duration::from_secs(30);
/// The pause before asking for a lock again: the first one, and the longest. Each is shortened by chance.
const FIRST_PAUSE: Duration = Duration::from_millis(1);
const LONGEST_PAUSE: Duration = Duration::from_millis(64);

/// The bucket.
#[derive(Debug)]
pub struct Locks {
    bus: Bus,
    store: Store,
    cost: Arc<Cost>,
}

/// A lock that was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    key: i32,
    /// Higher than the revisions of all earlier holders.
    pub revision: u64,
}

impl Locks {
    /// Makes the bucket anew.
    pub(super) async fn open(bus: &Bus, cost: Arc<Cost>) -> anyhow::Result<Self> {
        // Left by a run that was killed; usually there is none.
        let _deleted = bus.jetstream.delete_key_value(subjects::RIVAL_LOCKS).await;
        let config = Config {
            bucket: subjects::RIVAL_LOCKS.to_owned(),
            history: 1,
            num_replicas: bus.replicas,
            limit_markers: Some(LIFE),
            ..Config::default()
        };
        let store = bus.jetstream.create_key_value(config).await?;
        Ok(Self { bus: bus.clone(), store, cost })
    }

    /// Waits for a lock and takes it.
    pub async fn take(&self, key: i32) -> anyhow::Result<Held> {
        let (end, mut pause) = (Instant::now() + PATIENCE, FIRST_PAUSE);
        loop {
            if let Some(held) = self.try_to_take(key).await? {
                return Ok(held);
            }
            if Instant::now() >= end {
                bail!("a lock was not to be had within {} s", PATIENCE.as_secs());
            }
            sleep(pause.mul_f64(rand::random_range(0.5..=1.0))).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Takes a lock if it is free.
    pub async fn try_to_take(&self, key: i32) -> anyhow::Result<Option<Held>> {
        self.cost.messaged();
        let revision = match self.store.entry(key.to_string()).await? {
            Some(entry) if entry.operation == Operation::Put => return Ok(None),
            Some(entry) => entry.revision,
            None => 0,
        };
        self.cost.messaged();
        let message = PublishMessage::build().ttl(LIFE).expected_last_subject_sequence(revision);
        let sent = self.bus.jetstream.send_publish(subjects::rival_lock(&key.to_string()), message).await?;
        match sent.await {
            Ok(stored) => Ok(Some(Held { key, revision: stored.sequence })),
            // Another caller took it first.
            Err(error) if error.kind() == PublishErrorKind::WrongLastSequence => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Gives a lock back; nothing happens if it is lost already.
    pub async fn give_back(&self, held: Held) {
        self.cost.messaged();
        let deleted = self.store.delete_expect_revision(held.key.to_string(), Some(held.revision)).await;
        if let Err(error) = deleted {
            tracing::debug!(%error, "a lock was not given back: it is lost, or ends by itself");
        }
    }

    /// Deletes the bucket.
    pub(super) async fn discard(&self) -> anyhow::Result<()> {
        self.bus.jetstream.delete_key_value(subjects::RIVAL_LOCKS).await?;
        Ok(())
    }
}
