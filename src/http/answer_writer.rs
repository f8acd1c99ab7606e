//! Answers under idempotency keys are written in batches, and no caller waits for that.
//!
//! Until an answer is written its repeats are given it from memory. If this process dies before, the claim is there without an
//! answer, and the answer is built again from the rows of its effect.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fail::fail_point;
use sqlx::PgPool;
use tokio_util::sync::CancellationToken;

use super::open_keys::OpenKeys;
use crate::background::Tasks;
use crate::store;
use crate::store::idempotency::{self, Ended};

/// How long answers are gathered: a commit for each of them would cost more than the answers.
const GATHER_TIME: Duration = Duration::from_millis(100);
const BATCH_MAX: usize = 256;
/// Tries of a batch while the database does not take it, with pauses that double.
const TRIES: u32 = 5;
const FIRST_PAUSE: Duration = Duration::from_millis(200);

/// Clones share the queue.
#[derive(Clone, Debug)]
pub(super) struct AnswerWriter {
    pool: PgPool,
    keys: OpenKeys,
    tasks: Tasks,
    stop: CancellationToken,
    queue: Arc<Mutex<Queue>>,
}

#[derive(Debug, Default)]
struct Queue {
    ended: Vec<Ended>,
    /// Whether a task is there that writes it.
    is_written: bool,
}

impl AnswerWriter {
    pub(super) fn new(pool: PgPool, keys: OpenKeys, tasks: &Tasks, stop: &CancellationToken) -> Self {
        Self { pool, keys, tasks: tasks.clone(), stop: stop.clone(), queue: Arc::default() }
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes it soon. The stop of the process waits for it.
    pub(super) fn write_soon(&self, ended: Ended) {
        let mut queue = self.queue();
        queue.ended.push(ended);
        if !std::mem::replace(&mut queue.is_written, true) {
            self.tasks.spawn(self.clone().write_all());
        }
    }

    async fn write_all(self) {
        loop {
            // At the stop there is nothing to wait for: few answers are still to come.
            let _stopped = tokio::time::timeout(GATHER_TIME, self.stop.cancelled()).await;
            let gathered = {
                let mut queue = self.queue();
                queue.is_written = !queue.ended.is_empty();
                std::mem::take(&mut queue.ended)
            };
            if gathered.is_empty() {
                return;
            }
            for batch in gathered.chunks(BATCH_MAX) {
                self.write(batch).await;
            }
        }
    }

    async fn write(&self, batch: &[Ended]) {
        fail_point!("answers::gathered");
        let mut pause = FIRST_PAUSE;
        for attempt in 1..=TRIES {
            match store::bounded(idempotency::end(&self.pool, batch)).await {
                Ok(()) => break,
                Err(error) if attempt == TRIES => {
                    tracing::warn!(
                        %error,
                        answers = batch.len(),
                        "answers under Idempotency-Keys could not be saved; repeats get them from the rows of their effects"
                    );
                }
                Err(_) => tokio::time::sleep(pause).await,
            }
            pause *= 2;
        }
        fail_point!("answers::written");
        self.keys.close(batch.iter().map(|ended| &*ended.claim));
    }
}
