//! The service under measurement: this program with the command `serve`, as a process of its own.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep, timeout};

use super::SERVE;
use super::allocations::{COUNT_FOR, Counter};
use super::client::Client;
use super::memory;

/// How long a start may take.
const START: Duration = Duration::from_secs(60);
/// How long it may take to stop before it is killed.
const FAREWELL: Duration = Duration::from_secs(20);
/// Characters of its log that are shown when it does not start.
const TAIL: usize = 2_000;

/// A running `boxoffice serve`. Dropping it kills it.
#[derive(Debug)]
pub(super) struct Process {
    child: Child,
    /// Talks to it.
    pub client: Client,
    /// From its start until it was ready, in seconds.
    pub start_took: f64,
    allocations: Option<Mutex<Counter>>,
}

impl Process {
    /// The same, and it counts its allocations.
    pub(super) async fn start_counting(
        roles: &str,
        mut environment: Vec<(String, String)>,
        log: &Path,
    ) -> anyhow::Result<Self> {
        let listener = Counter::listen().await?;
        environment.push((COUNT_FOR.to_owned(), listener.local_addr()?.to_string()));
        let started = Self::start(roles, &environment, log).await?;
        let counter = Counter::accept(listener).await?;
        Ok(Self { allocations: Some(Mutex::new(counter)), ..started })
    }

    /// How often it asked its allocator for memory.
    pub(super) async fn allocations(&self) -> anyhow::Result<u64> {
        let counter = self.allocations.as_ref().context("this process does not count its allocations")?;
        counter.lock().await.read().await
    }

    /// Starts it with these roles (the entrance among them, by which it is known to be ready) and this environment; it
    /// writes its log to a file.
    pub(super) async fn start(
        roles: &str,
        environment: &[(String, String)],
        log: &Path,
    ) -> anyhow::Result<Self> {
        let begun = Instant::now();
        let mut child = Command::new(std::env::current_exe()?)
            .args([SERVE, "--until-stdin-ends", "--json", "--role", roles])
            .args(["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"])
            .envs(environment.iter().map(|(name, value)| (name, value)))
            // It stops when this pipe breaks, so that it does not outlive a benchmark that was killed.
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(File::create(log)?)
            .process_group(0)
            .kill_on_drop(true)
            .spawn()?;
        let out = child.stdout.take().context("the service has no output")?;
        let mut lines = BufReader::new(out).lines();
        let line = timeout(START, lines.next_line()).await.ok().and_then(Result::ok).flatten();
        let Some(line) = line else {
            bail!("the service did not start; its log ends with:\n{}", tail(log));
        };
        let line: serde_json::Value = serde_json::from_str(&line)?;
        let url = |name: &str| line[name].as_str().context("the service did not say where it answers");
        let client = Client::new(url("url")?, url("admin_url")?)?;
        let patience = Instant::now() + START;
        while client.get("/readyz", &super::client::Caller::default()).await?.status != 200 {
            if Instant::now() > patience {
                bail!("the service was not ready in time; its log ends with:\n{}", tail(log));
            }
            sleep(Duration::from_millis(50)).await;
        }
        Ok(Self { child, client, start_took: begun.elapsed().as_secs_f64(), allocations: None })
    }

    /// Its resident memory in bytes; none where the system does not report it.
    pub(super) fn resident(&self) -> Option<u64> {
        memory::resident(self.child.id()?)
    }

    /// Its peak resident memory in bytes; none where the system does not report it.
    pub(super) fn peak_resident(&self) -> Option<u64> {
        memory::peak_resident(self.child.id()?)
    }

    /// Kills it with SIGKILL, and waits until it is gone.
    pub(super) async fn kill(mut self) -> anyhow::Result<()> {
        Ok(self.child.kill().await?)
    }

    /// Stops it in order and waits for its end.
    pub(super) async fn stop(mut self) {
        if let Some(pid) = self.child.id().and_then(|id| i32::try_from(id).ok()) {
            // If it is gone already there is nothing to stop.
            let _sent = kill(Pid::from_raw(pid), Signal::SIGINT);
        }
        if timeout(FAREWELL, self.child.wait()).await.is_err() {
            tracing::error!("the service did not stop in time and is killed");
        }
    }
}

fn tail(log: &Path) -> String {
    let text = std::fs::read_to_string(PathBuf::from(log)).unwrap_or_default();
    let start = text.char_indices().rev().nth(TAIL).map_or(0, |(at, _)| at);
    text[start..].to_owned()
}
