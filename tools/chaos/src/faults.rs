//! The faults: what each breaks, for how long, and how it is put right again.

use std::fmt;
use std::time::Duration;

use boxoffice::bus;
use clap::ValueEnum;
use futures::TryStreamExt;
use nix::sys::signal::Signal;
use rand::rngs::StdRng;
use rand::seq::{IndexedRandom, SliceRandom};
use rand::{Rng, RngExt};
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use tokio::time::sleep;

use crate::cluster::{Cluster, Server};

/// Tables that every booking writes.
const TABLES: [&str; 7] =
    ["sagas", "reservations", "seats", "accounts", "ledger_entries", "idempotency_keys", "tickets"];
/// How long a statement of ours waits for its lock: the service's own statements may be in its way.
const LOCK_TIMEOUT: &str = "set lock_timeout = '3s'";

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, ValueEnum)]
pub enum Fault {
    /// kill -9 of one instance, which is started again
    KillInstance,
    /// kill -STOP of one instance for a while
    FreezeInstance,
    /// kill -9 of Postgres, which is started again
    KillPostgres,
    /// Postgres is shut down in order and started again
    RestartPostgres,
    /// kill -STOP of Postgres and all its sessions for a while
    FreezePostgres,
    /// Postgres takes no writes for a while, as after a switch to another server
    ReadOnlyPostgres,
    /// The disk of Postgres is full for a while
    FillPostgresDisk,
    /// Every session at Postgres is ended
    EndSessions,
    /// A table is locked for a while
    LockTable,
    /// A column is added to a table
    AddColumn,
    /// kill -9 of nats-server, which is started again
    KillNats,
    /// kill -STOP of nats-server for a while
    FreezeNats,
    /// The disk of nats-server is full for a while; then it is restarted
    FillNatsDisk,
    /// All streams and buckets are deleted
    DeleteStreams,
    /// nats-server loses everything that it has stored
    WipeNats,
}

/// Faults in an order of chance, all kinds equally often.
pub struct Choice {
    kinds: Vec<Fault>,
    left: Vec<Fault>,
}

impl Choice {
    pub fn next(&mut self, rng: &mut StdRng) -> Fault {
        if self.left.is_empty() {
            self.left.clone_from(&self.kinds);
            self.left.shuffle(rng);
        }
        self.left.pop().unwrap_or(Fault::KillInstance)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = self.to_possible_value();
        f.write_str(value.as_ref().map_or("fault", |value| value.get_name()))
    }
}

impl Fault {
    /// A choice among `only`, or among all; without small disks no disk is filled.
    pub fn choice(only: &[Self], has_small_disks: bool) -> Choice {
        let fills = |fault: &Self| matches!(fault, Self::FillPostgresDisk | Self::FillNatsDisk);
        let wanted = if only.is_empty() { Self::value_variants() } else { only };
        let kinds = wanted.iter().copied().filter(|fault| has_small_disks || !fills(fault)).collect();
        Choice { kinds, left: Vec::new() }
    }

    /// Breaks it, waits, and puts it right.
    pub async fn strike(self, cluster: &mut Cluster, rng: &mut StdRng) -> anyhow::Result<()> {
        let instance = rng.random_range(0..cluster.instances.len());
        match self {
            Self::KillInstance => {
                cluster.instances[instance].signal(Signal::SIGKILL)?;
                pause(rng, 0..1_000).await;
                cluster.restart(instance).await
            }
            Self::FreezeInstance => {
                cluster.instances[instance].signal(Signal::SIGSTOP)?;
                pause(rng, 500..5_000).await;
                cluster.instances[instance].signal(Signal::SIGCONT)
            }
            Self::KillPostgres => kill(&mut cluster.postgres, rng).await,
            Self::KillNats => kill(&mut cluster.nats, rng).await,
            Self::RestartPostgres => {
                cluster.postgres.end().await;
                pause(rng, 0..2_000).await;
                cluster.postgres.run().await
            }
            Self::FreezePostgres => freeze(&cluster.postgres, rng).await,
            Self::FreezeNats => freeze(&cluster.nats, rng).await,
            Self::FillPostgresDisk => {
                fill(&cluster.postgres, rng).await?;
                // Where it could not write its log it has ended.
                cluster.postgres.run().await
            }
            Self::FillNatsDisk => {
                fill(&cluster.nats, rng).await?;
                // JetStream stays off until the server is restarted.
                cluster.nats.run().await
            }
            Self::WipeNats => {
                cluster.nats.signal(Signal::SIGKILL)?;
                cluster.nats.end().await;
                cluster.nats.wipe()?;
                cluster.nats.run().await
            }
            Self::DeleteStreams => delete_streams(cluster.nats.url()).await,
            Self::ReadOnlyPostgres => read_only(cluster.postgres.url(), rng).await,
            Self::EndSessions => {
                end_sessions(&mut PgConnection::connect(cluster.postgres.url()).await?).await
            }
            Self::LockTable => lock_table(cluster.postgres.url(), rng).await,
            Self::AddColumn => add_column(cluster.postgres.url(), rng).await,
        }
    }
}

