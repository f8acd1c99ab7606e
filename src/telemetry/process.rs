//! The standard metrics of a process (`process_*`), read from /proc where there is one.

use std::fs;

use nix::sys::resource::{Resource, getrlimit};

/// Linux gives times to programs in hundredths of a second, whatever its kernel counts in.
const TICKS_PER_SECOND: f64 = 100.0;
/// The fields of /proc/self/stat behind the program's name, which may have spaces in it, begin with this one.
const FIRST_FIELD: usize = 3;

/// Measures the process now. Answers the seconds of processor time that it has used, which the recorder has no kind for: its
/// counters are whole numbers. Elsewhere than on Linux nothing is shown.
pub fn measure() -> Option<f64> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    let gauge = |name, value: Option<f64>| {
        if let Some(value) = value {
            metrics::gauge!(name).set(value);
        }
    };
    let times = Times::parse(&stat);
    gauge("process_start_time_seconds", times.as_ref().and_then(|times| Some(boot_time()? + times.start)));
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let kilobytes = |name| Some(number(&status, name)? * 1_024.0);
    gauge("process_resident_memory_bytes", kilobytes("VmRSS:"));
    gauge("process_virtual_memory_bytes", kilobytes("VmSize:"));
    gauge("process_threads", number(&status, "Threads:"));
    // One of them is the folder itself.
    let open = fs::read_dir("/proc/self/fd").map(|open| open.count().saturating_sub(1) as f64);
    gauge("process_open_fds", open.ok());
    gauge("process_max_fds", getrlimit(Resource::RLIMIT_NOFILE).ok().map(|(soft, _hard)| soft as f64));
    times.map(|times| times.used)
}

/// Times in seconds.
struct Times {
    used: f64,
    /// From the start of the machine to the start of the process.
    start: f64,
}

impl Times {
    /// The numbers of the fields are those of proc(5).
    fn parse(stat: &str) -> Option<Self> {
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        let seconds =
            |number: usize| Some(fields.get(number - FIRST_FIELD)?.parse::<f64>().ok()? / TICKS_PER_SECOND);
        Some(Self { used: seconds(14)? + seconds(15)?, start: seconds(22)? })
    }
}

/// When the machine started, in seconds since 1970.
fn boot_time() -> Option<f64> {
    number(&fs::read_to_string("/proc/stat").ok()?, "btime ")
}

/// The first number of the line that begins with a name.
fn number(text: &str, name: &str) -> Option<f64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(name))?;
    rest.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_follow_a_name_with_spaces() {
        let text =
            "42 (box (office)) S 1 42 42 0 -1 4194560 5 0 0 0 250 50 0 0 20 0 7 0 8800 1000000 256 18446744";
        let times = Times::parse(text).unwrap();
        assert_eq!((times.used, times.start), (3.0, 88.0));
        assert!(Times::parse("42 (short) S 1").is_none());
        assert_eq!(number("VmSize:\t 9 kB\nVmRSS:\t  1024 kB\n", "VmRSS:"), Some(1_024.0));
        assert_eq!(number("VmSize:\t 9 kB\n", "VmRSS:"), None);
    }
}
