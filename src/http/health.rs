//! Whether this instance is alive, and whether requests should be sent to it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_nats::connection::State as Connection;
use sqlx::PgPool;
use tokio::time::{Instant, timeout};

use crate::store;

/// How long NATS may be away before requests should go elsewhere: a reconnect takes less.
const NATS_PATIENCE: Duration = Duration::from_secs(10);
/// How long Postgres may take to say what time it is.
const POSTGRES_PATIENCE: Duration = Duration::from_secs(2);

/// Watches the connection to NATS. Clones watch the same one.
#[derive(Clone)]
pub struct Health {
    nats: async_nats::Client,
    connected_at: Arc<Mutex<Instant>>,
}

impl Health {
    /// Watches this connection from now on.
    pub fn new(nats: async_nats::Client) -> Self {
        Self { nats, connected_at: Arc::new(Mutex::new(Instant::now())) }
    }

    /// Notes whether NATS is there; to be called every second or so.
    pub fn look(&self) {
        self.nats_away();
    }

    /// What is wrong, in words for an operator; nothing if all is well.
    pub async fn complaints(&self, pool: &PgPool, line_is_known: bool) -> Vec<&'static str> {
        let postgres = timeout(POSTGRES_PATIENCE, store::now(pool)).await;
        let found = [
            (!matches!(postgres, Ok(Ok(_))), "Postgres does not answer"),
            (self.nats_away() >= NATS_PATIENCE, "NATS has been away for 10 seconds or more"),
            (!line_is_known, "the waiting room has not been read from NATS yet"),
        ];
        found.into_iter().filter(|(wrong, _)| *wrong).map(|(_, words)| words).collect()
    }

    /// For how long NATS has been away.
    fn nats_away(&self) -> Duration {
        let mut connected_at = self.connected_at.lock().unwrap_or_else(PoisonError::into_inner);
        if self.nats.connection_state() == Connection::Connected {
            *connected_at = Instant::now();
        }
        connected_at.elapsed()
    }
}
