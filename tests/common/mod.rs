//! What the tests run against: one private Postgres per test process, a database and a nats-server of its own
//! for each test. All of it is gone when the process is, however it ends.

// Each module of the binary uses a part of this.
#![allow(dead_code)]

pub mod app;
pub mod cluster;
pub mod hostile;
pub mod http;
pub mod pgbouncer;
mod place;
pub mod postgres;
pub mod program;
pub mod standby;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use boxoffice::bus::{self, Bus};
use boxoffice::store;
use dev_servers::{Given, Local};
use hmac::{Hmac, KeyInit, Mac};
use nix::sys::signal::Signal;
use sha2::{Digest, Sha256};
use sqlx::postgres::PgPool;
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use tokio::sync::OnceCell;
use url::Url;

pub use place::fresh_dir;

/// Connections of one test's pool; tests run side by side against one server.
const CONNECTIONS: u32 = 24;

/// An empty, migrated database and an empty nats-server, both of one test.
pub struct Env {
    pub database_url: String,
    pub pool: PgPool,
    pub nats_url: String,
    pub bus: Bus,
    /// The data directory of this test.
    pub dir: PathBuf,
    nats: Local,
}

impl Env {
    /// A new one; the first of the process starts Postgres and migrates the template of all databases.
    pub async fn start() -> Self {
        Self::start_prepared(|_| ()).await
    }

    /// The same, with a data directory that is prepared before its nats-server starts.
    pub async fn start_prepared(prepare: impl FnOnce(&Path)) -> Self {
        let database_url = fresh_database().await;
        let dir = fresh_dir("test");
        prepare(&dir);
        let given = Given { database_url: Some(database_url.clone()), nats_url: None };
        let nats = dev_servers::start(&dir, given).await.expect("a private nats-server starts");
        let nats_url = nats.nats_url.clone();
        let bus = bus::connect(&nats_url, "test", 1).await.expect("the private nats-server is good");
        let pool = store::open(&database_url, CONNECTIONS).expect("the address is good");
        Self { database_url, pool, nats_url, bus, dir, nats }
    }

    /// With a Postgres of its own, which may be frozen or made to refuse connections.
    pub async fn with_own_postgres() -> Self {
        let dir = fresh_dir("own");
        let servers =
            Box::pin(dev_servers::start(&dir, Given::default())).await.expect("private servers start");
        let (database_url, nats_url) = (servers.database_url.clone(), servers.nats_url.clone());
        let bus = bus::connect(&nats_url, "test", 1).await.expect("the private nats-server is good");
        let pool = store::open(&database_url, CONNECTIONS).expect("the address is good");
        Box::pin(store::migrate(&pool)).await.expect("the migrations are good");
        Self { database_url, pool, nats_url, bus, dir, nats: servers }
    }

    /// The address of the superuser of [`Env::with_own_postgres`].
    pub fn own_superuser_url(&self) -> &str {
        &self.nats.superuser_url
    }

    /// Kills the nats-server as `kill -9` does; [`Env::restart_nats`] starts it again.
    pub fn kill_nats(&self) {
        self.signal_nats(Signal::SIGKILL);
    }

    /// Freezes the nats-server: its connections stand, and it does nothing.
    pub fn freeze_nats(&self) {
        self.signal_nats(Signal::SIGSTOP);
    }

    /// Lets a frozen nats-server go on.
    pub fn thaw_nats(&self) {
        self.signal_nats(Signal::SIGCONT);
    }

    /// Gives the one user of the nats-server these permissions; none are none but the usual.
    pub fn permit_nats(&self, permissions: &str) {
        self.configure_nats(|user| {
            let user = format!("{user}, permissions: {{ {permissions} }}");
            format!("include \"single.conf\"\nauthorization {{ users: [ {{ {user} }} ] }}\n")
        });
    }

    /// Switches JetStream off, for the whole nats-server; [`Env::permit_nats`] switches it on again.
    pub fn switch_jetstream_off(&self) {
        self.configure_nats(|user| {
            format!("server_name: boxoffice\nmax_payload: 1MB\nauthorization {{ users: [ {{ {user} }} ] }}\n")
        });
    }

    /// Puts the one user of the nats-server into an account without JetStream; [`Env::permit_nats`] undoes it.
    pub fn switch_jetstream_off_for_account(&self) {
        self.configure_nats(|user| {
            format!("include \"single.conf\"\naccounts {{ PLAIN {{ users: [ {{ {user} }} ] }} }}\n")
        });
    }

