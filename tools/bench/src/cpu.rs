//! The processor time of the servers: of every descendant of this process.

use std::collections::BTreeMap;

/// Seconds of processor time that all descendants of this process have used so far, those that have ended included.
/// None where the system does not report them.
pub(super) fn of_servers() -> Option<f64> {
    Some(by_server()?.values().sum())
}

/// The same by the names of the programs. What a server's own processes used is the server's.
#[cfg(target_os = "linux")]
pub(super) fn by_server() -> Option<BTreeMap<String, f64>> {
    let all: Vec<procfs::process::Stat> =
        procfs::process::all_processes().ok()?.filter_map(|process| process.ok()?.stat().ok()).collect();
    let own = procfs::process::Process::myself().ok()?.stat().ok()?;
    let parents: BTreeMap<i32, i32> = all.iter().map(|stat| (stat.pid, stat.ppid)).collect();
    let is_below = |pid: i32| {
        let mut at = pid;
        while let Some(parent) = parents.get(&at) {
            if *parent == own.pid {
                return true;
            }
            at = *parent;
        }
        false
    };
    // A process that was waited for counts among its parent's children.
    let ended = |stat: &procfs::process::Stat| u64::try_from(stat.cutime + stat.cstime).unwrap_or(0);
    let seconds = |ticks: u64| ticks as f64 / procfs::ticks_per_second() as f64;
    let mut servers = BTreeMap::from([("ended".to_owned(), seconds(ended(&own)))]);
    for stat in all.iter().filter(|stat| is_below(stat.pid)) {
        *servers.entry(server(&stat.comm).to_owned()).or_default() +=
            seconds(stat.utime + stat.stime + ended(stat));
    }
    Some(servers)
}

/// The server that a program belongs to; the system cuts long names off. The service is this program.
#[cfg(target_os = "linux")]
fn server(program: &str) -> &str {
    let known = ["postgres", "nats-server", "boxoffice"];
    known.into_iter().find(|name| program.starts_with(name)).unwrap_or(program)
}

/// None: this system does not report them.
#[cfg(not(target_os = "linux"))]
pub(super) fn by_server() -> Option<BTreeMap<String, f64>> {
    None
}
