//! Users of NATS and their rights: those of each role are enough for its work, and a service elsewhere can do its own
//! work and nothing else. The files are those of `nats/`.

mod roles;
mod services;
mod secured;

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use boxoffice::bus::{self, Bus};
use boxoffice::config::NatsAccess;
use dev_servers::programs;

use crate::common::fresh_dir;

/// Waits for the end of its input, which only this process holds open, and then ends the server.
const KEEPER: &str = r#""$@" & read -r _; kill -9 $!"#;

/// A nats-server with a configuration of its own.
pub struct Nats {
    pub dir: PathBuf,
    pub port: u16,
    _server: Child,
}

impl Nats {
    /// With the users of `nats/accounts.conf`; the example of a service in it is switched on.
    pub fn with_users() -> Self {
        let dir = fresh_dir("rights");
        std::fs::create_dir_all(&dir).unwrap();
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("nats");
        for name in ["single.conf", "server.conf", "accounts.conf"] {
            let text = std::fs::read_to_string(source.join(name)).unwrap();
            std::fs::write(dir.join(name), text.replace("#badges ", "")).unwrap();
        }
        Self::run(dir, "server.conf")
    }

    /// With a file that is in its directory.
    pub fn run(dir: PathBuf, conf: &str) -> Self {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let log = std::fs::File::create(dir.join("log")).unwrap();
        let users = ["API", "SCHEDULER", "ORCHESTRATOR", "WORKER", "OPERATOR", "READER", "BADGES"];
        let server = Command::new("/bin/sh")
            .args(["-c", KEEPER, "keeper"])
            .arg(programs::nats_server().unwrap())
            .args(["-c", conf, "-a", "127.0.0.1", "-p", &port.to_string(), "-sd", "store"])
            .envs(users.map(|user| (format!("NATS_{user}_PASSWORD"), password(&user.to_lowercase()))))
            .current_dir(&dir)
            .stdin(Stdio::piped())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        Self { dir, port, _server: server }
    }

    pub fn url(&self, user: &str) -> String {
        format!("nats://{user}:{}@127.0.0.1:{}", password(user), self.port)
    }

    /// A connection of a user, once the server answers.
    pub async fn bus(&self, user: &str) -> Bus {
        self.connected(&self.url(user), &access(user)).await
    }

    pub async fn connected(&self, url: &str, access: &NatsAccess) -> Bus {
        for _ in 0..200 {
            match bus::connect_as(url, "test", 1, access).await {
                Ok(bus) => return bus,
                Err(error) => tracing::debug!(%error, "not yet"),
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("no connection; the server says:\n{}", self.log());
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.dir.join("log")).unwrap()
    }

    /// What the server has refused for want of rights.
    pub fn refusals(&self) -> Vec<String> {
        self.log().lines().filter(|line| line.contains("Violation")).map(str::to_owned).collect()
    }
}

/// What a user's process is set to beside its address.
pub fn access(user: &str) -> NatsAccess {
    let own_account = ["badges", "reader"].contains(&user);
    NatsAccess {
        nats_inbox: if own_account { "_INBOX".to_owned() } else { format!("_INBOX_{user}") },
        nats_domain: own_account.then(|| "boxoffice".to_owned()),
        ..NatsAccess::default()
    }
}

fn password(user: &str) -> String {
    format!("password-of-{user}")
}
