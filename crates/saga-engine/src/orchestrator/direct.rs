//! Steps in the engine's own database go on without JetStream: deadlines end and compensations run while it is away.
//!
//! A command that JetStream does not take is executed in this process. What follows from it is treated in the same way, until
//! the saga waits, ends, or needs a service elsewhere. The saga's row is the fence, as it is for a command that came as a
//! message: one that was stored all the same, and is delivered later, finds that its saga does not ask for it any more.

use std::collections::{BTreeMap, BTreeSet};

use super::execute::{Executed, execute, poison};
use super::{BatchBisector, Engine};
use crate::bus::subjects;
use crate::saga::Command;
use crate::store;

impl Engine {
    /// Whether a command can be executed here: its service is in this database, it is not paused, and this process may.
    pub(super) fn can_execute(&self, command: &Command) -> bool {
        self.participants.direct
            && self.participants.of_command(&command.subject).is_some()
            && !self.pauses.hold_back(command)
            && !self.pauses.has_step(&command.subject)
    }

    /// Executes commands that JetStream does not take, as far as their services are in this database and are not paused.
    /// All others stay as they are: their rows ask for them, and the sweeper sends them again. So does a second command of one
    /// saga: it can only be judged after the first.
    pub(super) async fn execute_directly(&self, mut commands: Vec<Command>) {
        let mut seen = BTreeSet::new();
        commands.retain(|command| self.can_execute(command) && seen.insert(command.saga_id));
        metrics::counter!("boxoffice_commands_executed_directly_total").increment(commands.len() as u64);
        let mut by_service: BTreeMap<String, Vec<Command>> = BTreeMap::new();
        for command in commands {
            by_service.entry(subjects::service_of(&command.subject).to_owned()).or_default().push(command);
        }
        for (service, commands) in by_service {
            if let Err(error) = self.execute_of_service(&service, commands).await {
                tracing::warn!(%error, "steps could not be done without JetStream; the sweeper tries again");
            }
        }
    }

    async fn execute_of_service(&self, service: &str, commands: Vec<Command>) -> store::Result<()> {
        let Some(participant) = self.participants.named(service) else { return Ok(()) };
        let mut halves = BatchBisector::of(commands);
        while let Some(items) = halves.next() {
            let commands: Vec<&Command> = items.iter().collect();
            let result = match execute(self, &**participant, &commands).await {
                Ok(Executed { illegal, effects }) => {
                    for (at, why) in &illegal {
                        tracing::error!(saga = %commands[*at].saga_id, why, "a command cannot be; it was not executed");
                    }
                    self.dispatch_detached(effects);
                    Ok(())
                }
                Err(error) => Err(error),
            };
            if let Some((command, error)) = halves.record(result).await? {
                self.poisoned(command.saga_id, poison(command, &error)).await;
            }
        }
        Ok(())
    }
}
