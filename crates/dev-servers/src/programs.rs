//! Finding Postgres and nats-server on this machine.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::unistd::{Uid, User};

use super::error::LocalError;

/// The nats-server that `make deps` unpacks. `scripts/deps.sh` names it too, and a test compares them.
pub const NATS_SERVER_VERSION: &str = "2.15.1";
/// The oldest nats-server that will do, major and minor: schedules and message TTLs.
const NATS_OLDEST: (u32, u32) = (2, 14);
/// The oldest Postgres that will do.
const POSTGRES_OLDEST: u32 = 14;

/// Where packages put Postgres's programs when it is not on the path; `*` is a version.
const POSTGRES_FOLDERS: [&str; 8] = [
    "/usr/lib/postgresql/*/bin",
    "/usr/lib64/pgsql/bin",
    "/usr/pgsql-*/bin",
    "/opt/homebrew/opt/postgresql@*/bin",
    "/usr/local/opt/postgresql@*/bin",
    "/home/linuxbrew/.linuxbrew/opt/postgresql@*/bin",
    "/Applications/Postgres.app/Contents/Versions/*/bin",
    "/usr/local/pgsql/bin",
];

/// The programs of one Postgres installation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Postgres {
    /// Holds `postgres` and `initdb`.
    pub folder: PathBuf,
    /// Such as 15.
    pub major: u32,
}

/// The newest Postgres on this machine, or the one of the version that the data is of.
pub fn postgres(data_is_of: Option<u32>) -> Result<Postgres, LocalError> {
    let mut found: Vec<Postgres> =
        postgres_folders().iter().filter_map(|folder| postgres_in(folder)).collect();
    found.sort_by_key(|postgres| std::cmp::Reverse(postgres.major));
    let fits = |postgres: &Postgres| data_is_of.is_none_or(|major| major == postgres.major);
    if let Some(postgres) = found.into_iter().find(fits) {
        return Ok(postgres);
    }
    Err(match data_is_of {
        None => LocalError::Missing {
            what: format!("Postgres {POSTGRES_OLDEST} or newer"),
            advice: "run `make deps`, or set DATABASE_URL to one that runs elsewhere".into(),
        },
        Some(major) => LocalError::Missing {
            what: format!("Postgres {major}, which the data directory was made with,"),
            advice: "install that version, or remove the data directory to begin afresh".into(),
        },
    })
}

/// nats-server: the pinned one if `make deps` has unpacked it, else one on the path that is new enough.
pub fn nats_server() -> Result<PathBuf, LocalError> {
    let on_path = search_path().into_iter().map(|folder| folder.join("nats-server"));
    let mut candidates = nats_server_place().into_iter().chain(on_path).filter(|program| program.is_file());
    candidates.find(|program| nats_version(program).is_some_and(|version| version >= NATS_OLDEST)).ok_or_else(
        || LocalError::Missing {
            what: format!("nats-server {}.{} or newer", NATS_OLDEST.0, NATS_OLDEST.1),
            advice: "run `make deps`, or set NATS_URL to one that runs elsewhere".into(),
        },
    )
}

/// Where `make deps` unpacks nats-server, so that every checkout finds it:
/// `${XDG_DATA_HOME:-~/.local/share}/boxoffice/bin/nats-server-<version>`.
pub fn nats_server_place() -> Option<PathBuf> {
    let home = || {
        let named = env::var_os("HOME").filter(|home| !home.is_empty()).map(PathBuf::from);
        named.or_else(|| Some(User::from_uid(Uid::effective()).ok()??.dir))
    };
    let xdg = env::var_os("XDG_DATA_HOME").map(PathBuf::from).filter(|dir| dir.is_absolute());
    let data = xdg.or_else(|| Some(home()?.join(".local/share")))?;
    Some(data.join("boxoffice/bin").join(format!("nats-server-{NATS_SERVER_VERSION}")))
}

fn search_path() -> Vec<PathBuf> {
    env::var_os("PATH").map(|path| env::split_paths(&path).collect()).unwrap_or_default()
}

fn postgres_folders() -> Vec<PathBuf> {
    // A link on the path leads to the folder where all programs of that installation are.
    let linked = search_path().into_iter().filter_map(|folder| {
        let program = fs::canonicalize(folder.join("postgres")).ok()?;
        Some(program.parent()?.to_owned())
    });
    linked.chain(POSTGRES_FOLDERS.iter().flat_map(|pattern| expand(pattern))).collect()
}

/// The folders that a pattern with at most one `*`, inside one component, stands for.
fn expand(pattern: &str) -> Vec<PathBuf> {
    let Some((before, after)) = pattern.split_once('*') else {
        return vec![pattern.into()];
    };
    let (parent, prefix) = before.rsplit_once('/').unwrap_or(("", before));
    let Ok(entries) = fs::read_dir(parent) else {
        return Vec::new();
    };
    let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    names
        .filter(|name| name.starts_with(prefix))
        .map(|name| PathBuf::from(format!("{parent}/{name}{after}")))
        .collect()
}

fn postgres_in(folder: &Path) -> Option<Postgres> {
    if !folder.join("initdb").is_file() {
        return None;
    }
    let major = first_number(&version(&folder.join("postgres"))?)?.0;
    (major >= POSTGRES_OLDEST).then(|| Postgres { folder: folder.to_owned(), major })
}

fn nats_version(program: &Path) -> Option<(u32, u32)> {
    first_number(&version(program)?)
}

fn version(program: &Path) -> Option<String> {
    let output = Command::new(program).arg("--version").output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The first `1.2` in a text, or `1` as `1.0`.
fn first_number(text: &str) -> Option<(u32, u32)> {
    let start = text.find(|letter: char| letter.is_ascii_digit())?;
    let end = text[start..].find(|letter: char| !letter.is_ascii_digit() && letter != '.');
    let number = &text[start..end.map_or(text.len(), |end| start + end)];
    let mut parts = number.split('.').map(|part| part.parse().unwrap_or(0));
    Some((parts.next()?, parts.next().unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_as_the_programs_print_them() {
        assert_eq!(first_number("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)"), Some((15, 18)));
        assert_eq!(first_number("postgres (PostgreSQL) 18beta1"), Some((18, 0)));
        assert_eq!(first_number("nats-server: v2.15.1"), Some((2, 15)));
        assert_eq!(first_number("none"), None);
    }

    #[test]
    fn pattern_matches_every_installed_version() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().to_str().unwrap();
        for name in ["pg-14/bin", "pg-16/bin", "other/bin"] {
            fs::create_dir_all(dir.path().join(name)).unwrap();
        }
        let mut found = expand(&format!("{root}/pg-*/bin"));
        found.sort();
        assert_eq!(found, [dir.path().join("pg-14/bin"), dir.path().join("pg-16/bin")]);
        assert!(expand(&format!("{root}/nothing/*/bin")).is_empty());
    }

    #[test]
    fn data_of_a_missing_version_is_an_error() {
        let error = postgres(Some(7)).unwrap_err().to_string();
        assert!(error.contains("Postgres 7"), "{error}");
    }
}
