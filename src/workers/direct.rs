//! Commands of the services in the engine's own database, executed without JetStream while it takes none.
//!
//! The saga's row is their fence, as it is for a command that came as a message: one that was stored all the same, and is
//! delivered later, finds that its saga does not ask for it any more.

use std::collections::BTreeSet;

use super::handle::{attempt, poison};
use super::{Limits, Service, Written};
use crate::orchestrator::{Consequences, Engine, Halves};
use crate::saga::Command;
use crate::store;
use crate::store::attempt::decide;

/// Lets the engine execute these services' commands itself where JetStream does not take them.
pub fn allow(engine: &Engine, limits: Limits, written: &Written) {
    let written = written.clone();
    engine.execute_with(move |engine, commands| {
        let written = written.clone();
        Box::pin(async move { execute(&engine, limits, &written, commands).await })
    });
}

/// Executes commands of different sagas, and returns what follows from them. A second command of one saga is left out: it can
/// only be judged after the first, and the sweeper brings it again.
async fn execute(
    engine: &Engine,
    limits: Limits,
    written: &Written,
    mut commands: Vec<Command>,
) -> store::Result<Vec<Consequences>> {
    let mut seen = BTreeSet::new();
    commands.retain(|command| Service::of(&command.subject).is_some() && seen.insert(command.saga_id));
    let mut halves = Halves::of(commands);
    let mut effects = Vec::new();
    while let Some(items) = halves.next() {
        let commands: Vec<&Command> = items.iter().collect();
        let done = decide(engine.control, |control| attempt(engine, limits, written, &commands, control));
        let result = match store::bounded(done).await {
            Ok(done) => {
                for (at, why) in &done.illegal {
                    tracing::error!(saga = %commands[*at].saga_id, why, "a command cannot be; it was not executed");
                }
                written.note(done.notes);
                done.changed.tell(&engine.bus).await;
                effects.push(done.consequences);
                Ok(())
            }
            Err(error) => Err(error),
        };
        if let Some((command, error)) = halves.record(result).await? {
            engine.poisoned(command.saga_id, poison(command, &error)).await;
        }
    }
    Ok(effects)
}