    /// Gives the nats-server another configuration, made of the user with its password.
    fn configure_nats(&self, text: impl FnOnce(&str) -> String) {
        let conf = self.dir.join("nats/private.conf");
        let before = std::fs::read_to_string(&conf).unwrap();
        let password = before.split("password: \"").nth(1).and_then(|rest| rest.split('"').next()).unwrap();
        std::fs::write(&conf, text(&format!("user: boxoffice, password: \"{password}\""))).unwrap();
        self.signal_nats(Signal::SIGHUP);
    }

    fn signal_nats(&self, signal: Signal) {
        let pid = std::fs::read_to_string(self.dir.join("nats/pid")).unwrap();
        let pid = nix::unistd::Pid::from_raw(pid.trim().parse().unwrap());
        nix::sys::signal::kill(pid, signal).unwrap();
    }

    /// Ends the nats-server and starts it again, on the same port and with the same streams.
    pub async fn restart_nats(mut self) -> Self {
        self.nats.stop().await;
        let given = Given { database_url: Some(self.database_url.clone()), nats_url: None };
        self.nats = dev_servers::start(&self.dir, given).await.expect("the nats-server starts again");
        self
    }
}

/// The address of an empty, migrated database on the Postgres of this process.
pub async fn fresh_database() -> String {
    database_of("boxoffice").await
}

/// The address of a database without any table.
pub async fn empty_database() -> String {
    database_of("template0").await
}

async fn database_of(template: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    let server = postgres().await;
    let name = format!("test_{}", NEXT.fetch_add(1, Ordering::Relaxed));
    create_database(&server.superuser_url, &name, template).await;
    sibling(&server.database_url, &name)
}

/// The address of the same database as a role that can do everything to the server: for what no service may do, such as
/// `alter system`. Of a database that [`fresh_database`] has made.
pub async fn superuser_url(database_url: &str) -> String {
    let (_server, name) = database_url.rsplit_once('/').expect("an address names a database");
    sibling(&postgres().await.superuser_url, name)
}

/// Connections as that role.
pub async fn superuser(database_url: &str) -> PgPool {
    store::open(&superuser_url(database_url).await, 2).expect("the address is good")
}

async fn create_database(superuser_url: &str, name: &str, template: &str) {
    let server = sibling(superuser_url, "postgres");
    let mut superuser = PgConnection::connect(&server).await.expect("Postgres answers");
    let sql = format!("create database {name} template {template} owner boxoffice");
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut superuser).await.expect("the database is made");
    superuser.close().await.expect("the connection closes");
}

/// The address of another database on the same server.
fn sibling(url: &str, name: &str) -> String {
    let (server, _database) = url.rsplit_once('/').expect("an address names a database");
    format!("{server}/{name}")
}

/// Stores the password of an address anew, hashed once and not 4,096 times (RFC 5802). The client hashes it as often for each
/// connection; without optimisation that takes half of the CPU time of all tests.
async fn hash_password_once(superuser_url: &str, url: &str) {
    let keyed = |key: &[u8], text: &[u8]| {
        let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("a key may have any length");
        mac.update(text);
        mac.finalize().into_bytes()
    };
    let url = Url::parse(url).expect("the address is good");
    let (role, password) = (url.username(), url.password().expect("the address has a password"));
    let salt = b"a salt for tests";
    let salted = keyed(password.as_bytes(), &[&salt[..], &1_u32.to_be_bytes()].concat());
    let stored_key = Sha256::digest(keyed(&salted, b"Client Key"));
    let [salt, stored, server] =
        [&salt[..], &stored_key[..], &keyed(&salted, b"Server Key")[..]].map(|bytes| STANDARD.encode(bytes));
    let sql = format!("alter role {role} password 'SCRAM-SHA-256$1:{salt}${stored}:{server}'");
    let mut superuser = PgConnection::connect(superuser_url).await.expect("Postgres answers");
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut superuser).await.expect("the password is stored");
    superuser.close().await.expect("the connection closes");
}

/// The one Postgres of this process. Its database is the migrated template of all others, so no
/// connection to it may stay open.
async fn postgres() -> &'static Local {
    static SERVER: OnceCell<Local> = OnceCell::const_new();
    let start = || async {
        let given = Given { database_url: None, nats_url: Some("nats://none".into()) };
        let server =
            dev_servers::start(&fresh_dir("postgres"), given).await.expect("a private Postgres starts");
        for url in [&server.database_url, &server.superuser_url] {
            hash_password_once(&server.superuser_url, url).await;
        }
        let pool = store::open(&server.database_url, 2).expect("the address is good");
        store::migrate(&pool).await.expect("the migrations are good");
        pool.close().await;
        server
    };
    SERVER.get_or_init(start).await
}
