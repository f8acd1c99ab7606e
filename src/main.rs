//! The program `boxoffice`: reads the command, runs it, ends with its exit code.

use std::process::ExitCode;

/// Requests and batches make and drop many small things at once, on several threads.
#[global_allocator]
static MEMORY: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// In builds for tests: the points where the process halts, separated by commas.
const HALT_AT: &str = "BOXOFFICE_HALT_AT";
/// In builds for tests: the points where the task that comes to them panics, separated by commas.
const PANIC_AT: &str = "BOXOFFICE_PANIC_AT";

#[tokio::main]
async fn main() -> ExitCode {
    halt_at_failpoints();
    boxoffice::cli::main().await
}

/// Between commit, publish and acknowledgement stand points such as `fail_point!("worker::committed")`. In a build
/// for tests a process that comes to a point that is named here says so and halts for good, until the test kills the
/// process. Every other build has no points at all: the macro expands to nothing.
fn halt_at_failpoints() {
    if !fail::has_failpoints() {
        return;
    }
    let named = |variable| std::env::var(variable).unwrap_or_default();
    for point in named(PANIC_AT).split(',').filter(|point| !point.is_empty()) {
        fail::cfg(point, "panic").expect("every point can be made to panic");
    }
    for point in named(HALT_AT).split(',').filter(|point| !point.is_empty()) {
        let name = point.to_owned();
        // In place: the other tasks of this thread go on elsewhere.
        let halt = move || {
            tokio::task::block_in_place(|| {
                eprintln!("halted at {name}");
                loop {
                    std::thread::park();
                }
            })
        };
        fail::cfg_callback(point, halt).expect("a callback can be set at every point");
    }
}
