//! Secrets of a data directory: made once from the system's randomness, kept in files closed to others.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use super::error::{LocalError, file};

const FOLDER: &str = "secrets";
const BYTES: usize = 32;

/// What tokens are signed with; the same at every start, and for every process on the data directory.
#[derive(Clone)]
pub struct Secrets {
    /// Signs access tokens.
    pub access_secret: String,
    /// Signs queue tokens.
    pub queue_secret: String,
    /// The key that signs ticket codes is derived from it.
    pub ticket_secret: String,
}

impl Secrets {
    /// Reads the secrets of `data_dir`, and makes those that are missing.
    pub fn keep(data_dir: &Path) -> Result<Self, LocalError> {
        Ok(Self {
            access_secret: keep(data_dir, "access_secret")?,
            queue_secret: keep(data_dir, "queue_secret")?,
            ticket_secret: keep(data_dir, "ticket_secret")?,
        })
    }
}

impl std::fmt::Debug for Secrets {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Secrets(hidden)")
    }
}

/// The named secret, in hex: 32 random bytes if there was none.
pub(super) fn keep(data_dir: &Path, name: &str) -> Result<String, LocalError> {
    let folder = data_dir.join(FOLDER);
    DirBuilder::new().recursive(true).mode(0o700).create(&folder).map_err(file(&folder))?;
    let path = folder.join(name);
    if let Some(secret) = read(&path)? {
        return Ok(secret);
    }
    // Written whole under another name, then linked: of two processes that make it at once, one wins and both read it.
    let draft = folder.join(format!("{name}.{}", std::process::id()));
    let fresh: [u8; BYTES] = rand::random();
    write_private(&draft, &hex(&fresh)).map_err(file(&draft))?;
    let linked = fs::hard_link(&draft, &path);
    fs::remove_file(&draft).map_err(file(&draft))?;
    match linked {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(file(&path)(error)),
        _ => Ok(read(&path)?.unwrap_or_default()),
    }
}

/// The named secret, if there is one.
pub(super) fn find(data_dir: &Path, name: &str) -> Result<Option<String>, LocalError> {
    read(&data_dir.join(FOLDER).join(name))
}

fn read(path: &Path) -> Result<Option<String>, LocalError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text.trim().to_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(file(path)(error)),
    }
}

/// Writes a file that only its owner may read, whatever was there before.
pub(super) fn write_private(path: &Path, text: &str) -> io::Result<()> {
    let gone = fs::remove_file(path);
    if let Err(error) = gone
        && error.kind() != io::ErrorKind::NotFound
    {
        return Err(error);
    }
    let mut new = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    new.write_all(text.as_bytes())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn secrets_are_long_stable_and_private() {
        let dir = tempfile::tempdir().unwrap();
        let first = Secrets::keep(dir.path()).unwrap();
        let second = Secrets::keep(dir.path()).unwrap();
        assert_eq!(first.access_secret, second.access_secret);
        assert_ne!(first.access_secret, first.queue_secret);
        assert_eq!(first.access_secret.len(), 2 * BYTES);
        let mode = |path: &str| fs::metadata(dir.path().join(path)).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode("secrets"), 0o700);
        assert_eq!(mode("secrets/access_secret"), 0o600);
        assert!(!format!("{first:?}").contains(&first.queue_secret));
    }
}
