//! A `PgBouncer` of a test's own, before a database of the test. It ends with the test, or with its process.

use std::fs::{self, DirBuilder};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::fs::{DirBuilderExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::unistd::{Uid, User};
use url::Url;

use super::fresh_dir;

/// Where packages put it; some of these are not on the path of every user.
const FOLDERS: [&str; 4] = ["/usr/sbin", "/usr/bin", "/usr/local/bin", "/opt/homebrew/bin"];
/// Users that it may run as instead of root, best first.
const ACCOUNTS: [&str; 3] = ["postgres", "_postgres", "nobody"];
const READY_TIMEOUT: Duration = Duration::from_secs(20);

/// Ends the server when the pipe ends that only the test's process holds open.
const KEEPER: &str = r#"
    "$1" "$2" </dev/null &
    server=$!
    read -r _
    kill -KILL "$server"
"#;

pub struct PgBouncer {
    /// The database's address through this `PgBouncer`.
    pub url: String,
    keeper: Child,
}

impl PgBouncer {
    /// Starts one before the database at `database_url`; `settings` are lines of its configuration.
    pub fn start(database_url: &str, settings: &str) -> Self {
        let program = program();
        let database = Url::parse(database_url).expect("an address of a database is a URL");
        let (user, password) = (database.username(), database.password().expect("it has a password"));
        let (host, port) = (database.host_str().unwrap(), database.port().unwrap());
        let name = database.path().trim_start_matches('/');
        let dir = fresh_dir("pgbouncer");
        DirBuilder::new().mode(0o700).create(&dir).unwrap();
        let listen = free_port();
        let users = dir.join("users.txt");
        fs::write(&users, format!("\"{user}\" \"{password}\"\n")).unwrap();
        let config = dir.join("pgbouncer.ini");
        let text = format!(
            "[databases]\n{name} = host={host} port={port} dbname={name}\n[pgbouncer]\nlisten_addr = 127.0.0.1\n\
             listen_port = {listen}\nunix_socket_dir =\nauth_type = scram-sha-256\nauth_file = {}\n\
             default_pool_size = 60\nmax_client_conn = 200\n{settings}\n",
            users.display()
        );
        fs::write(&config, text).unwrap();
        let mut command = Command::new("/bin/sh");
        command.args(["-c", KEEPER, "keeper"]).arg(&program).arg(&config).current_dir("/");
        if Uid::effective().is_root() {
            // PgBouncer refuses to run as root.
            let account = ACCOUNTS.iter().find_map(|name| User::from_name(name).ok().flatten());
            let account = account.expect("there is a user postgres or nobody that PgBouncer can run as");
            let (uid, gid) = (account.uid.as_raw(), account.gid.as_raw());
            for path in [&dir, &users, &config] {
                chown(path, Some(uid), Some(gid)).unwrap();
            }
            command.uid(uid).gid(gid);
        }
        let log = fs::File::create(dir.join("log")).unwrap();
        command.process_group(0).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(log);
        let keeper = command.spawn().unwrap();
        let bouncer = Self { url: through(&database, listen), keeper };
        wait_for(listen, &dir);
        bouncer
    }
}

impl Drop for PgBouncer {
    fn drop(&mut self) {
        drop(self.keeper.stdin.take());
        let _ended = self.keeper.wait();
    }
}

fn through(database: &Url, port: u16) -> String {
    let mut url = database.clone();
    url.set_port(Some(port)).expect("the address has a host");
    url.to_string()
}

fn program() -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(FOLDERS.map(PathBuf::from));
    let mut candidates = folders.map(|folder| folder.join("pgbouncer"));
    candidates.find(|program| program.is_file()).expect(
        "this test needs PgBouncer, which is not on this machine; run `scripts/deps.sh tests`, or install the \
         system's package pgbouncer (it need not be started)",
    )
}

fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port()
}

fn wait_for(port: u16, dir: &Path) {
    let deadline = Instant::now() + READY_TIMEOUT;
    while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
        let log = || fs::read_to_string(dir.join("log")).unwrap_or_default();
        assert!(Instant::now() < deadline, "PgBouncer does not answer: {}", log());
        std::thread::sleep(Duration::from_millis(20));
    }
}
