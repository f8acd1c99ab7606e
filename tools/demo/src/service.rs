//! The service that the demo starts for itself: this program with the command `up`, as a process of its own, on servers
//! and a data directory of its own.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};

use dev_servers::addresses::{self, Addresses};

/// How long a start may take: the first one creates a database.
const START: Duration = Duration::from_secs(60);
/// How long the service may take to stop before it is killed.
const FAREWELL: Duration = Duration::from_secs(20);
/// Lines of its log that are shown when it fails.
const TAIL: usize = 15;

/// Why there is no service.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// The program cannot be run again.
    #[error("the service cannot be started: {0}")]
    Io(#[from] std::io::Error),
    /// It ended by itself.
    #[error("the service ended before it was ready ({status}); its last words:\n{tail}")]
    Ended { status: ExitStatus, tail: String },
    /// It runs, but is not ready.
    #[error("the service was not ready after {} s; its last words:\n{tail}", START.as_secs())]
    NotReady { tail: String },
}

/// A running `boxoffice up`. Dropping it kills it.
#[derive(Debug)]
pub struct Service {
    child: Child,
    addresses: Addresses,
}

impl Service {
    /// Starts `boxoffice up` on `data_dir` with these further arguments and environment, and waits until it is ready.
    ///
    /// # Errors
    /// With the end of its log if it ends or is not ready in time.
    pub async fn start(
        data_dir: &Path,
        arguments: &[OsString],
        environment: &[(&str, String)],
    ) -> Result<Self, ServiceError> {
        let mut child = Command::new(std::env::current_exe()?)
            .arg(super::UP)
            .arg("--until-stdin-ends")
            .arg("--data-dir")
            .arg(data_dir)
            .args(arguments)
            // The demo looks for operators' routes where buyers are answered.
            .env_remove("BOXOFFICE_ADMIN_LISTEN")
            .envs(environment.iter().map(|(name, value)| (*name, value)))
            // It stops when this pipe breaks, so that it does not outlive a demo that was killed.
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            // Ctrl-C is for the demo, which then stops the service in order.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()?;
        let tail = Arc::new(Mutex::new(VecDeque::new()));
        if let Some(log) = child.stderr.take() {
            tokio::spawn(keep_tail(log, Arc::clone(&tail)));
        }
        let log_tail = || {
            let lines = tail.lock().unwrap_or_else(PoisonError::into_inner);
            lines.iter().cloned().collect::<Vec<String>>().join("\n")
        };
        let patience = Instant::now() + START;
        while Instant::now() < patience {
            if let Some(status) = child.try_wait()? {
                return Err(ServiceError::Ended { status, tail: log_tail() });
            }
            if let Some(addresses) = addresses::find(data_dir)
                && is_ready(&addresses).await
            {
                return Ok(Self { child, addresses });
            }
            sleep(Duration::from_millis(50)).await;
        }
        Err(ServiceError::NotReady { tail: log_tail() })
    }

    /// Where it answers, and where its servers are.
    pub fn addresses(&self) -> &Addresses {
        &self.addresses
    }

    /// Stops it in order and waits for its end.
    pub async fn stop(mut self) {
        if let Some(pid) = self.child.id().and_then(|id| i32::try_from(id).ok()) {
            // If it is gone already there is nothing to stop.
            let _sent = kill(Pid::from_raw(pid), Signal::SIGINT);
        }
        if timeout(FAREWELL, self.child.wait()).await.is_err() {
            tracing::error!("the service did not stop in time and is killed");
        }
    }
}

async fn is_ready(addresses: &Addresses) -> bool {
    let asked = reqwest::get(format!("http://{}/readyz", addresses.http)).await;
    asked.is_ok_and(|answer| answer.status().is_success())
}

async fn keep_tail(log: impl AsyncRead + Unpin, tail: Arc<Mutex<VecDeque<String>>>) {
    let mut lines = BufReader::new(log).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        let mut kept = tail.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() == TAIL {
            kept.pop_front();
        }
        kept.push_back(line);
    }
}
