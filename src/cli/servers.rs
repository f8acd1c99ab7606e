//! Where a command finds Postgres and NATS: at the given addresses, else at those of a running `up`.

use anyhow::{Context as _, ensure};
use sqlx::PgPool;

use super::{Context, Misuse};
use crate::bus::{self, Bus};
use crate::store;
use dev_servers::addresses;

impl Context {
    /// The address of Postgres.
    pub(super) fn database_url(&self) -> anyhow::Result<String> {
        let servers = &self.settings.servers;
        let running = || addresses::find(&servers.data_dir).map(|found| found.database_url);
        servers.database_url.clone().or_else(running).ok_or_else(|| self.nothing_runs("DATABASE_URL"))
    }

    /// The address of NATS.
    pub(super) fn nats_url(&self) -> anyhow::Result<String> {
        let servers = &self.settings.servers;
        let running = || addresses::find(&servers.data_dir).map(|found| found.nats_url);
        servers.nats_url.clone().or_else(running).ok_or_else(|| self.nothing_runs("NATS_URL"))
    }

    fn nothing_runs(&self, variable: &str) -> anyhow::Error {
        let dir = self.settings.servers.data_dir.display();
        let text =
            format!("no `boxoffice up` runs on the data directory {dir}; start one, or set {variable}");
        Misuse(text).into()
    }

    /// Postgres, reachable now.
    pub(super) async fn database(&self) -> anyhow::Result<PgPool> {
        let pool = store::open(&self.database_url()?, self.settings.servers.database_connections)
            .map_err(|error| Misuse(format!("DATABASE_URL is not an address of Postgres: {error}")))?;
        // One query here, so that a server that is away has another error than a query that fails.
        let are_kept = store::session::are_kept(&pool).await;
        let are_kept =
            are_kept.context("Postgres does not answer; is the server running at DATABASE_URL?")?;
        ensure!(are_kept, store::session::NOT_KEPT);
        Ok(pool)
    }

    /// NATS, reachable now and new enough.
    pub(super) async fn bus(&self) -> anyhow::Result<Bus> {
        let servers = &self.settings.servers;
        let (name, replicas) = ("boxoffice command line", servers.nats_replicas);
        Ok(bus::connect_as(&self.nats_url()?, name, replicas, &servers.nats_access).await?)
    }
}
