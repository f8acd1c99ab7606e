//! Who is there: workers announce themselves by the service API of NATS, and whoever wants to know asks all of them.
//!
//! `nats micro ls` shows the same. An announcement lives as long as the process; there is nothing to tidy up.

use std::collections::HashMap;
use std::time::Duration;

use async_nats::service::{Service, ServiceExt};
use chrono::{DateTime, Utc};
use futures::StreamExt;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::time::Instant;

use super::{Bus, subjects};
use crate::ids;

/// How long answers are gathered: nobody knows how many there will be. So long after the last one, and in all.
const QUIET: Duration = Duration::from_millis(250);
const LONGEST: Duration = Duration::from_secs(1);
/// Metadata of an announcement: the commands that are served, with commas between them.
pub const COMMANDS: &str = "commands";
/// Metadata of an announcement: the machine and the process.
pub const INSTANCE: &str = "instance";

/// A worker that answered just now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkerSeen {
    /// The service, such as `seats`.
    pub service: String,
    /// This announcement of it, unique among all.
    pub id: String,
    pub version: String,
    /// The commands it serves, such as `seats.hold`; none if it does not say.
    pub commands: Vec<String>,
    /// The machine and the process as it names them.
    pub instance: Option<String>,
    /// When it was started, by its own clock.
    pub started: Option<DateTime<Utc>>,
    /// How long its answer took.
    pub answered: Duration,
}

/// Why presence could not be told or asked.
#[derive(Debug, thiserror::Error)]
#[error("NATS did not take {what}: {reason}")]
pub struct PresenceError {
    what: &'static str,
    reason: String,
}

impl PresenceError {
    /// Something that NATS did not take, and why.
    pub fn new(what: &'static str, reason: &impl std::fmt::Display) -> Self {
        Self { what, reason: reason.to_string() }
    }
}

/// The part of an answer to `$SRV.INFO` that counts here. The client's own type refuses what clients in other languages
/// leave out.
#[derive(Deserialize)]
struct Info {
    id: String,
    name: String,
    version: String,
    metadata: Option<HashMap<String, String>>,
}

/// The part of an answer to `$SRV.STATS` that counts here.
#[derive(Deserialize)]
struct Stats {
    id: String,
    started: DateTime<Utc>,
}

/// Announces a worker of these commands until the answer is dropped with its [`Service::stop`], or the process ends.
pub async fn announce(
    bus: &Bus,
    service: &str,
    description: &str,
    commands: &[&str],
) -> Result<Service, PresenceError> {
    let metadata = [(COMMANDS, commands.join(",")), (INSTANCE, ids::process())];
    bus.client
        .service_builder()
        .description(description)
        .metadata(metadata.map(|(name, value)| (name.to_owned(), value)).into())
        .start(service, env!("CARGO_PKG_VERSION"))
        .await
        .map_err(|error| PresenceError::new("an announcement", &error))
}

/// Every worker that answers, by service and id; this takes a quarter of a second, a second at most.
pub async fn present(bus: &Bus) -> Result<Vec<WorkerSeen>, PresenceError> {
    let (infos, stats) =
        tokio::join!(ask::<Info>(bus, subjects::SERVICES_INFO), ask::<Stats>(bus, subjects::SERVICES_STATS));
    let started: HashMap<String, DateTime<Utc>> =
        stats?.into_iter().map(|(stats, _)| (stats.id, stats.started)).collect();
    let mut seen: Vec<WorkerSeen> = infos?
        .into_iter()
        .map(|(info, answered)| {
            let mut metadata = info.metadata.unwrap_or_default();
            WorkerSeen {
                commands: listed(metadata.get(COMMANDS)),
                instance: metadata.remove(INSTANCE),
                started: started.get(&info.id).copied(),
                service: info.name,
                id: info.id,
                version: info.version,
                answered,
            }
        })
        .collect();
    seen.sort_by(|one, other| (&one.service, &one.id).cmp(&(&other.service, &other.id)));
    Ok(seen)
}

/// Those of them that serve a command. One that names no commands counts by the name of its service.
pub fn served_by<'a>(present: &'a [WorkerSeen], command: &str) -> Vec<&'a WorkerSeen> {
    let serves = |worker: &&WorkerSeen| {
        if worker.commands.is_empty() {
            return worker.service == subjects::service_of(command);
        }
        worker.commands.iter().any(|served| served == command)
    };
    present.iter().filter(serves).collect()
}

/// Those of these commands that nobody serves.
pub fn unserved<'a>(present: &[WorkerSeen], commands: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
    commands.into_iter().filter(|command| served_by(present, command).is_empty()).collect()
}

fn listed(commands: Option<&String>) -> Vec<String> {
    let commands = commands.map(String::as_str).unwrap_or_default().split(',').map(str::trim);
    commands.filter(|command| !command.is_empty()).map(str::to_owned).collect()
}

/// Asks all and gathers what they say, with the time that each took. An answer that cannot be read is nobody's.
async fn ask<T: DeserializeOwned>(
    bus: &Bus,
    subject: &'static str,
) -> Result<Vec<(T, Duration)>, PresenceError> {
    let inbox = bus.client.new_inbox();
    let mut answers = bus
        .client
        .subscribe(inbox.clone())
        .await
        .map_err(|error| PresenceError::new("a question", &error))?;
    let asked = bus.client.publish_with_reply(subject, inbox, bytes::Bytes::new()).await;
    asked.map_err(|error| PresenceError::new("a question", &error))?;
    let (begin, mut found) = (Instant::now(), Vec::new());
    let mut end = begin + QUIET;
    while let Ok(Some(answer)) = tokio::time::timeout_at(end, answers.next()).await {
        // The server's own word, at once, that nobody listens.
        if answer.status.is_some() {
            break;
        }
        end = (Instant::now() + QUIET).min(begin + LONGEST);
        if let Ok(one) = serde_json::from_slice(&answer.payload) {
            found.push((one, begin.elapsed()));
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn worker(service: &str, commands: &str) -> WorkerSeen {
        WorkerSeen {
            service: service.to_owned(),
            id: String::new(),
            version: "1.0.0".to_owned(),
            commands: listed(Some(&commands.to_owned())),
            instance: None,
            started: None,
            answered: Duration::ZERO,
        }
    }

    #[test]
    fn a_worker_serves_what_it_names_or_what_its_name_says() {
        let all = [worker("seats", "seats.hold, seats.release"), worker("printer", "")];
        let names =
            |command| served_by(&all, command).iter().map(|found| found.service.as_str()).collect::<Vec<_>>();
        assert_eq!(names("seats.hold"), ["seats"]);
        assert_eq!(names("seats.sell"), [""; 0]);
        assert_eq!(names("printer.print"), ["printer"]);
    }
}
