//! A process of the real program that halts at given failpoints and is killed there.

use std::process::Stdio;
use std::sync::{Arc, Mutex};

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

use crate::common::Env;
use crate::common::app::{QUEUE_SECRET, TICKET_SECRET, until};
use crate::common::http::SECRET;

/// The process is killed when this is dropped.
pub struct Process {
    child: Child,
    out: Lines<BufReader<ChildStdout>>,
    halted: Arc<Mutex<Vec<String>>>,
}

impl Process {
    /// Starts a process with these roles that halts at these failpoints.
    pub fn start(env: &Env, flags: &[String], roles: &str, halt_at: &[String]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_boxoffice"))
            .args(["serve", "--json", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"])
            .args(["--role", roles])
            .args(["--access-secret", SECRET, "--queue-secret", QUEUE_SECRET])
            .args(["--ticket-secret", TICKET_SECRET])
            .args(flags)
            .env("DATABASE_URL", &env.database_url)
            .env("NATS_URL", &env.nats_url)
            .env("BOXOFFICE_HALT_AT", halt_at.join(","))
            .env("RUST_LOG", "error")
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let halted = Arc::<Mutex<Vec<String>>>::default();
        let mut said = BufReader::new(child.stderr.take().unwrap()).lines();
        let heard = Arc::clone(&halted);
        tokio::spawn(async move {
            while let Ok(Some(line)) = said.next_line().await {
                match line.strip_prefix("halted at ") {
                    Some(point) => heard.lock().unwrap().push(point.to_owned()),
                    None => eprintln!("{line}"),
                }
            }
        });
        let out = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, out, halted }
    }

    /// The URL of the API; the process needs the role `api`.
    pub async fn url(&mut self) -> String {
        let line = self.out.next_line().await.unwrap().expect("it says where it is");
        let answer: Value = serde_json::from_str(&line).unwrap();
        answer["url"].as_str().unwrap().to_owned()
    }

    pub fn halted(&self, point: &str) -> usize {
        self.halted.lock().unwrap().iter().filter(|halted| *halted == point).count()
    }

    pub async fn until_halted(&self, point: &str, times: usize) {
        until(20, &format!("the process to halt at {point}"), || async { self.halted(point) >= times }).await;
    }

    /// Sends SIGKILL.
    pub async fn kill(mut self) {
        self.child.kill().await.unwrap();
    }

    /// Sends a signal such as SIGSTOP or SIGCONT.
    #[allow(dead_code)] // only the slow tests use it
    pub fn signal(&self, signal: nix::sys::signal::Signal) {
        let pid = i32::try_from(self.child.id().expect("it runs")).unwrap();
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), signal).unwrap();
    }
}
