//! What can go wrong with private servers, and what to do about it.

use std::io;
use std::path::{Path, PathBuf};

/// Why the data directory or a private server cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LocalError {
    /// Another process has claimed the directory.
    #[error("{} is in use by process {pid}; stop that one first, or choose another directory with --data-dir", dir.display())]
    InUse { dir: PathBuf, pid: String },
    /// Postgres's files lie outside the data directory, and those found belong to another one.
    #[error(
        "{} says that its Postgres lies in {}, but that one belongs to {}; remove {} to begin with a fresh database",
        pointer.display(), files.display(), owner.display(), pointer.display()
    )]
    Foreign { pointer: PathBuf, files: PathBuf, owner: PathBuf },
    /// A program is not on this machine.
    #[error("{what} was not found on this machine; {advice}")]
    Missing { what: String, advice: String },
    /// A file or directory cannot be used.
    #[error("{}: {source}", path.display())]
    File { path: PathBuf, source: io::Error },
    /// A server of an earlier run is still there and does not end.
    #[error("{what} of an earlier run still uses {} and does not end; stop it by hand, then start again", log.display())]
    Survivor { what: &'static str, log: PathBuf },
    /// A program could not be started at all.
    #[error("{} cannot be run: {source}", program.display())]
    Unrunnable { program: PathBuf, source: io::Error },
    /// A server ended, or did not become ready.
    #[error("{what} {how}; the end of its log, {}:\n{tail}", log.display())]
    Failed { what: &'static str, how: String, log: PathBuf, tail: String },
    /// The private Postgres answers, but not as it should.
    #[error("the private Postgres refuses its own database: {0}")]
    Database(#[from] sqlx::Error),
    /// There is no user that Postgres could run as.
    #[error("Postgres refuses to run as root, and {0}; run this as another user, or set DATABASE_URL")]
    NoOsUser(String),
}

/// Turns an I/O error into one that names the file.
pub(super) fn file(path: &Path) -> impl FnOnce(io::Error) -> LocalError {
    let path = path.to_owned();
    move |source| LocalError::File { path, source }
}
