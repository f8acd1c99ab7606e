//! Announcements of workers, by the service API of NATS: what a worker says about itself, and how the answers to
//! [`crate::subjects::SERVICES_INFO`] and [`crate::subjects::SERVICES_STATS`] are read.
//!
//! `nats micro ls` lists the same announcements. An announcement ends with its process.

use std::collections::HashMap;
use std::time::Duration;

use chrono::{DateTime, Utc};
use saga_core::range;
use serde::de::Error;
use serde::{Deserialize, Deserializer};

use crate::subjects;

/// Metadata of an announcement: the commands that are served, with commas between them.
pub const COMMANDS: &str = "commands";
/// Metadata of an announcement: the machine and the process.
pub const INSTANCE: &str = "instance";

/// Most commands of one announcement that are listed.
const COMMANDS_MAX: usize = 1_000;
/// The longest name, version or id of an announcement, in bytes.
const NAME_BYTES_MAX: usize = 256;

/// A worker that has answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkerSeen {
    /// The service, such as `printer`.
    pub service: String,
    /// This announcement of it, unique among all.
    pub id: String,
    /// The version of the service, as it names it.
    pub version: String,
    /// The commands it serves, such as `printer.print`; none if it does not say.
    pub commands: Vec<String>,
    /// The machine and the process as it names them.
    pub instance: Option<String>,
    /// When it was started, by its own clock.
    pub started: Option<DateTime<Utc>>,
    /// How long its answer took.
    pub answered: Duration,
}

/// The part of an answer to `$SRV.INFO` that is used. The type of `async_nats` refuses what clients in other languages
/// leave out.
#[derive(Clone, Debug, Deserialize)]
pub struct Info {
    #[serde(deserialize_with = "short")]
    id: String,
    #[serde(deserialize_with = "short")]
    name: String,
    #[serde(deserialize_with = "short")]
    version: String,
    metadata: Option<HashMap<String, String>>,
}

/// The part of an answer to `$SRV.STATS` that is used.
#[derive(Clone, Debug, Deserialize)]
pub struct Stats {
    id: String,
    #[serde(deserialize_with = "range::deserialize")]
    started: DateTime<Utc>,
}

fn short<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let text = String::deserialize(deserializer)?;
    if is_short(&text) { Ok(text) } else { Err(D::Error::custom("a name is too long")) }
}

fn is_short(text: &str) -> bool {
    text.len() <= NAME_BYTES_MAX
}

/// The metadata of an announcement: these commands, and what the process calls itself.
pub fn metadata(commands: &[&str], instance: String) -> HashMap<String, String> {
    HashMap::from([(COMMANDS.to_owned(), commands.join(",")), (INSTANCE.to_owned(), instance)])
}

/// The workers that answered, by service and id. Each answer comes with the time that it took.
pub fn joined(infos: Vec<(Info, Duration)>, stats: Vec<(Stats, Duration)>) -> Vec<WorkerSeen> {
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

/// The workers that serve a command. A worker that names no commands is taken to serve all of its service.
pub fn served_by<'a>(present: &'a [WorkerSeen], command: &str) -> Vec<&'a WorkerSeen> {
    let serves = |worker: &&WorkerSeen| {
        if worker.commands.is_empty() {
            return worker.service == subjects::service_of(command);
        }
        worker.commands.iter().any(|served| served == command)
    };
    present.iter().filter(serves).collect()
}

/// The commands that none of the workers serves.
pub fn unserved<'a>(present: &[WorkerSeen], commands: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
    commands.into_iter().filter(|command| served_by(present, command).is_empty()).collect()
}

fn listed(commands: Option<&String>) -> Vec<String> {
    let commands = commands.map(String::as_str).unwrap_or_default().split(',').map(str::trim);
    let commands = commands.filter(|command| !command.is_empty() && is_short(command));
    commands.take(COMMANDS_MAX).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::hostile::like;

    fn any_info() -> impl Strategy<Value = Vec<u8>> {
        let commands = prop_oneof![
            Just("scanner.scan, scanner.clear".to_owned()),
            (0usize..3_000).prop_map(|count| "a.b,".repeat(count)),
            ".{0,400}",
        ];
        commands.prop_flat_map(|commands| {
            let metadata = json!({ COMMANDS: commands, INSTANCE: "host/7" });
            like(json!({ "id": "one", "name": "scanner", "version": "1.0.0", "metadata": metadata, "type": "x" }))
        })
    }

    proptest! {
        #[test]
        fn announcements_are_read_or_refused(
            info in any_info(),
            stats in like(json!({ "id": "one", "started": "2026-01-01T00:00:00Z", "endpoints": [] })),
        ) {
            let infos = serde_json::from_slice::<Info>(&info).ok().map(|info| (info, Duration::ZERO));
            let stats = serde_json::from_slice::<Stats>(&stats).ok().map(|stats| (stats, Duration::ZERO));
            let seen = joined(infos.into_iter().collect(), stats.into_iter().collect());
            for worker in &seen {
                let names = [&worker.service, &worker.id, &worker.version];
                let names = names.into_iter().chain(&worker.instance).chain(&worker.commands);
                prop_assert!(names.into_iter().all(|name| is_short(name)), "{:?}", worker);
                prop_assert!(worker.commands.len() <= COMMANDS_MAX);
                prop_assert!(worker.started.is_none_or(range::is_plausible), "{:?}", worker);
            }
            served_by(&seen, "scanner.scan");
            unserved(&seen, ["scanner.scan", ""]);
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
    fn worker_serves_named_commands_or_its_service() {
        let all = [worker("scanner", "scanner.scan, scanner.clear"), worker("printer", "")];
        let names =
            |command| served_by(&all, command).iter().map(|found| found.service.as_str()).collect::<Vec<_>>();
        assert_eq!(names("scanner.scan"), ["scanner"]);
        assert_eq!(names("scanner.sell"), [""; 0]);
        assert_eq!(names("printer.print"), ["printer"]);
    }
}
