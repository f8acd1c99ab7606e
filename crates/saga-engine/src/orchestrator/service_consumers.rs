//! Makes the consumers of services elsewhere that have no right to make their own.
//!
//! A user with the right to make a consumer may have its messages sent to any subject, also to one that it must not
//! write. So a service's user only takes messages from a consumer that is there: the orchestrator makes it once a worker has
//! announced the command. A worker that may make its own does so within the first look, and is left alone.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::Engine;
use crate::bus::{Bus, consumers, presence, subjects, topology};

/// How often it is looked whether a consumer is missing.
const LOOK_INTERVAL: Duration = Duration::from_secs(3);

/// Looks until the service stops. Workflows that use services elsewhere may be deployed at any time.
pub(super) async fn run(engine: Engine, stop: CancellationToken) {
    let is_elsewhere = |command: &String| !engine.is_in_database(command);
    let mut missing = BTreeSet::new();
    while !stop.is_cancelled() {
        let commands: BTreeSet<String> =
            engine.registry.commands().into_iter().filter(is_elsewhere).collect();
        if !commands.is_empty() {
            match make_missing(&engine.bus, commands, &missing).await {
                Ok(now) => missing = now,
                Err(error) => {
                    tracing::debug!(%error, "consumers of services elsewhere are looked at again later")
                }
            }
        }
        let _stopped = stop.run_until_cancelled(tokio::time::sleep(LOOK_INTERVAL)).await;
    }
}

/// Makes the consumers that were missing in the last look too; answers those that are missing for the first time.
async fn make_missing(
    bus: &Bus,
    commands: BTreeSet<String>,
    before: &BTreeSet<String>,
) -> anyhow::Result<BTreeSet<String>> {
    let all = consumers::all(bus).await?;
    let mut missing = commands;
    missing.retain(|command| !all.iter().any(|state| state.takes(command)));
    if missing.is_empty() {
        return Ok(missing);
    }
    let present = presence::present(bus).await?;
    missing.retain(|command| !presence::served_by(&present, command).is_empty());
    for command in missing.intersection(before) {
        let config = topology::command_consumer(command);
        topology::find_or_make_consumer(bus, subjects::STEPS, config).await?;
        tracing::info!(command, "made the consumer for the workers that have announced this command");
    }
    Ok(missing.difference(before).cloned().collect())
}
