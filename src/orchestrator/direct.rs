//! Steps in the engine's own database go on without JetStream: a hold ends, seats and points come back.
//!
//! A command that JetStream does not take is executed in this process. What follows from it is treated in the same way, until
//! the saga waits, ends, or needs a service elsewhere.

use futures::future::BoxFuture;

use super::{Consequences, Engine};
use crate::bus::subjects;
use crate::saga::Command;
use crate::store;

/// Executes commands of services in this database, and returns what follows from the commits.
pub(super) struct Execute(Box<dyn Fn(Engine, Vec<Command>) -> Executed + Send + Sync>);

type Executed = BoxFuture<'static, store::Result<Vec<Consequences>>>;

impl std::fmt::Debug for Execute {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("Execute")
    }
}

impl Engine {
    /// Sets how commands of services in this database are executed where JetStream takes none. Only the first call counts.
    pub fn execute_with(&self, execute: impl Fn(Self, Vec<Command>) -> Executed + Send + Sync + 'static) {
        // A second one would be the same function.
        let _set = self.direct.set(Execute(Box::new(execute)));
    }

    /// Whether a command can be executed here: its service is in this database, it is not paused, and this process may.
    pub(super) fn can_execute(&self, command: &Command) -> bool {
        self.direct.get().is_some()
            && self.in_database.contains(&subjects::service_of(&command.subject))
            && !self.pauses.hold_back(command)
            && !self.pauses.has_step(&command.subject)
    }

    /// Executes commands that JetStream does not take, as far as their services are in this database and are not paused.
    /// All others stay as they are: their rows ask for them, and the sweeper sends them again.
    pub(super) async fn execute_directly(&self, mut commands: Vec<Command>) {
        commands.retain(|command| self.can_execute(command));
        let Some(Execute(execute)) = self.direct.get().filter(|_| !commands.is_empty()) else {
            return;
        };
        metrics::counter!("boxoffice_commands_executed_directly_total").increment(commands.len() as u64);
        match execute(self.clone(), commands).await {
            Ok(effects) => effects.into_iter().for_each(|effects| self.follow_later(effects)),
            Err(error) => {
                tracing::warn!(%error, "steps could not be done without JetStream; the sweeper tries again")
            }
        }
    }
}
