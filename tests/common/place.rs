//! Directories of this test process, and the sweeper that removes them when the process has ended.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

/// Waits for the end of its input, which only this process holds open; kills workers in other languages; then waits for the servers, which end for the same
/// reason; then removes everything, also what lies elsewhere.
const SWEEPER: &str = r#"
    read -r _
    for file in "$1"/*/worker.pid; do
        read -r pid <"$file" && kill -9 "$pid"
    done
    for file in "$1"/*/postgres/data/postmaster.pid "$1"/*/nats/pid; do
        left=300
        while [ "$left" -gt 0 ] && read -r pid <"$file" && kill -0 "$pid"; do
            sleep 0.1
            left=$((left - 1))
        done
    done
    for pointer in "$1"/*/postgres.path; do
        read -r elsewhere <"$pointer" && rm -rf "$elsewhere"
    done
    rm -rf "$1"
"#;

struct Place {
    root: PathBuf,
    /// Its input is the pipe that ends with this process.
    _sweeper: Child,
}

/// A new directory's path; `name` is for people. The directory itself is not made yet.
pub fn fresh_dir(name: &str) -> PathBuf {
    static PLACE: OnceLock<Place> = OnceLock::new();
    static NEXT: AtomicU32 = AtomicU32::new(1);
    let place = PLACE.get_or_init(Place::new);
    place.root.join(format!("{}-{name}", NEXT.fetch_add(1, Ordering::Relaxed)))
}

impl Place {
    fn new() -> Self {
        // Passable for the user that Postgres runs as when the tests run as root.
        let mut builder = tempfile::Builder::new();
        builder.prefix("boxoffice-it-").permissions(Permissions::from_mode(0o711));
        let root = builder.tempdir().expect("there is a place for temporary files").keep();
        let sweeper = sweep(&root);
        Self { root, _sweeper: sweeper }
    }
}

fn sweep(root: &Path) -> Child {
    Command::new("/bin/sh")
        .args(["-c", SWEEPER, "boxoffice-sweeper"])
        .arg(root)
        .current_dir("/")
        .process_group(0)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("a shell starts")
}
