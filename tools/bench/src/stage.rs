//! The environment of a scenario: the servers, the service's processes, and the generator's connections.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::Context;
use serde_json::json;
use sqlx::PgPool;

use super::client::Caller;
use super::process::Process;
use super::report::Report;
use super::{Plan, cpu};
use crate::store::rehearsal;
use boxoffice::bus::{self, Bus};
use boxoffice::clock::Clock;
use boxoffice::http::auth::NewKey;
use boxoffice::store::api_keys::{self, Role};
use boxoffice::{audit, ids, store};
use dev_servers::{Given, Local};

/// Every role.
pub(super) const ALL_ROLES: &str = "api,orchestrator,worker,scheduler";
/// Connections of the generator.
const CONNECTIONS: u32 = 8;
/// Connections to Postgres as a superuser.
const SUPERUSER_CONNECTIONS: u32 = 2;

/// What a scenario needs that is not as usual.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Wanted<'a> {
    /// A workflow definition beside the built-in ones.
    pub workflow: Option<&'a str>,
    /// Settings of the service, by their environment variables.
    pub settings: &'a [(&'a str, &'a str)],
    /// Postgres counts statements.
    pub count_statements: bool,
    /// The service's processes count their allocations.
    pub count_allocations: bool,
}

/// The servers and the service's processes.
#[derive(Debug)]
pub(super) struct Stage {
    pub pool: PgPool,
    /// The same database as a superuser: for counting statements, reading the log, and checkpoints.
    pub superuser: PgPool,
    pub bus: Bus,
    pub clock: Clock,
    /// An `admin` key: it allows everything but sales at the counter.
    pub admin: Caller,
    /// A key that sells at the counter.
    pub cashier: Caller,
    local: Local,
    private: bool,
    environment: Vec<(String, String)>,
    started: AtomicU32,
    counts_allocations: bool,
    load_before: Option<f64>,
}

impl Stage {
    /// Starts or finds the servers. No process of the service runs yet.
    pub(super) async fn open(plan: &Plan, wanted: Wanted<'_>) -> anyhow::Result<Self> {
        let load_before = load_average();
        let given = Given { database_url: plan.database_url.clone(), nats_url: plan.nats_url.clone() };
        let private = given.database_url.is_none() && given.nats_url.is_none();
        let mut local = dev_servers::start(&plan.data_dir, given.clone()).await?;
        if wanted.count_statements {
            let pool = store::open(&local.superuser_url, 1)?;
            if !rehearsal::counts_statements(&pool).await? {
                // Postgres loads the extension at its start only.
                rehearsal::load_statement_counter(&pool).await?;
                pool.close().await;
                local.stop().await;
                local = dev_servers::start(&plan.data_dir, given).await?;
            }
        }
        let pool = store::open(&local.database_url, CONNECTIONS)?;
        let superuser = store::open(&local.superuser_url, SUPERUSER_CONNECTIONS)?;
        store::migrate(&pool).await?;
        let bus = bus::connect(&local.nats_url, "boxoffice-bench", 1).await?;
        let admin = key(&pool, Role::Admin).await?;
        let cashier = key(&pool, Role::Cashier).await?;
        let environment = environment(&local, wanted)?;
        let (clock, started) = (Clock::default(), AtomicU32::new(0));
        Ok(Self {
            pool,
            superuser,
            bus,
            clock,
            admin,
            cashier,
            local,
            private,
            environment,
            started,
            counts_allocations: wanted.count_allocations,
            load_before,
        })
    }

    /// A new API key.
    pub(super) async fn key(&self, role: Role) -> anyhow::Result<Caller> {
        key(&self.pool, role).await
    }

    /// What the service's access tokens are signed with.
    pub(super) fn access_secret(&self) -> &str {
        &self.local.secrets.access_secret
    }

    /// The address of Postgres, for connections outside the pool.
    pub(super) fn database_url(&self) -> &str {
        &self.local.database_url
    }

