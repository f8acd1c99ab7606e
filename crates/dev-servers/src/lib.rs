//! Private servers for a laptop: a Postgres and a NATS of our own under a data directory.
//!
//! [`start`] claims the directory, starts each server for which no address was given, and keeps the secrets. The
//! servers end with the process that started them, however it ends (`supervisor`). The remains of a crash never block
//! the next start. While the process runs, other commands find the servers through [`addresses`].

pub mod postgres;
mod nats;
mod supervisor;
mod data_dir;
pub mod programs;
pub mod addresses;
pub mod secrets;
mod lockfile;
mod cluster;
mod os_user;
mod error;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

pub use addresses::Addresses;
pub use error::LocalError;
pub use secrets::Secrets;

use lockfile::Lockfile;
use supervisor::Server;

/// Servers that are there already; a private one is started in the place of each that is not.
#[derive(Clone, Debug, Default)]
pub struct Given {
    /// Where Postgres is.
    pub database_url: Option<String>,
    /// Where NATS is.
    pub nats_url: Option<String>,
}

/// A claimed data directory with its servers running. Dropping it ends them too, without waiting for the end.
#[derive(Debug)]
pub struct Local {
    /// The given or the private Postgres.
    pub database_url: String,
    /// The given or the private NATS.
    pub nats_url: String,
    /// The same database as a role that can do everything to the server; the given address where Postgres is not ours.
    /// The service never uses it.
    pub superuser_url: String,
    /// What tokens are signed with, kept in the directory.
    pub secrets: Secrets,
    postgres: Option<Server>,
    nats: Option<Server>,
    /// Where Postgres's files are, if it is ours.
    files: Option<PathBuf>,
    lockfile: Lockfile,
}

/// Claims `data_dir` (made if it is missing) and starts the servers that are not `given`; data of an earlier
/// run is used again. Fails if another process has claimed the directory, or a server cannot be started.
pub async fn start(data_dir: &Path, given: Given) -> Result<Local, LocalError> {
    let lockfile = Lockfile::take(data_dir)?;
    let dir = lockfile.dir().to_owned();
    let secrets = Secrets::keep(&dir)?;
    let postgres = async {
        match given.database_url {
            Some(url) => Ok(((url.clone(), url), None, None)),
            None => {
                let started = postgres::start(&dir).await?;
                Ok(((started.url, started.superuser_url), Some(started.server), Some(started.files)))
            }
        }
    };
    let nats = async {
        match given.nats_url {
            Some(url) => Ok((url, None)),
            None => nats::start(&dir).await.map(|(url, server)| (url, Some(server))),
        }
    };
    let (postgres, (nats_url, nats)) = tokio::try_join!(postgres, nats)?;
    let ((database_url, superuser_url), postgres, files) = postgres;
    Ok(Local { database_url, nats_url, superuser_url, secrets, postgres, nats, files, lockfile })
}

impl Local {
    /// The data directory, as an absolute path.
    pub fn dir(&self) -> &Path {
        self.lockfile.dir()
    }

    /// Writes down for other commands where this process answers HTTP and where its servers are, until it ends.
    /// `admin` is the address of operators' routes, if they have one of their own.
    pub fn publish(&self, http: SocketAddr, admin: Option<SocketAddr>) -> Result<(), LocalError> {
        let addresses = Addresses {
            pid: std::process::id(),
            http,
            admin,
            database_url: self.database_url.clone(),
            nats_url: self.nats_url.clone(),
        };
        addresses::publish(self.dir(), &addresses)
    }

    /// Waits until a private server ends without being asked to, and says which and why. Without private
    /// servers it waits for ever.
    pub async fn server_ended(&mut self) -> LocalError {
        let ended = async |server: &mut Option<Server>| match server {
            Some(server) => server.ended().await,
            None => std::future::pending().await,
        };
        tokio::select! {
            error = ended(&mut self.postgres) => error,
            error = ended(&mut self.nats) => error,
        }
    }

    /// Ends the private servers and waits until they are gone. Their data stays.
    pub async fn stop(self) {
        addresses::withdraw(self.dir());
        tokio::join!(stop(self.postgres), stop(self.nats));
    }

    /// Ends the private servers and removes the data directory with all that belongs to it.
    pub async fn discard(self) -> Result<(), LocalError> {
        tokio::join!(stop(self.postgres), stop(self.nats));
        for dir in [self.files.as_deref(), Some(self.lockfile.dir())].into_iter().flatten() {
            if dir.exists() {
                std::fs::remove_dir_all(dir).map_err(error::file(dir))?;
            }
        }
        Ok(())
    }
}

async fn stop(server: Option<Server>) {
    if let Some(server) = server {
        server.stop().await;
    }
}
