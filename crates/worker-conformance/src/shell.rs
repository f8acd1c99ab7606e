//! Shell commands of the user: one counts effects, one restarts the worker.

use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;
use tokio::time::timeout;
use uuid::Uuid;

/// How long a count may take.
const COUNT_TIMEOUT: Duration = Duration::from_secs(20);
/// How long a restart may take.
const RESTART_TIMEOUT: Duration = Duration::from_secs(60);

/// How many effects of a saga there are, by the user's command.
///
/// # Errors
/// If the command fails or prints no number. The text says why.
pub(crate) async fn count(command: &str, saga: Uuid) -> Result<u64, String> {
    let mut shell = shell(command);
    let output = shell.env("SAGA", saga.to_string()).stdout(Stdio::piped()).stderr(Stdio::piped()).output();
    let output = timeout(COUNT_TIMEOUT, output).await;
    let output = output.map_err(|_elapsed| format!("--count did not end within {COUNT_TIMEOUT:?}"))?;
    let output = output.map_err(|error| format!("--count could not be run: {error}"))?;
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    match out.trim().parse() {
        Ok(count) if output.status.success() => Ok(count),
        _ => Err(format!(
            "--count must print a number and end with 0; it ended with {} and printed {:?} {:?}",
            output.status,
            out.trim(),
            err.trim()
        )),
    }
}

/// Runs the command that kills the worker and starts it again. What it prints is discarded: the worker that it leaves running
/// would keep a pipe open.
///
/// # Errors
/// If the command fails. The text says why.
pub(crate) async fn restart(command: &str) -> Result<(), String> {
    let mut shell = shell(command);
    let status = timeout(RESTART_TIMEOUT, shell.stdout(Stdio::null()).stderr(Stdio::null()).status()).await;
    let status = status.map_err(|_elapsed| format!("--restart did not end within {RESTART_TIMEOUT:?}"))?;
    let status = status.map_err(|error| format!("--restart could not be run: {error}"))?;
    if status.success() { Ok(()) } else { Err(format!("--restart ended with {status}")) }
}

fn shell(command: &str) -> Command {
    let mut shell = Command::new("sh");
    shell.args(["-c", command]).stdin(Stdio::null()).kill_on_drop(true);
    shell
}
