//! The user that Postgres runs as. It refuses root, so for root it is another one.

use std::ffi::OsStr;
use std::os::unix::fs::{MetadataExt, chown};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use nix::unistd::{Uid, User};

use super::error::{LocalError, file};

/// Users without rights of their own, best first.
const CANDIDATES: [&str; 3] = ["postgres", "_postgres", "nobody"];

/// A user to become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct OsUser {
    pub(super) uid: u32,
    pub(super) gid: u32,
}

impl OsUser {
    /// The user that a Postgres with these files must run as; `None`: the current user, unless that is root. Files of
    /// an earlier run keep their owner.
    pub(super) fn for_postgres(files: &Path) -> Result<Option<Self>, LocalError> {
        if !Uid::effective().is_root() {
            return Ok(None);
        }
        if let Ok(found) = std::fs::metadata(files)
            && found.uid() != 0
        {
            return Ok(Some(Self { uid: found.uid(), gid: found.gid() }));
        }
        let user = CANDIDATES.iter().find_map(|name| User::from_name(name).ok().flatten());
        match user {
            Some(user) => Ok(Some(Self { uid: user.uid.as_raw(), gid: user.gid.as_raw() })),
            None => Err(LocalError::NoOsUser("there is neither a user `postgres` nor `nobody`".into())),
        }
    }

    /// Whether this user may enter a directory. It tries, because the mode bits alone do not show it.
    pub(super) fn may_enter(self, dir: &Path) -> bool {
        let arguments = [OsStr::new("-c"), OsStr::new("cd \"$1\""), OsStr::new("sh"), dir.as_os_str()];
        Command::new("/bin/sh")
            .args(arguments)
            .uid(self.uid)
            .gid(self.gid)
            .current_dir("/")
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success())
    }

    /// Gives a file or directory to this user.
    pub(super) fn own(self, path: &Path) -> Result<(), LocalError> {
        chown(path, Some(self.uid), Some(self.gid)).map_err(file(path))
    }
}
