//! One process per data directory: a file lock, which the system releases however the process ends.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{Seek, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::error::{LocalError, file};

const LOCK: &str = "lock";
/// A child of this process that has not become another program yet still has what its parent just gave back.
const FORK_WINDOW: Duration = Duration::from_millis(500);
const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// The right to use a data directory; given back when dropped.
#[derive(Debug)]
pub(super) struct Lockfile {
    dir: PathBuf,
    _lock: File,
}

impl Lockfile {
    /// Makes the directory if it is missing, and claims it. Fails at once, naming the process that has it.
    pub(super) fn take(dir: &Path) -> Result<Self, LocalError> {
        // Others may pass through, as Postgres must when it runs as another user; each file is closed to them.
        DirBuilder::new().recursive(true).mode(0o711).create(dir).map_err(file(dir))?;
        let dir = fs::canonicalize(dir).map_err(file(dir))?;
        let path = dir.join(LOCK);
        let mut lock = open(&path)?;
        let deadline = Instant::now() + FORK_WINDOW;
        while let Err(error) = lock.try_lock() {
            if let TryLockError::Error(source) = error {
                return Err(LocalError::File { path, source });
            }
            let pid = fs::read_to_string(&path).map_err(file(&path))?.trim().to_owned();
            if pid != std::process::id().to_string() || Instant::now() > deadline {
                return Err(LocalError::InUse { dir, pid });
            }
            std::thread::sleep(POLL_INTERVAL);
        }
        let write = |lock: &mut File| {
            lock.set_len(0)?;
            lock.rewind()?;
            writeln!(lock, "{}", std::process::id())
        };
        write(&mut lock).map_err(file(&path))?;
        Ok(Self { dir, _lock: lock })
    }

    /// The directory, as an absolute path.
    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }
}

/// Whether a process has claimed the directory at this moment.
pub(super) fn is_taken(dir: &Path) -> bool {
    let Ok(lock) = File::open(dir.join(LOCK)) else {
        return false;
    };
    matches!(lock.try_lock_shared(), Err(TryLockError::WouldBlock))
}

fn open(path: &Path) -> Result<File, LocalError> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map_err(file(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn second_owner_of_a_directory_sees_the_pid() {
        let parent = tempfile::tempdir().unwrap();
        let dir = parent.path().join("made/here");
        assert!(!is_taken(&dir));
        let claim = Lockfile::take(&dir).unwrap();
        assert!(is_taken(&dir));
        let error = Lockfile::take(&dir).unwrap_err().to_string();
        assert!(error.contains(&std::process::id().to_string()), "{error}");
        drop(claim);
        assert!(!is_taken(&dir));
        Lockfile::take(&dir).unwrap();
    }
}
