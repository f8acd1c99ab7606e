//! A streaming standby of a Postgres of a test's own. It ends with the test, or with its process.

use std::fs::{self, DirBuilder};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, chown};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use dev_servers::{postgres, programs};
use nix::unistd::Uid;
use sqlx::{Connection, PgConnection};
use url::Url;

use super::app::until;
use super::fresh_dir;

/// Ends the server when the pipe ends that only the test's process holds open.
const KEEPER: &str = r#"
    "$@" </dev/null &
    server=$!
    read -r _
    kill -INT "$server"
    wait "$server"
"#;

pub struct Standby {
    pub port: u16,
    superuser_url: String,
    keeper: Child,
}

impl Standby {
    /// Copies the server at this address of its superuser, and waits until the copy follows it.
    pub async fn of(primary_url: &str) -> Self {
        let primary = Url::parse(primary_url).unwrap();
        let mut conn = PgConnection::connect(primary_url).await.unwrap();
        let source: String = sqlx::query_scalar("show data_directory").fetch_one(&mut conn).await.unwrap();
        let folder = programs::postgres(None).unwrap().folder;
        let root = fresh_dir("standby");
        // Where the directory is removed once the server has ended.
        let (home, data) = (root.join("postgres"), root.join("postgres/data"));
        DirBuilder::new().recursive(true).mode(0o711).create(&home).unwrap();
        let as_owner = |program: &str| as_owner_of(Path::new(&source), &folder.join(program));
        if Uid::effective().is_root() {
            let owner = fs::metadata(&source).unwrap();
            chown(&home, Some(owner.uid()), Some(owner.gid())).unwrap();
        }
        let copied = as_owner("pg_basebackup")
            .args(["-h", "127.0.0.1", "-p", &primary.port().unwrap().to_string()])
            .args(["-U", primary.username(), "-X", "stream", "-c", "fast", "-R", "-D"])
            .arg(&data)
            .env("PGPASSWORD", primary.password().unwrap())
            .output()
            .unwrap();
        assert!(copied.status.success(), "pg_basebackup: {}", String::from_utf8_lossy(&copied.stderr));
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
        let settings = postgres::SETTINGS.map(|(name, value)| format!("{name}={value}"));
        let own =
            ["listen_addresses=127.0.0.1".into(), "unix_socket_directories=".into(), format!("port={port}")];
        let mut server = as_owner("/bin/sh");
        server.args(["-c", KEEPER, "keeper"]).arg(folder.join("postgres")).arg("-D").arg(&data);
        for setting in settings.into_iter().chain(own) {
            server.args(["-c", &setting]);
        }
        let log = fs::File::create(root.join("log")).unwrap();
        let keeper =
            server.process_group(0).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(log).spawn().unwrap();
        let mut own_url = primary.clone();
        own_url.set_port(Some(port)).unwrap();
        let standby = Self { port, superuser_url: own_url.to_string(), keeper };
        until(30, "the standby to follow", || async {
            let sql = "select exists (select from pg_stat_replication where state = 'streaming')";
            let mut conn = PgConnection::connect(primary_url).await.unwrap();
            sqlx::query_scalar(sql).fetch_one(&mut conn).await.unwrap()
        })
        .await;
        standby
    }

    /// Makes it the server that can be written.
    pub async fn promote(&self) {
        let mut conn = PgConnection::connect(&self.superuser_url).await.unwrap();
        let promoted: bool = sqlx::query_scalar("select pg_promote()").fetch_one(&mut conn).await.unwrap();
        assert!(promoted, "the standby is promoted");
    }
}

impl Drop for Standby {
    fn drop(&mut self) {
        drop(self.keeper.stdin.take());
        let _ended = self.keeper.wait();
    }
}

/// A program that runs as the user whose files these are: Postgres does not run as root.
fn as_owner_of(files: &Path, program: &Path) -> Command {
    let mut command = Command::new(program);
    command.current_dir("/");
    if Uid::effective().is_root() {
        let owner = fs::metadata(files).unwrap();
        command.uid(owner.uid()).gid(owner.gid());
    }
    command
}
