//! What the servers cost the processor: the time of every process that this one started, and of theirs.

/// Seconds of processor time that all descendants of this process have used so far, those that have ended included.
/// None where the system does not tell.
#[cfg(target_os = "linux")]
pub(super) fn of_servers() -> Option<f64> {
    use std::collections::BTreeMap;

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
    let below: u64 =
        all.iter().filter(|stat| is_below(stat.pid)).map(|stat| stat.utime + stat.stime + ended(stat)).sum();
    Some((below + ended(&own)) as f64 / procfs::ticks_per_second() as f64)
}

/// None: the system does not tell.
#[cfg(not(target_os = "linux"))]
pub(super) fn of_servers() -> Option<f64> {
    None
}
