//! How many connections fit into the limit on open files.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Most connections to the admin listener.
pub const ADMIN_CONNECTIONS_MAX: u32 = 256;
/// Files of the process that are no connections of buyers: those to the servers and to the admin listener, logs, and what
/// tests and tools open.
const OTHER_FILES: u64 = 256 + ADMIN_CONNECTIONS_MAX as u64;

/// As many connections as the process may have files open for; the soft limit is raised as far as the hard one allows.
pub fn within_open_files(connections: u32) -> u32 {
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return connections };
    let wanted = u64::from(connections) + OTHER_FILES;
    let raised = wanted.min(hard).max(soft);
    let allowed = match setrlimit(Resource::RLIMIT_NOFILE, raised, hard) {
        Ok(()) => raised,
        Err(_) => soft,
    };
    if allowed >= wanted {
        return connections;
    }
    let fits = u32::try_from(allowed.saturating_sub(OTHER_FILES).max(allowed / 2)).unwrap_or(connections);
    tracing::warn!(
        wanted = connections,
        allowed = fits,
        "the limit on open files (ulimit -n) allows fewer connections than BOXOFFICE_MAX_CONNECTIONS; raise it"
    );
    fits
}
