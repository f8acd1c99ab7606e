//! Waiting for a saga to settle: a message wakes the caller; the row, read once more, has the last word.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use async_nats::Subscriber;
use futures::StreamExt;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::bus::messages::Settled;

type Waits = HashMap<Uuid, Vec<Arc<Notify>>>;

/// Who waits for which saga on this instance.
#[derive(Clone, Debug, Default)]
pub(crate) struct Waiters {
    waits: Arc<Mutex<Waits>>,
}

/// A registered wait; it ends when it is dropped.
#[derive(Debug)]
pub struct Waiting {
    saga: Uuid,
    notify: Arc<Notify>,
    waiters: Waiters,
}

impl Waiters {
    fn locked(&self) -> std::sync::MutexGuard<'_, Waits> {
        // A panic elsewhere leaves the map usable: each change to it is a single step.
        self.waits.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Registers before the commit whose outcome is waited for, so that no message can be missed.
    pub(crate) fn register(&self, saga: Uuid) -> Waiting {
        let notify = Arc::new(Notify::new());
        self.locked().entry(saga).or_default().push(Arc::clone(&notify));
        Waiting { saga, notify, waiters: self.clone() }
    }

    /// Wakes the callers of this process that wait for one of these sagas.
    pub(crate) fn wake(&self, sagas: &[Uuid]) {
        let waits = self.locked();
        for notify in sagas.iter().filter_map(|saga| waits.get(saga)).flatten() {
            notify.notify_one();
        }
    }
}

impl Waiting {
    /// Returns when the saga may have settled since the last call.
    pub async fn changed(&self) {
        self.notify.notified().await;
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let mut waits = self.waiters.locked();
        if let Some(others) = waits.get_mut(&self.saga) {
            others.retain(|other| !Arc::ptr_eq(other, &self.notify));
            if others.is_empty() {
                waits.remove(&self.saga);
            }
        }
    }
}

/// Listens for sagas that settled on any instance.
pub(super) async fn listen(waiters: Waiters, mut settled: Subscriber, stop: CancellationToken) {
    while let Some(Some(message)) = stop.run_until_cancelled(settled.next()).await {
        match serde_json::from_slice::<Settled>(&message.payload) {
            Ok(settled) => waiters.wake(&settled.sagas),
            Err(error) => tracing::warn!(%error, "a message about settled sagas is malformed"),
        }
    }
}