async fn pause(rng: &mut impl Rng, milliseconds: std::ops::Range<u64>) {
    sleep(Duration::from_millis(rng.random_range(milliseconds))).await;
}

async fn kill(server: &mut Server, rng: &mut StdRng) -> anyhow::Result<()> {
    server.signal(Signal::SIGKILL)?;
    pause(rng, 0..2_000).await;
    server.run().await
}

async fn freeze(server: &Server, rng: &mut StdRng) -> anyhow::Result<()> {
    server.signal(Signal::SIGSTOP)?;
    pause(rng, 500..7_000).await;
    server.signal(Signal::SIGCONT)
}

async fn fill(server: &Server, rng: &mut StdRng) -> anyhow::Result<()> {
    if let Some(disk) = &server.disk {
        disk.fill()?;
        pause(rng, 2_000..6_000).await;
        disk.free()?;
    }
    Ok(())
}

async fn delete_streams(url: &str) -> anyhow::Result<()> {
    let bus = bus::connect(url, "boxoffice-chaos", 1).await?;
    let names: Vec<String> = bus.jetstream.stream_names().try_collect().await?;
    for name in names {
        bus.jetstream.delete_stream(name).await?;
    }
    Ok(())
}

async fn run(connection: &mut PgConnection, sql: String) -> Result<(), sqlx::Error> {
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(connection).await.map(drop)
}

async fn end_sessions(connection: &mut PgConnection) -> anyhow::Result<()> {
    let others = "select pg_terminate_backend(pid) from pg_stat_activity \
                  where pid <> pg_backend_pid() and usename = current_user";
    Ok(run(connection, others.to_owned()).await?)
}

/// New sessions can only read for a while. Those that began in that time stay so: the service has to close them.
async fn read_only(url: &str, rng: &mut StdRng) -> anyhow::Result<()> {
    let mut connection = PgConnection::connect(url).await?;
    let name = url.rsplit('/').next().unwrap_or_default();
    let switch = |state: &str| format!("alter database {name} set default_transaction_read_only = {state}");
    run(&mut connection, switch("on")).await?;
    end_sessions(&mut connection).await?;
    pause(rng, 500..4_000).await;
    Ok(run(&mut connection, switch("off")).await?)
}

async fn lock_table(url: &str, rng: &mut StdRng) -> anyhow::Result<()> {
    let table = TABLES.choose(rng).copied().unwrap_or_default();
    let mut connection = PgConnection::connect(url).await?;
    let lock = format!("{LOCK_TIMEOUT}; begin; lock table {table} in access exclusive mode");
    if let Err(error) = run(&mut connection, lock).await {
        eprintln!("{table} was not locked: {error}");
        return Ok(());
    }
    pause(rng, 500..8_000).await;
    Ok(run(&mut connection, "rollback".to_owned()).await?)
}

async fn add_column(url: &str, rng: &mut StdRng) -> anyhow::Result<()> {
    let table = TABLES.choose(rng).copied().unwrap_or_default();
    let mut connection = PgConnection::connect(url).await?;
    let column = format!("chaos_{:x}", rng.random::<u32>());
    let add = format!("{LOCK_TIMEOUT}; alter table {table} add column {column} int");
    if let Err(error) = run(&mut connection, add).await {
        eprintln!("{table} did not get a column: {error}");
    }
    Ok(())
}
