//! Where a running `boxoffice up` and its servers are, so that every other command finds them.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::error::{LocalError, file};
use super::lockfile;
use super::secrets::write_private;

const FILE: &str = "running.json";

/// The addresses of the process that has claimed a data directory.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct Addresses {
    pub pid: u32,
    /// Where REST is answered.
    pub http: SocketAddr,
    /// Where operators' routes are answered, if not there too.
    #[serde(default)]
    pub admin: Option<SocketAddr>,
    /// With the password; the file is closed to others.
    pub database_url: String,
    /// With the password.
    pub nats_url: String,
}

/// The addresses of the process that runs on this data directory, if one does.
pub fn find(data_dir: &Path) -> Option<Addresses> {
    // What a killed process left behind is not believed: its claim is gone.
    if !lockfile::is_taken(data_dir) {
        return None;
    }
    let text = fs::read_to_string(data_dir.join(FILE)).ok()?;
    serde_json::from_str(&text).ok()
}

pub(super) fn publish(data_dir: &Path, addresses: &Addresses) -> Result<(), LocalError> {
    let path = data_dir.join(FILE);
    let draft = data_dir.join(format!("{FILE}.new"));
    let text = serde_json::to_string_pretty(addresses).expect("addresses are plain JSON");
    write_private(&draft, &text).map_err(file(&draft))?;
    fs::rename(&draft, &path).map_err(file(&path))
}

/// Removes the published addresses. A failure is harmless, because the file counts only with a claim.
pub(super) fn withdraw(data_dir: &Path) {
    let _gone = fs::remove_file(data_dir.join(FILE));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lockfile::Lockfile;

    #[test]
    fn addresses_are_found_while_their_process_runs() {
        let dir = tempfile::tempdir().unwrap();
        let ours = Addresses {
            pid: 1,
            http: "127.0.0.1:8080".parse().unwrap(),
            admin: "127.0.0.1:8081".parse().ok(),
            database_url: "postgres://here".into(),
            nats_url: "nats://here".into(),
        };
        assert_eq!(find(dir.path()), None);
        let claim = Lockfile::take(dir.path()).unwrap();
        publish(dir.path(), &ours).unwrap();
        assert_eq!(find(dir.path()), Some(ours));
        drop(claim);
        assert_eq!(find(dir.path()), None);
    }
}
