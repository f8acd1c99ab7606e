//! The seam to services whose tables are in the engine's own database.
//!
//! The effect of such a service is written by the statement that also moves its saga on, so the saga's row is the fence of the
//! effect: a command that comes twice or late finds a row that does not ask for it.

use std::fmt::Debug;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use futures::future::BoxFuture;

use super::Batch;
use crate::bus::subjects;
use crate::saga::{Command, Outcome, Saga};
use crate::store;
use crate::store::batch_tx::BatchTx;
use crate::store::write_batch::WriteBatch;

/// A service whose effects are written in the engine's database.
pub trait Participant: Debug + Send + Sync {
    /// The service's name: the first part of its commands.
    fn name(&self) -> &'static str;

    /// The commands that it executes. Each has a consumer and a loop of its own.
    fn commands(&self) -> &'static [&'static str];

    /// Reads what these tasks are about. The tasks have different sagas.
    fn load<'a>(
        &'a self,
        attempt: &'a mut BatchTx,
        tasks: &'a [Task<'a>],
    ) -> BoxFuture<'a, store::Result<Box<dyn Unit>>>;
}

/// A command for which its saga asks.
#[derive(Debug)]
pub struct Task<'a> {
    /// The command as the saga's row says it. What came as a message only names the saga and the step.
    pub command: Command,
    pub saga: &'a Saga,
}

/// The tasks of one batch: each is decided in memory, in the order of arrival, then everything is written at once.
pub trait Unit: Send {
    /// Decides about the task at this position. `now` is the time that decides.
    fn execute(&mut self, task: usize, now: DateTime<Utc>) -> Outcome;

    /// Adds what was decided to the statement that moves the sagas on; `sagas` has them as they are after it. The returned
    /// future is run after the commit.
    fn write(self: Box<Self>, changes: &mut WriteBatch, sagas: &Batch) -> BoxFuture<'static, ()>;
}

/// The services of this database.
#[derive(Clone, Debug)]
pub struct Participants {
    all: Arc<[Arc<dyn Participant>]>,
    /// Whether this process may execute their commands without JetStream while it takes no messages.
    pub(super) direct: bool,
}

impl Participants {
    /// These services. Their commands are executed as messages bring them.
    pub fn new(all: Vec<Arc<dyn Participant>>) -> Self {
        Self { all: all.into(), direct: false }
    }

    /// The same services, whose commands this process may also execute without JetStream.
    #[must_use]
    pub fn executed_directly(self) -> Self {
        Self { direct: true, ..self }
    }

    /// All of them.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Arc<dyn Participant>> {
        self.all.iter()
    }

    /// The service with this name.
    pub(super) fn named(&self, name: &str) -> Option<&Arc<dyn Participant>> {
        self.all.iter().find(|participant| participant.name() == name)
    }

    /// The service of this command.
    pub(super) fn of_command(&self, command: &str) -> Option<&Arc<dyn Participant>> {
        self.named(subjects::service_of(command))
    }
}
