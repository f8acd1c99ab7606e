//! Two instances of the service with a Postgres and a nats-server of their own, and the means to stop and start each.

use std::fs::{self, File, Permissions};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, bail};
use dev_servers::{Given, Local};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, Uid};
use serde_json::Value;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep};

use crate::disk::SmallDisk;

/// Large enough for the write-ahead log of a run.
const POSTGRES_DISK_MB: u32 = 1_536;
const NATS_DISK_MB: u32 = 192;
const POLL_INTERVAL: Duration = Duration::from_millis(100);
/// Short enough that holds run out during a run.
const SETTINGS: [(&str, &str); 4] = [
    ("BOXOFFICE_LOCAL", "true"),
    ("BOXOFFICE_HOLD_SECONDS", "8"),
    ("BOXOFFICE_PAYMENT_GRACE_SECONDS", "4"),
    ("BOXOFFICE_QUEUE_SESSION_SECONDS", "120"),
];

/// A private server that can be ended and started again with its data.
pub struct Server {
    folder: PathBuf,
    is_postgres: bool,
    running: Option<Local>,
    pub disk: Option<SmallDisk>,
    url: String,
}

/// One process of the service.
pub struct Instance {
    number: usize,
    port: u16,
    child: Child,
}

pub struct Cluster {
    pub postgres: Server,
    pub nats: Server,
    pub instances: Vec<Instance>,
    pub client: reqwest::Client,
    program: PathBuf,
    folder: PathBuf,
}

impl Server {
    async fn start(folder: PathBuf, is_postgres: bool) -> anyhow::Result<Self> {
        let megabytes = if is_postgres { POSTGRES_DISK_MB } else { NATS_DISK_MB };
        let disk = Uid::effective().is_root().then(|| SmallDisk::mount(&folder, megabytes)).transpose()?;
        fs::create_dir_all(&folder)?;
        fs::set_permissions(&folder, Permissions::from_mode(0o711))?;
        let mut server = Self { folder, is_postgres, running: None, disk, url: String::new() };
        server.run().await?;
        Ok(server)
    }

    pub fn url(&self) -> &str {
        &self.url
    }

    /// Starts it if it does not run; it keeps its port.
    pub async fn run(&mut self) -> anyhow::Result<()> {
        self.end().await;
        let elsewhere = || Some("somewhere else".to_owned());
        let given = match self.is_postgres {
            true => Given { database_url: None, nats_url: elsewhere() },
            false => Given { database_url: elsewhere(), nats_url: None },
        };
        let local = dev_servers::start(&self.folder, given).await?;
        self.url = if self.is_postgres { local.database_url.clone() } else { local.nats_url.clone() };
        self.running = Some(local);
        Ok(())
    }

    /// Ends it in order.
    pub async fn end(&mut self) {
        if let Some(local) = self.running.take() {
            local.stop().await;
        }
    }

    /// Sends a signal to the server and, for Postgres, to the processes of its sessions.
    pub fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        let server = self.pid()?;
        // `kill -9` is for the server alone: the others notice.
        let sessions = if signal == Signal::SIGKILL { Vec::new() } else { children(server)? };
        for pid in std::iter::once(server).chain(sessions) {
            // A session may have ended meanwhile.
            let _sent = kill(pid, signal);
        }
        Ok(())
    }

    /// Removes everything that a nats-server has stored. It must not run.
    pub fn wipe(&self) -> anyhow::Result<()> {
        let store = self.folder.join("nats/store");
        if store.exists() {
            fs::remove_dir_all(store)?;
        }
        Ok(())
    }

    fn pid(&self) -> anyhow::Result<Pid> {
        let inside = if self.is_postgres { "postgres/data/postmaster.pid" } else { "nats/pid" };
        let text = fs::read_to_string(self.folder.join(inside))?;
        let first = text.lines().next().context("the pid file is empty")?;
        Ok(Pid::from_raw(first.trim().parse()?))
    }
}

/// The processes that a process has started.
fn children(parent: Pid) -> anyhow::Result<Vec<Pid>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")?.flatten() {
        let Ok(pid) = entry.file_name().to_string_lossy().parse::<i32>() else { continue };
        let Ok(stat) = fs::read_to_string(entry.path().join("stat")) else { continue };
        // pid (name) state parent …; the name may have spaces and brackets in it.
        let after = stat.rsplit(')').next().unwrap_or_default();
        if after.split_whitespace().nth(1) == Some(&parent.to_string()) {
            found.push(Pid::from_raw(pid));
        }
    }
    Ok(found)
}

impl Instance {
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    pub fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        let pid = self.child.id().context("the instance has ended")?;
        Ok(kill(Pid::from_raw(pid.try_into()?), signal)?)
    }
}

