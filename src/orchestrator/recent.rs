//! Sagas as this process wrote them last, so that their next step need not read them.
//!
//! They are believed as far as they ask for a command that has come: when its outcome is written, the row is compared with
//! what was remembered, and if somebody else has moved the saga on, all is done again with what is read. Whatever does not fit
//! what is remembered is read at once.

use moka::sync::Cache;
use uuid::Uuid;

use super::{Batch, Engine};
use crate::config::Control;
use crate::saga::{Command, Saga, Status};
use crate::store;
use crate::store::attempt::Attempt;

/// Most sagas that are remembered, about 2 kB each: as many as are under way in one process at its best.
const MOST: u64 = 8_192;

/// What is remembered. Clones share it.
#[derive(Clone, Debug)]
pub(super) struct Recent(Cache<Uuid, Saga>);

impl Recent {
    pub(super) fn new() -> Self {
        Self(Cache::new(MOST))
    }

    /// Takes note of what was committed. Nobody will ask about a saga that has settled soon.
    pub(super) fn note(&self, sagas: Vec<Saga>) {
        for saga in sagas {
            match saga.status {
                Status::Running | Status::Compensating => self.0.insert(saga.id, saga),
                _ => self.0.invalidate(&saga.id),
            }
        }
    }

    fn asking_for(&self, command: &Command) -> Option<Saga> {
        self.0.get(&command.saga_id).filter(|saga| command.is_asked_by(saga))
    }
}

impl Engine {
    /// The sagas of these commands: remembered if that is enough, else read; if locks come first in this attempt, all of
    /// them, in the order of their ids.
    pub async fn sagas_of(&self, attempt: &mut Attempt, commands: &[&Command]) -> store::Result<Batch> {
        let (mut known, mut unknown) = (Vec::new(), Vec::new());
        for command in commands {
            match self.recent.asking_for(command).filter(|_| attempt.control() == Control::Optimistic) {
                Some(saga) => known.push(saga),
                None => unknown.push(command.saga_id),
            }
        }
        Batch::read(attempt, known, &unknown).await
    }
}
