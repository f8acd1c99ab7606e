//! A server that never outlives its owner, and a log that shows whether the server still runs.
//!
//! A small shell script (`supervisor.sh`) is the parent of each server and waits on a pipe that only our process
//! holds open. Stopping cleanly and dying by `kill -9` are the same to it: the pipe ends. The server's log
//! is locked, and the lock is inherited by all that write to it, so it is free only once they are all gone,
//! whatever happened to pid files and pids.

use std::ffi::{OsStr, OsString};
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, SeekFrom};
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::process::{Child, Command};
use tokio::time::sleep;

use super::error::{LocalError, file};
use super::os_user::OsUser;

const SCRIPT: &str = include_str!("supervisor.sh");
/// A log larger than this is begun anew.
const LOG_BYTES_MAX: u64 = 8 << 20;
/// How much of a log an error shows.
const TAIL_BYTES: u64 = 2_000;
/// How long a server may take to end by itself after its owner has stopped, before it gets SIGTERM.
const TERM_AFTER: Duration = Duration::from_secs(5);
/// And then, before it is killed; a database may have much to write.
const KILL_AFTER: Duration = Duration::from_secs(60);
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// What to run, and how.
#[derive(Debug)]
pub(super) struct Launch<'a> {
    /// What messages call it.
    pub(super) what: &'static str,
    pub(super) program: &'a Path,
    pub(super) arguments: Vec<OsString>,
    /// Whom to run as, if not as ourselves.
    pub(super) user: Option<OsUser>,
    /// A directory that this user may enter.
    pub(super) folder: &'a Path,
    /// Ends it cleanly, such as `INT`.
    pub(super) signal: &'static str,
    /// What stands in its environment beside ours.
    pub(super) environment: Vec<(&'static str, &'static str)>,
}

/// The log of a server, which nothing of an earlier run writes to any more.
#[derive(Debug)]
pub(super) struct Log {
    path: PathBuf,
    file: File,
    /// Where this run begins in it.
    start: u64,
}

/// A server with its supervisor.
#[derive(Debug)]
pub(super) struct Server {
    what: &'static str,
    supervisor: Child,
    /// The pipe. Held here and not in the child, because waiting for a child closes its input.
    leash: Option<OwnedFd>,
    log: PathBuf,
    start: u64,
}

/// How to recognise a server of an earlier run that its supervisor has not ended.
#[derive(Debug)]
pub(super) struct Traces<'a> {
    /// A file whose first line is its pid.
    pub(super) pid_file: &'a Path,
    /// Something that its command line contains, and no other's.
    pub(super) mark: &'a OsStr,
    pub(super) signal: Signal,
}

impl Log {
    /// Opens the log once every process of an earlier run is gone. One whose supervisor was killed is ended here.
    pub(super) async fn claim(
        path: &Path,
        what: &'static str,
        traces: &Traces<'_>,
    ) -> Result<Self, LocalError> {
        let opened = OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(path);
        let log = opened.map_err(file(path))?;
        let began = Instant::now();
        let mut last_wish = None;
        loop {
            match log.try_lock() {
                Ok(()) => break,
                Err(TryLockError::WouldBlock) => {}
                Err(TryLockError::Error(source)) => return Err(file(path)(source)),
            }
            let wish = match began.elapsed() {
                waited if waited > TERM_AFTER + KILL_AFTER => Some(Signal::SIGKILL),
                waited if waited > TERM_AFTER => Some(traces.signal),
                _ => None,
            };
            if wish != last_wish {
                last_wish = wish;
                end_survivor(what, traces, wish);
            }
            if began.elapsed() > 2 * TERM_AFTER + KILL_AFTER {
                return Err(LocalError::Survivor { what, log: path.to_owned() });
            }
            sleep(POLL_INTERVAL).await;
        }
        let length = log.metadata().map_err(file(path))?.len();
        let start = if length > LOG_BYTES_MAX { 0 } else { length };
        if start < length {
            log.set_len(0).map_err(file(path))?;
        }
        Ok(Self { path: path.to_owned(), file: log, start })
    }
}