impl Cluster {
    pub async fn start(folder: &Path, program: &Path) -> anyhow::Result<Self> {
        fs::create_dir_all(folder)?;
        fs::set_permissions(folder, Permissions::from_mode(0o711))?;
        let folder = folder.canonicalize()?;
        let program = program.canonicalize().with_context(|| format!("there is no {}", program.display()))?;
        let postgres = Server::start(folder.join("postgres"), true).await?;
        let nats = Server::start(folder.join("nats"), false).await?;
        let client = reqwest::Client::builder().timeout(Duration::from_secs(8)).build()?;
        let mut cluster = Self { postgres, nats, instances: Vec::new(), client, program, folder };
        cluster.command(&["migrate"]).await?;
        for number in 0..2 {
            let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
            let child = cluster.launch(number, port)?;
            cluster.instances.push(Instance { number, port, child });
        }
        match cluster.wait_until_ready(Duration::from_secs(60)).await {
            Some(_) => Ok(cluster),
            None => bail!("the instances are not ready; see the logs in {}", cluster.folder.display()),
        }
    }

    pub fn has_small_disks(&self) -> bool {
        self.postgres.disk.is_some()
    }

    fn prepared(&self) -> Command {
        let mut command = Command::new(&self.program);
        command
            .env("DATABASE_URL", self.postgres.url())
            .env("NATS_URL", self.nats.url())
            .env("BOXOFFICE_DATA_DIR", self.folder.join("service"))
            .envs(SETTINGS)
            .stdin(Stdio::null())
            .kill_on_drop(true);
        command
    }

    fn launch(&self, number: usize, port: u16) -> anyhow::Result<Child> {
        let log = self.folder.join(format!("instance-{number}.log"));
        let log = File::options().create(true).append(true).open(log)?;
        let mut command = self.prepared();
        command
            .args(["serve", "--role", "api,orchestrator,worker,scheduler"])
            .env("BOXOFFICE_LISTEN", format!("127.0.0.1:{port}"))
            .env("BOXOFFICE_ADMIN_LISTEN", format!("127.0.0.1:{port}"))
            .stdout(Stdio::from(log.try_clone()?))
            .stderr(Stdio::from(log));
        command.spawn().context("the program does not start")
    }

    /// Ends an instance if it still runs, and starts it again on its port.
    pub async fn restart(&mut self, at: usize) -> anyhow::Result<()> {
        // It may have ended by itself.
        let _killed = self.instances[at].child.kill().await;
        let (number, port) = (self.instances[at].number, self.instances[at].port);
        self.instances[at].child = self.launch(number, port)?;
        Ok(())
    }

    /// Does what a supervisor does: starts the instances again that have ended by themselves, and counts them.
    pub async fn restart_ended_instances(&mut self) -> anyhow::Result<u32> {
        let mut restarted = 0;
        for at in 0..self.instances.len() {
            if let Some(status) = self.instances[at].child.try_wait()? {
                eprintln!("instance {at} has ended by itself ({status}); it is started again");
                self.restart(at).await?;
                restarted += 1;
            }
        }
        Ok(restarted)
    }

    /// Waits until every instance is ready, starting again those that end; the time it took, or nothing if it took too long.
    pub async fn wait_until_ready(&mut self, most: Duration) -> Option<Duration> {
        let began = Instant::now();
        while began.elapsed() < most {
            if let Err(error) = self.restart_ended_instances().await {
                eprintln!("{error}");
            }
            let mut ready = 0;
            for instance in &self.instances {
                let probe = self.client.get(format!("{}/readyz", instance.url())).send().await;
                ready += usize::from(probe.is_ok_and(|answer| answer.status().is_success()));
            }
            if ready == self.instances.len() {
                return Some(began.elapsed());
            }
            sleep(POLL_INTERVAL).await;
        }
        None
    }

    /// Runs a command of the program with `--json` and reads what it prints.
    pub async fn command(&self, words: &[&str]) -> anyhow::Result<Value> {
        let output = self.prepared().args(words).arg("--json").output().await?;
        let text = String::from_utf8_lossy(&output.stdout);
        let problem = || String::from_utf8_lossy(&output.stderr).into_owned();
        if text.trim().is_empty() && output.status.success() {
            return Ok(Value::Null);
        }
        serde_json::from_str(text.trim())
            .with_context(|| format!("boxoffice {}: {}", words.join(" "), problem()))
    }

    pub async fn audit(&self) -> anyhow::Result<Value> {
        self.command(&["audit"]).await
    }

    /// Waits until no saga is under way; the last audit.
    pub async fn wait_until_all_ended(&self, most: Duration) -> anyhow::Result<Value> {
        let began = Instant::now();
        loop {
            let audit = self.audit().await?;
            if audit["counted"]["sagas_open"] == 0 || began.elapsed() > most {
                return Ok(audit);
            }
            sleep(Duration::from_secs(1)).await;
        }
    }

    pub async fn stop(mut self) {
        for instance in &mut self.instances {
            // It may have ended by itself.
            let _killed = instance.child.kill().await;
        }
        self.nats.end().await;
        self.postgres.end().await;
    }
}
