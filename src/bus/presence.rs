//! Who is there: workers announce themselves by the service API of NATS, and whoever wants to know asks all of them.
//!
//! `nats micro ls` shows the same. An announcement lives as long as the process; there is nothing to tidy up.

use std::collections::HashMap;
use std::time::Duration;

use async_nats::service::{Service, ServiceExt};
use chrono::{DateTime, Utc};
use futures::StreamExt;
use serde::de::{DeserializeOwned, Error};
use serde::{Deserialize, Deserializer};
use tokio::time::Instant;

use super::{Bus, subjects};
use crate::{clock, ids};

/// How long answers are gathered: nobody knows how many there will be. So long after the last one, and in all.
const QUIET: Duration = Duration::from_millis(250);
const LONGEST: Duration = Duration::from_secs(1);
/// Metadata of an announcement: the commands that are served, with commas between them.
pub const COMMANDS: &str = "commands";
/// Metadata of an announcement: the machine and the process.
pub const INSTANCE: &str = "instance";

/// Most commands of one announcement that are listed.
const COMMANDS_MAX: usize = 1_000;
/// The longest name, version or id of an announcement, in bytes.
const NAME_BYTES_MAX: usize = 256;

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
    #[serde(deserialize_with = "short")]
    id: String,
    #[serde(deserialize_with = "short")]
    name: String,
    #[serde(deserialize_with = "short")]
    version: String,
    metadata: Option<HashMap<String, String>>,
}

/// The part of an answer to `$SRV.STATS` that counts here.
#[derive(Deserialize)]
struct Stats {
    id: String,
    #[serde(deserialize_with = "clock::deserialize")]
    started: DateTime<Utc>,
}

fn short<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let text = String::deserialize(deserializer)?;
    if is_short(&text) { Ok(text) } else { Err(D::Error::custom("a name is too long")) }
}

fn is_short(text: &str) -> bool {
    text.len() <= NAME_BYTES_MAX
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
    Ok(joined(infos?, stats?))
}

fn joined(infos: Vec<(Info, Duration)>, stats: Vec<(Stats, Duration)>) -> Vec<WorkerSeen> {
    let started: HashMap<String, DateTime<Utc>> =
        stats.into_iter().map(|(stats, _)| (stats.id, stats.started)).collect();
    let mut seen: Vec<WorkerSeen> = infos
        .into_iter()
        .map(|(info, answered)| {
            let mut metadata = info.metadata.unwrap_or_default();
            WorkerSeen {
                commands: listed(metadata.get(COMMANDS)),
                instance: metadata.remove(INSTANCE).filter(|instance| is_short(instance)),
                started: started.get(&info.id).copied(),
                service: info.name,
                id: info.id,
                version: info.version,
                answered,
            }
        })
        .collect();
    seen.sort_by(|one, other| (&one.service, &one.id).cmp(&(&other.service, &other.id)));
    seen
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
    let commands = commands.filter(|command| !command.is_empty() && is_short(command));
    commands.take(COMMANDS_MAX).map(str::to_owned).collect()
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
        found.extend(read(&answer.payload).map(|one| (one, begin.elapsed())));
    }
    Ok(found)
}

/// Reads one answer.
fn read<T: DeserializeOwned>(payload: &[u8]) -> Option<T> {
    serde_json::from_slice(payload).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hostile::like;
    use proptest::prelude::*;
    use serde_json::json;

    fn any_info() -> impl Strategy<Value = Vec<u8>> {
        let commands = prop_oneof![
            Just("seats.hold, seats.release".to_owned()),
            (0usize..3_000).prop_map(|count| "a.b,".repeat(count)),
            ".{0,400}",
        ];
        commands.prop_flat_map(|commands| {
            let metadata = json!({ COMMANDS: commands, INSTANCE: "host/7" });
            like(json!({ "id": "one", "name": "seats", "version": "1.0.0", "metadata": metadata, "type": "x" }))
        })
    }

    proptest! {
        #[test]
        fn announcements_are_read_or_refused(
            info in any_info(),
            stats in like(json!({ "id": "one", "started": "2026-01-01T00:00:00Z", "endpoints": [] })),
        ) {
            let infos = read::<Info>(&info).map(|info| (info, Duration::ZERO));
            let stats = read::<Stats>(&stats).map(|stats| (stats, Duration::ZERO));
            let seen = joined(infos.into_iter().collect(), stats.into_iter().collect());
            for worker in &seen {
                let names = [&worker.service, &worker.id, &worker.version];
                let names = names.into_iter().chain(&worker.instance).chain(&worker.commands);
                prop_assert!(names.into_iter().all(|name| is_short(name)), "{:?}", worker);
                prop_assert!(worker.commands.len() <= COMMANDS_MAX);
                prop_assert!(worker.started.is_none_or(clock::is_plausible), "{:?}", worker);
            }
            served_by(&seen, "seats.hold");
            unserved(&seen, ["seats.hold", ""]);
        }
    }

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
