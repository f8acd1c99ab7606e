//! Faults of a test's own Postgres.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sqlx::{AssertSqlSafe, Connection, PgConnection};

/// A connection of an administrator: to its own database, so that it does not block changes of another one.
pub struct Admin {
    conn: PgConnection,
    postmaster: i32,
}

impl Admin {
    /// Of the server at this address of its superuser.
    pub async fn of(database_url: &str) -> Self {
        let (server, _database) = database_url.rsplit_once('/').expect("an address names a database");
        let mut conn = PgConnection::connect(&format!("{server}/postgres")).await.expect("Postgres answers");
        let data: String = sqlx::query_scalar("show data_directory").fetch_one(&mut conn).await.unwrap();
        let file = std::fs::read_to_string(format!("{data}/postmaster.pid")).unwrap();
        let postmaster = file.lines().next().unwrap().trim().parse().unwrap();
        Self { conn, postmaster }
    }

    /// Runs statements one by one.
    pub async fn run(&mut self, statements: &[&str]) {
        for sql in statements {
            let done = sqlx::raw_sql(AssertSqlSafe((*sql).to_owned())).execute(&mut self.conn).await;
            done.unwrap_or_else(|error| panic!("{sql}: {error}"));
        }
    }

    /// Ends all sessions on a database.
    pub async fn end_sessions(&mut self, database: &str) {
        let sql = "select pg_terminate_backend(pid) from pg_stat_activity where datname = $1";
        sqlx::query(sql).bind(database).execute(&mut self.conn).await.unwrap();
    }

    /// Renames the database `boxoffice`; `false` while a client is connected to it.
    pub async fn renamed(&mut self) -> bool {
        let sql = "alter database boxoffice rename to elsewhere";
        sqlx::raw_sql(sql).execute(&mut self.conn).await.is_ok()
    }

    /// Whether new transactions of all clients are read-only.
    pub async fn read_only(&mut self, on: bool) {
        let value = if on { "on" } else { "off" };
        let set = format!("alter system set default_transaction_read_only = {value}");
        self.run(&["set default_transaction_read_only = off", &set, "select pg_reload_conf()"]).await;
    }

    /// Freezes the server with all its sessions.
    pub fn freeze(&self) {
        self.signal(Signal::SIGSTOP);
    }

    /// Lets it go on.
    pub fn thaw(&self) {
        self.signal(Signal::SIGCONT);
    }

    /// Ends the server; what is committed is on its standby before it ends.
    pub fn stop(&self) {
        kill(Pid::from_raw(self.postmaster), Signal::SIGINT).unwrap();
    }

    fn signal(&self, signal: Signal) {
        // First the one that makes the others.
        kill(Pid::from_raw(self.postmaster), signal).unwrap();
        for pid in children(self.postmaster) {
            // It may have ended.
            let _signalled = kill(Pid::from_raw(pid), signal);
        }
    }
}

impl Drop for Admin {
    fn drop(&mut self) {
        // A test that fails leaves no frozen server behind.
        let _signalled = kill(Pid::from_raw(self.postmaster), Signal::SIGCONT);
        for pid in children(self.postmaster) {
            let _signalled = kill(Pid::from_raw(pid), Signal::SIGCONT);
        }
    }
}

fn children(parent: i32) -> Vec<i32> {
    let found = std::process::Command::new("ps").args(["-o", "pid=", "--ppid", &parent.to_string()]).output();
    let text = String::from_utf8(found.expect("ps runs").stdout).unwrap();
    text.split_whitespace().filter_map(|pid| pid.parse().ok()).collect()
}
