//! Whether requests should be sent to this instance.

use std::sync::Arc;
use std::time::Duration;

use sqlx::PgPool;
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::background::Tasks;
use crate::bus;
use crate::store;

/// How long an answer of Postgres is used again: however often `/readyz` is asked, Postgres is asked once a second.
const POSTGRES_MAX_AGE: Duration = Duration::from_secs(1);

/// What an instance needs to do its work. Clones look at the same.
#[derive(Clone)]
pub struct Health {
    jetstream: bus::health::Health,
    tasks: Tasks,
    postgres: Arc<Mutex<Option<Written>>>,
}

/// When Postgres was last written, and what was wrong then.
struct Written {
    at: Instant,
    complaint: Option<String>,
}

impl Health {
    /// Looks at JetStream, as it is probed, and at the tasks of the process.
    pub fn new(jetstream: bus::health::Health, tasks: Tasks) -> Self {
        Self { jetstream, tasks, postgres: Arc::default() }
    }

    /// What is wrong, in words for an operator; nothing if all is well.
    pub async fn complaints(&self, pool: &PgPool, line_is_known: bool) -> Vec<String> {
        let mut complaints = Vec::new();
        complaints.extend(self.postgres(pool).await);
        if let Some(problem) = self.jetstream.problem() {
            complaints.push(format!("{} ({})", problem.found, problem.advice));
        }
        if !line_is_known {
            complaints.push("the waiting room has not been read from NATS yet".to_owned());
        }
        if let Some(task) = self.tasks.dead() {
            complaints.push(format!("the background task \"{task}\" is dead; this process ends"));
        }
        complaints
    }

    async fn postgres(&self, pool: &PgPool) -> Option<String> {
        let mut last = self.postgres.lock().await;
        if let Some(written) = last.as_ref().filter(|written| written.at.elapsed() < POSTGRES_MAX_AGE) {
            return written.complaint.clone();
        }
        let written = store::can_write(pool).await;
        let complaint = written.err().map(|error| format!("Postgres cannot be written: {error}"));
        *last = Some(Written { at: Instant::now(), complaint: complaint.clone() });
        complaint
    }
}
