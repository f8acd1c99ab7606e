//! Where Postgres's files lie: in the data directory, or elsewhere if the user it runs as cannot get there.
//!
//! A clone below a directory that only root may enter is the usual case. The data directory then says
//! where they are (`postgres.path`), and the files say whose they are (`belongs-to`), so that a data directory
//! that was moved finds them again and one that was copied does not share them.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::error::{LocalError, file};
use super::os_user::OsUser;
use super::secrets::write_private;

const INSIDE: &str = "postgres";
const POINTER: &str = "postgres.path";
const OWNER: &str = "belongs-to";

/// Where the files of Postgres are or will be, and the user it runs as (`None`: ourselves). The directory is
/// made, owned by that user and closed to others.
pub(super) fn of_postgres(data_dir: &Path) -> Result<(PathBuf, Option<OsUser>), LocalError> {
    let inside = data_dir.join(INSIDE);
    let pointer = data_dir.join(POINTER);
    if let Some(elsewhere) = pointed(&pointer)? {
        return take_over(data_dir, &pointer, elsewhere);
    }
    let Some(user) = OsUser::for_postgres(&inside)? else {
        make(&inside, None)?;
        return Ok((inside, None));
    };
    // A database that is there already stays where it is; if it cannot be reached any more, its start says so.
    if inside.join("data").exists() {
        return Ok((inside, Some(user)));
    }
    // Some file systems (shared with the host of a container) do not allow a directory to change its owner.
    if user.may_enter(data_dir) && make(&inside, Some(user)).is_ok() {
        return Ok((inside, Some(user)));
    }
    let elsewhere = elsewhere(data_dir, user)?;
    // Nothing points there: it was left by a data directory of this very path that has been removed.
    if elsewhere.exists() {
        fs::remove_dir_all(&elsewhere).map_err(file(&elsewhere))?;
    }
    make(&elsewhere, Some(user))?;
    sign(&elsewhere, data_dir)?;
    write_private(&pointer, &format!("{}\n", elsewhere.display())).map_err(file(&pointer))?;
    tracing::info!(files = %elsewhere.display(), "Postgres's files lie elsewhere: the user that it runs as cannot use the data directory");
    Ok((elsewhere, Some(user)))
}

fn pointed(pointer: &Path) -> Result<Option<PathBuf>, LocalError> {
    match fs::read_to_string(pointer) {
        Ok(text) => Ok(Some(PathBuf::from(text.trim()))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(file(pointer)(error)),
    }
}

/// Uses the files that the data directory points at, unless they are another directory's.
fn take_over(
    data_dir: &Path,
    pointer: &Path,
    files: PathBuf,
) -> Result<(PathBuf, Option<OsUser>), LocalError> {
    let user = OsUser::for_postgres(&files)?;
    if !files.exists() {
        tracing::warn!(files = %files.display(), "Postgres's files are gone; beginning with an empty database");
        make(&files, user)?;
        sign(&files, data_dir)?;
        return Ok((files, user));
    }
    let owner = fs::read_to_string(files.join(OWNER)).unwrap_or_default();
    let owner = PathBuf::from(owner.trim());
    if owner != data_dir {
        // The owner may have been moved here; if it still stands where it stood, it is a copy that we are.
        if pointed(&owner.join(POINTER))?.as_deref() == Some(&files) {
            return Err(LocalError::Foreign { pointer: pointer.to_owned(), files, owner });
        }
        sign(&files, data_dir)?;
    }
    Ok((files, user))
}

fn sign(files: &Path, data_dir: &Path) -> Result<(), LocalError> {
    let path = files.join(OWNER);
    write_private(&path, &format!("{}\n", data_dir.display())).map_err(file(&path))
}

/// A place that survives a restart of the machine if there is one, named after the data directory.
fn elsewhere(data_dir: &Path, user: OsUser) -> Result<PathBuf, LocalError> {
    let digest = Sha256::digest(data_dir.as_os_str().as_encoded_bytes());
    let name: String = digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    let bases = ["/var/lib/boxoffice".into(), std::env::temp_dir(), "/tmp".into()];
    let usable = |base: &PathBuf| {
        let made = DirBuilder::new().recursive(true).mode(0o755).create(base);
        made.is_ok()
            && nix::unistd::access(base, nix::unistd::AccessFlags::W_OK).is_ok()
            && user.may_enter(base)
    };
    match bases.into_iter().find(usable) {
        Some(base) => Ok(base.join(format!("postgres-{name}"))),
        None => Err(LocalError::NoOsUser(format!(
            "the user that it could run as can enter neither {} nor a place for temporary files",
            data_dir.display()
        ))),
    }
}

/// Creates the directory. In a world-writable place another user could have created it before.
fn make(dir: &Path, user: Option<OsUser>) -> Result<(), LocalError> {
    if let Err(error) = DirBuilder::new().mode(0o700).create(dir)
        && error.kind() != io::ErrorKind::AlreadyExists
    {
        return Err(file(dir)(error));
    }
    let found = fs::symlink_metadata(dir).map_err(file(dir))?;
    let ours = nix::unistd::Uid::effective().as_raw();
    let trusted = [Some(ours), user.map(|user| user.uid)];
    if !found.is_dir() || !trusted.contains(&Some(found.uid())) {
        let source = io::Error::new(io::ErrorKind::PermissionDenied, "belongs to another user; remove it");
        return Err(LocalError::File { path: dir.to_owned(), source });
    }
    user.map_or(Ok(()), |user| user.own(dir))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data_dir(parent: &Path, name: &str, files: &Path) -> PathBuf {
        let dir = parent.join(name);
        fs::create_dir(&dir).unwrap();
        fs::write(dir.join(POINTER), format!("{}\n", files.display())).unwrap();
        dir
    }

    #[test]
    fn files_elsewhere_follow_a_move_not_a_copy() {
        let parent = tempfile::tempdir().unwrap();
        let files = parent.path().join("files");
        let first = data_dir(parent.path(), "first", &files);
        assert_eq!(of_postgres(&first).unwrap().0, files);
        assert_eq!(of_postgres(&first).unwrap().0, files);

        let copy = data_dir(parent.path(), "copy", &files);
        let error = of_postgres(&copy).unwrap_err().to_string();
        assert!(error.contains("first") && error.contains(POINTER), "{error}");

        fs::remove_dir_all(&first).unwrap();
        assert_eq!(of_postgres(&copy).unwrap().0, files);
    }
}
