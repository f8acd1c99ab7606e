//! What the service publishes on core NATS, with the time of receipt.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use chrono::{DateTime, Utc};
use futures::StreamExt;
use tokio::task::JoinHandle;
use uuid::Uuid;

use boxoffice::bus::events::read_events;
use boxoffice::bus::messages::Transition;
use boxoffice::bus::{Bus, subjects};
use boxoffice::clock::Clock;

type Heard = Arc<Mutex<BTreeMap<Uuid, DateTime<Utc>>>>;

/// Records when the first matching message of each saga came. Dropping it ends the subscription.
#[derive(Debug)]
pub(super) struct Watch {
    heard: Heard,
    listening: JoinHandle<()>,
}

impl Watch {
    /// Listens for transitions of which `matches` says yes.
    pub(super) async fn transitions(
        bus: &Bus,
        clock: &Clock,
        matches: impl Fn(&Transition) -> bool + Send + 'static,
    ) -> anyhow::Result<Self> {
        let read = move |payload: &[u8]| {
            let transitions: Vec<Transition> = serde_json::from_slice(payload).ok()?;
            Some(transitions.iter().filter(|one| matches(one)).map(|one| one.saga_id).collect())
        };
        Self::start(bus, clock, subjects::transitions(None), read).await
    }

    /// Listens for a domain event; what it is about is taken for the saga, as with bookings.
    pub(super) async fn event(bus: &Bus, clock: &Clock, name: &str) -> anyhow::Result<Self> {
        let read = |payload: &[u8]| {
            let events = read_events(payload).ok()?;
            Some(events.into_iter().map(|event| event.subject_id).collect())
        };
        Self::start(bus, clock, subjects::event(name), read).await
    }

    async fn start(
        bus: &Bus,
        clock: &Clock,
        subject: String,
        read: impl Fn(&[u8]) -> Option<Vec<Uuid>> + Send + 'static,
    ) -> anyhow::Result<Self> {
        let heard = Heard::default();
        let mut messages = bus.client.subscribe(subject).await?;
        bus.client.flush().await?;
        let (kept, clock) = (Arc::clone(&heard), clock.clone());
        let listening = tokio::spawn(async move {
            while let Some(message) = messages.next().await {
                let now = clock.now();
                for saga in read(&message.payload).unwrap_or_default() {
                    locked(&kept).entry(saga).or_insert(now);
                }
            }
        });
        Ok(Self { heard, listening })
    }

    /// When a saga was heard of.
    pub(super) fn of(&self, saga: Uuid) -> Option<DateTime<Utc>> {
        locked(&self.heard).get(&saga).copied()
    }

    /// How many sagas were heard of.
    pub(super) fn count(&self) -> usize {
        locked(&self.heard).len()
    }

    /// All of them.
    pub(super) fn all(&self) -> BTreeMap<Uuid, DateTime<Utc>> {
        locked(&self.heard).clone()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.listening.abort();
    }
}

/// Each change to the map is a single step, so a panic elsewhere leaves it good.
fn locked(heard: &Heard) -> MutexGuard<'_, BTreeMap<Uuid, DateTime<Utc>>> {
    heard.lock().unwrap_or_else(PoisonError::into_inner)
}
