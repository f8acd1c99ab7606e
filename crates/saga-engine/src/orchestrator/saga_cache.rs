//! Sagas as this process wrote them last, so that their next step need not read them.
//!
//! A cached saga is used only if it matches the incoming command. When the outcome is written, the row is compared with the
//! cached saga; if another process has moved the saga on, all is done again with the row as it is read. A saga that does not
//! match is read at once.

use std::sync::{Arc, Mutex, PoisonError};

use hashlink::LruCache;
use uuid::Uuid;

use super::Engine;
use crate::saga::{Command, Saga, Status};
use crate::store;
use crate::store::Control;
use crate::store::batch_tx::BatchTx;

/// Most sagas that are remembered, about 2 kB each: as many as are under way in one process at its best, and as many that wait.
/// Beyond it those that were written longest ago are forgotten.
const MOST: usize = 16_384;

/// What is remembered. Clones share it.
#[derive(Clone, Debug)]
pub(super) struct SagaCache(Arc<Mutex<LruCache<Uuid, Saga>>>);

impl SagaCache {
    pub(super) fn new() -> Self {
        Self(Arc::new(Mutex::new(LruCache::new(MOST))))
    }

    /// Takes note of what was committed. No step follows for a saga that has ended or is stuck.
    pub(super) fn note(&self, sagas: Vec<Saga>) {
        let mut recent = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for saga in sagas {
            match saga.status {
                Status::Running | Status::Compensating | Status::Waiting => recent.insert(saga.id, saga),
                _ => recent.remove(&saga.id),
            };
        }
    }

    /// Hands out the sagas that ask for these commands, each to be remembered again once it is written, and the ids of those
    /// that have to be read.
    fn take(&self, commands: &[&Command]) -> (Vec<Saga>, Vec<Uuid>) {
        let mut recent = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut known, mut unknown) = (Vec::new(), Vec::new());
        for command in commands {
            match recent.remove(&command.saga_id).filter(|saga| command.is_asked_by(saga)) {
                Some(saga) => known.push(saga),
                None => unknown.push(command.saga_id),
            }
        }
        (known, unknown)
    }
}

impl SagaCache {
    /// Hands out those of these sagas that wait, and the ids of the others.
    fn take_waiting(&self, ids: &[Uuid]) -> (Vec<Saga>, Vec<Uuid>) {
        let mut recent = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut known, mut unknown) = (Vec::new(), Vec::new());
        for id in ids {
            match recent.remove(id).filter(|saga| saga.status == Status::Waiting) {
                Some(saga) => known.push(saga),
                None => unknown.push(*id),
            }
        }
        (known, unknown)
    }
}

impl Engine {
    /// The sagas that get signals: remembered if they wait, else read.
    pub(super) async fn waiting_sagas(
        &self,
        attempt: &mut BatchTx,
        ids: &[Uuid],
    ) -> store::Result<Vec<Saga>> {
        let (known, unknown) = match attempt.control() {
            Control::Optimistic => self.cache.take_waiting(ids),
            Control::Pessimistic => (Vec::new(), ids.to_vec()),
        };
        self.with_read(attempt, known, &unknown).await
    }

    /// The sagas of these commands: remembered if that is enough, else read; if locks come first in this attempt, all of them,
    /// in the order of their ids.
    pub(super) async fn sagas_of(
        &self,
        attempt: &mut BatchTx,
        commands: &[&Command],
    ) -> store::Result<Vec<Saga>> {
        let (known, unknown) = match attempt.control() {
            Control::Optimistic => self.cache.take(commands),
            Control::Pessimistic => (Vec::new(), commands.iter().map(|command| command.saga_id).collect()),
        };
        self.with_read(attempt, known, &unknown).await
    }

    /// The known sagas, and those that have to be read.
    async fn with_read(
        &self,
        attempt: &mut BatchTx,
        known: Vec<Saga>,
        unknown: &[Uuid],
    ) -> store::Result<Vec<Saga>> {
        if unknown.is_empty() {
            return Ok(known);
        }
        let control = attempt.control();
        let (mut sagas, read_at) = store::sagas::read(attempt.conn(), unknown, control).await?;
        attempt.note_time(read_at);
        self.learn(attempt.conn(), &sagas).await?;
        sagas.extend(known);
        Ok(sagas)
    }
}
