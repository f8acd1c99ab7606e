//! The memory of a process.

/// The resident memory of a process, in bytes. None where the system does not report it.
#[cfg(target_os = "linux")]
pub(super) fn resident(process: u32) -> Option<u64> {
    let process = procfs::process::Process::new(i32::try_from(process).ok()?).ok()?;
    Some(process.statm().ok()?.resident * procfs::page_size())
}

/// None: this system does not report it.
#[cfg(not(target_os = "linux"))]
pub(super) fn resident(_process: u32) -> Option<u64> {
    None
}

/// The most memory that a process had so far, in bytes. None where the system does not say so.
#[cfg(target_os = "linux")]
pub(super) fn peak_resident(process: u32) -> Option<u64> {
    let process = procfs::process::Process::new(i32::try_from(process).ok()?).ok()?;
    Some(process.status().ok()?.vmhwm? * 1_024)
}

/// None: the system does not say so.
#[cfg(not(target_os = "linux"))]
pub(super) fn peak_resident(_process: u32) -> Option<u64> {
    None
}