    /// Where NATS is.
    pub(super) fn nats_url(&self) -> &str {
        &self.local.nats_url
    }

    /// Where Postgres is, as a superuser.
    pub(super) fn superuser_url(&self) -> &str {
        &self.local.superuser_url
    }

    /// Starts a process of the service; `roles` has `api` in it.
    pub(super) async fn serve(&self, roles: &str) -> anyhow::Result<Process> {
        self.serve_with(roles, &[]).await
    }

    /// The same with further settings, by their environment variables.
    pub(super) async fn serve_with(&self, roles: &str, settings: &[(&str, &str)]) -> anyhow::Result<Process> {
        let number = self.started.fetch_add(1, Ordering::Relaxed);
        let log = self.local.dir().join(format!("service-{number}.log"));
        let own = settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let environment: Vec<(String, String)> = self.environment.iter().cloned().chain(own).collect();
        if self.counts_allocations {
            return Process::start_counting(roles, environment, &log).await;
        }
        Process::start(roles, &environment, &log).await
    }

    /// Ends the service's processes, judges the database, ends the servers and removes their files.
    pub(super) async fn close(self, processes: Vec<Process>, report: Report) -> anyhow::Result<Report> {
        let judged = audit::run(&self.pool).await.context("the database cannot be judged")?;
        let surroundings = self.surroundings().await?;
        for process in processes {
            process.stop().await;
        }
        self.superuser.close().await;
        self.pool.close().await;
        self.local.discard().await?;
        Ok(Report { surroundings, ..report.judged(&judged) })
    }

    async fn surroundings(&self) -> anyhow::Result<serde_json::Value> {
        Ok(json!({
            "cores": std::thread::available_parallelism().map_or(0, usize::from),
            "load_average_before": self.load_before,
            "load_average_after": load_average(),
            "optimised": !cfg!(debug_assertions),
            "private_servers": self.private,
            "postgres": rehearsal::version(&self.pool).await?,
            "nats": self.bus.client.server_info().version,
            "at": self.clock.now(),
        }))
    }
}

async fn key(pool: &PgPool, role: Role) -> anyhow::Result<Caller> {
    let NewKey { secret, hash } = NewKey::generate();
    api_keys::insert(pool, ids::new(), "bench", role, &hash).await?;
    Ok(Caller { bearer: secret, queue_token: String::new() })
}

/// The environment of every process of the service.
fn environment(local: &Local, wanted: Wanted<'_>) -> anyhow::Result<Vec<(String, String)>> {
    let mut all = vec![
        ("DATABASE_URL", local.database_url.clone()),
        ("NATS_URL", local.nats_url.clone()),
        ("BOXOFFICE_DATA_DIR", local.dir().display().to_string()),
        ("BOXOFFICE_LOCAL", "true".to_owned()),
        // A few buyers let thousands of holds run out.
        ("BOXOFFICE_MAX_EXPIRED_HOLDS", "0".to_owned()),
    ];
    all.extend(wanted.settings.iter().map(|(name, value)| (*name, (*value).to_owned())));
    if let Some(definition) = wanted.workflow {
        let folder: PathBuf = local.dir().join("workflows");
        std::fs::create_dir_all(&folder)?;
        std::fs::write(folder.join("bench.toml"), definition)?;
        all.push(("BOXOFFICE_WORKFLOWS", folder.display().to_string()));
    }
    Ok(all.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
}

/// Measures what the servers cost between two moments.
#[derive(Clone, Copy, Debug)]
pub(super) struct Meter(Option<f64>);

impl Meter {
    /// From now on.
    pub(super) fn start() -> Self {
        Self(cpu::of_servers())
    }

    /// Processor seconds since the start.
    pub(super) fn read(self) -> Option<f64> {
        Some(cpu::of_servers()? - self.0?)
    }
}

/// The load average of the last minute; none where the system does not report it.
fn load_average() -> Option<f64> {
    std::fs::read_to_string("/proc/loadavg").ok()?.split(' ').next()?.parse().ok()
}
