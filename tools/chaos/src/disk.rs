//! Small file systems in memory, so that a disk can be full without harm to the machine.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::Context;
use nix::mount::{MntFlags, MsFlags, mount, umount2};

/// Names the file that fills the disk.
const FILLER: &str = "filler";

/// A mounted file system of a fixed size; it is unmounted when it is dropped.
pub struct SmallDisk {
    folder: PathBuf,
}

impl SmallDisk {
    /// Mounts one at `folder`, which is made. Only root may.
    pub fn mount(folder: &Path, megabytes: u32) -> anyhow::Result<Self> {
        fs::create_dir_all(folder)?;
        let options = format!("size={megabytes}m,mode=711");
        mount(Some("tmpfs"), folder, Some("tmpfs"), MsFlags::empty(), Some(options.as_str()))
            .with_context(|| format!("cannot mount a file system at {}", folder.display()))?;
        Ok(Self { folder: folder.to_owned() })
    }

    /// Takes all space that is left.
    pub fn fill(&self) -> anyhow::Result<()> {
        let mut file = File::options().create(true).append(true).open(self.folder.join(FILLER))?;
        for size in [1 << 20, 4 << 10] {
            let block = vec![0; size];
            // It ends when no further block fits.
            while file.write_all(&block).is_ok() {}
        }
        Ok(())
    }

    /// Gives the space back.
    pub fn free(&self) -> anyhow::Result<()> {
        Ok(fs::remove_file(self.folder.join(FILLER))?)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        if let Err(error) = umount2(&self.folder, MntFlags::MNT_DETACH) {
            eprintln!("{} stays mounted: {error}", self.folder.display());
        }
    }
}