/// Signals the process of the pid file, if it is what we think it is.
fn end_survivor(what: &str, traces: &Traces<'_>, signal: Option<Signal>) {
    let pid = std::fs::read_to_string(traces.pid_file).ok();
    let pid = pid.and_then(|text| text.lines().next()?.trim().parse::<i32>().ok());
    let (Some(pid), Some(signal)) = (pid, signal) else {
        return;
    };
    let mark = traces.mark.as_encoded_bytes();
    let ours = command_line(pid).windows(mark.len()).any(|part| part == mark);
    if ours {
        tracing::warn!(pid, %signal, "{what} of an earlier run is still there, ending it");
        // It may have ended between the two. Then the lock decides.
        let _sent = kill(Pid::from_raw(pid), signal);
    }
}

/// From the system's own table where there is one (small machines have no `ps`), else from `ps`.
fn command_line(pid: i32) -> Vec<u8> {
    std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_else(|_| {
        let ps =
            std::process::Command::new("ps").args(["-ww", "-o", "args=", "-p", &pid.to_string()]).output();
        ps.map(|listed| listed.stdout).unwrap_or_default()
    })
}

impl Server {
    /// Starts the server with its supervisor, in a process group of their own: Ctrl-C is for us, not for them.
    pub(super) fn launch(launch: &Launch<'_>, log: &Log) -> Result<Self, LocalError> {
        let unrunnable = |source| LocalError::Unrunnable { program: launch.program.to_owned(), source };
        let output = |log: &Log| log.file.try_clone().map(Stdio::from).map_err(file(&log.path));
        // Its comments would stand in every list of processes.
        let code = SCRIPT.lines().filter(|line| !line.starts_with('#'));
        let code = code.collect::<Vec<_>>().join("\n");
        let mut command = Command::new("/bin/sh");
        command
            .args(["-c", &code, "boxoffice-keeper", launch.signal])
            .arg(launch.program)
            .args(&launch.arguments)
            .current_dir(launch.folder)
            // What they log is read here too.
            .env("LC_ALL", "C")
            .envs(launch.environment.iter().copied())
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(output(log)?)
            .stderr(output(log)?);
        // Settings for clients and tests must not reach the server.
        for (name, _) in std::env::vars_os() {
            if name.as_encoded_bytes().starts_with(b"PG") {
                command.env_remove(name);
            }
        }
        if let Some(user) = launch.user {
            command.uid(user.uid).gid(user.gid).env("HOME", launch.folder);
        }
        let mut supervisor = command.spawn().map_err(unrunnable)?;
        let leash =
            supervisor.stdin.take().map(|stdin| stdin.into_owned_fd()).transpose().map_err(unrunnable)?;
        Ok(Self { what: launch.what, supervisor, leash, log: log.path.clone(), start: log.start })
    }

    /// Waits for its end, whatever the reason.
    pub(super) async fn exit(&mut self) -> std::io::Result<ExitStatus> {
        self.supervisor.wait().await
    }

    /// Waits until it ends without being asked to, and says so.
    pub(super) async fn ended(&mut self) -> LocalError {
        let how = match self.exit().await {
            Ok(status) => format!("ended ({status})"),
            Err(error) => format!("is lost ({error})"),
        };
        self.failed(how)
    }

    /// An error that shows the end of the log.
    pub(super) fn failed(&self, how: String) -> LocalError {
        let tail = tail(&self.log, self.start).unwrap_or_else(|error| error.to_string());
        LocalError::Failed { what: self.what, how, log: self.log.clone(), tail }
    }

    /// Ends it and waits until it is gone.
    pub(super) async fn stop(mut self) {
        drop(self.leash.take());
        if let Err(error) = self.exit().await {
            tracing::warn!(%error, "cannot find out whether {} has ended", self.what);
        }
    }
}

fn tail(path: &Path, start: u64) -> std::io::Result<String> {
    let mut log = File::open(path)?;
    let length = log.metadata()?.len();
    log.seek(SeekFrom::Start(start.max(length.saturating_sub(TAIL_BYTES))))?;
    let mut bytes = Vec::new();
    log.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).trim_end().to_owned())
}

/// The port of the last run if it is free, else any free one. Another program may take it before the server does; then
/// the start fails and is tried again.
pub(super) fn free_port(last_run: &Path) -> std::io::Result<u16> {
    let same = std::fs::read_to_string(last_run).ok().and_then(|text| text.trim().parse().ok());
    let bind = |port: u16| std::net::TcpListener::bind(("127.0.0.1", port));
    let listener = bind(same.unwrap_or(0)).or_else(|_| bind(0))?;
    Ok(listener.local_addr()?.port())
}
