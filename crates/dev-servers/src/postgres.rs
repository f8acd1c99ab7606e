//! A private Postgres: made with `initdb`, reachable on 127.0.0.1 only, with a random password.

use std::ffi::OsString;
use std::fs::{self, DirBuilder};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use tokio::time::sleep;

use super::error::{LocalError, file};
use super::os_user::OsUser;
use super::secrets::{self, write_private};
use super::supervisor::{Launch, Log, Server, Traces, free_port};
use super::{cluster, data_dir, programs};

/// The settings that matter, the same as in `docker-compose.yml` (a test compares them). A commit that was
/// answered is on the disk.
pub const SETTINGS: [(&str, &str); 8] = [
    ("fsync", "on"),
    ("full_page_writes", "on"),
    ("synchronous_commit", "on"),
    ("max_connections", "200"),
    ("shared_buffers", "256MB"),
    ("max_wal_size", "2GB"),
    ("jit", "off"),
    ("timezone", "UTC"),
];
/// Further arguments of `initdb`, as in `docker-compose.yml`: the order of names must not depend on the machine.
pub const INITDB: [&str; 2] = ["--no-locale", "--encoding=UTF8"];

const WHAT: &str = "the private Postgres";
/// The role that owns the database and can do nothing to the server.
const USER: &str = "boxoffice";
/// The role that the cluster is made with, which can do everything.
const SUPERUSER: &str = "boxoffice_admin";
/// The name of its password among the secrets.
const SUPERUSER_SECRET: &str = "postgres_admin_password";
/// Bytes that the path of a socket may have, with the name that Postgres adds and a closing zero.
const SOCKET_PATH_MAX: usize = 107;
const SOCKET_NAME: &str = "/.s.PGSQL.65535";
/// Ports tried when another program takes the one just found free.
const TRIES: usize = 5;
/// Crash recovery may take a while.
const READY_WITHIN: Duration = Duration::from_secs(120);
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// A Postgres that is ready, with the database in it.
#[derive(Debug)]
pub(super) struct Started {
    /// With user and password.
    pub(super) url: String,
    /// The same database as the superuser.
    pub(super) superuser_url: String,
    pub(super) server: Server,
    /// Where its files are.
    pub(super) files: PathBuf,
}

/// Where everything of one private Postgres is.
struct Files {
    root: PathBuf,
    data: PathBuf,
    socket: PathBuf,
    user: Option<OsUser>,
}

/// Starts the private Postgres of a claimed data directory; data of an earlier run is used again.
pub(super) async fn start(data_dir: &Path) -> Result<Started, LocalError> {
    let password = secrets::keep(data_dir, "postgres_password")?;
    let (root, user) = data_dir::of_postgres(data_dir)?;
    let files = Files { data: root.join("data"), socket: root.join("socket"), root, user };
    let pid_file = files.data.join("postmaster.pid");
    let traces = Traces { pid_file: &pid_file, mark: files.data.as_os_str(), signal: Signal::SIGINT };
    let log = Log::claim(&data_dir.join("postgres.log"), WHAT, &traces).await?;
    let made_by = fs::read_to_string(files.data.join("PG_VERSION")).ok();
    let major = made_by.and_then(|text| text.trim().parse().ok());
    let programs = programs::postgres(major)?;
    if major.is_none() {
        let superuser_password = secrets::keep(data_dir, SUPERUSER_SECRET)?;
        initialise(&programs.folder, &files, &superuser_password, &log).await?;
    }
    let port_file = data_dir.join("postgres.port");
    let mut tried = 0;
    let (server, port) = loop {
        tried += 1;
        forget_the_dead(&files, &pid_file)?;
        let port = free_port(&port_file).map_err(file(&port_file))?;
        let mut server = Server::launch(&launch(&programs.folder.join("postgres"), &files, port), &log)?;
        match ready(&mut server, &pid_file).await {
            Ok(()) => break (server, port),
            Err(LocalError::Failed { tail, .. }) if tried < TRIES && tail.contains("could not bind") => {
                tracing::info!(port, "another program took the port, trying another one");
            }
            Err(error) => return Err(error),
        }
    };
    write_private(&port_file, &port.to_string()).map_err(file(&port_file))?;
    let url = format!("postgres://{USER}:{password}@127.0.0.1:{port}/{USER}");
    let superuser_url = match secrets::find(data_dir, SUPERUSER_SECRET)? {
        Some(password) => format!("postgres://{SUPERUSER}:{password}@127.0.0.1:{port}/{USER}"),
        // A cluster of an earlier release was made with the service's own role, and nothing can take its rights away.
        None => url.clone(),
    };
    cluster::make_database(&superuser_url, USER, &password).await?;
    tracing::info!(port, version = programs.major, files = %files.root.display(), "private Postgres ready");
    Ok(Started { url, superuser_url, server, files: files.root })
}

/// Makes the database cluster: under another name first, so that one cut short is never taken for whole.
async fn initialise(programs: &Path, files: &Files, password: &str, log: &Log) -> Result<(), LocalError> {
    let draft = files.root.join("data.new");
    if draft.exists() {
        fs::remove_dir_all(&draft).map_err(file(&draft))?;
    }
    let password_file = files.root.join("password");
    write_private(&password_file, password).map_err(file(&password_file))?;
    files.user.map_or(Ok(()), |user| user.own(&password_file))?;
    let mut arguments: Vec<OsString> = INITDB.map(OsString::from).into();
    arguments.extend(["--auth=scram-sha-256", "--username", SUPERUSER, "--pwfile"].map(OsString::from));
    arguments.extend([password_file.clone().into(), "--pgdata".into(), draft.clone().into()]);
    let launch = Launch {
        what: "initdb",
        program: &programs.join("initdb"),
        arguments,
        user: files.user,
        folder: &files.root,
        signal: "KILL",
        environment: Vec::new(),
    };
    let mut initdb = Server::launch(&launch, log)?;
    let status = initdb.exit().await.map_err(file(launch.program))?;
    fs::remove_file(&password_file).map_err(file(&password_file))?;
    if !status.success() {
        return Err(initdb.failed(format!("failed ({status})")));
    }
    fs::rename(&draft, &files.data).map_err(file(&files.data))
}

fn launch<'a>(program: &'a Path, files: &'a Files, port: u16) -> Launch<'a> {
    // A path that is too long for a socket leaves TCP, which is what our own processes use anyway.
    let fits = files.socket.as_os_str().len() + SOCKET_NAME.len() <= SOCKET_PATH_MAX;
    let socket = if fits { files.socket.as_os_str().to_owned() } else { OsString::new() };
    let mut own = OsString::from("unix_socket_directories=");
    own.push(socket);
    let mut arguments = vec!["-D".into(), files.data.clone().into(), "-c".into(), own];
    let ports = [("listen_addresses", "127.0.0.1".to_owned()), ("port", port.to_string())];
    let settings = SETTINGS.map(|(name, value)| (name, value.to_owned()));
    for (name, value) in ports.into_iter().chain(settings) {
        arguments.extend(["-c".into(), format!("{name}={value}").into()]);
    }
    Launch {
        what: WHAT,
        program,
        arguments,
        user: files.user,
        folder: &files.root,
        signal: "INT",
        environment: Vec::new(),
    }
}

/// Removes what could block a start although the log's lock shows that no process of ours is left: a pid file whose
/// number belongs to another process by now, and sockets with their locks.
fn forget_the_dead(files: &Files, pid_file: &Path) -> Result<(), LocalError> {
    let pid = fs::read_to_string(pid_file).ok().and_then(|text| text.lines().next()?.trim().parse().ok());
    // Where the pid is free, Postgres knows best itself: it also frees what its predecessor held in memory.
    let taken = |pid| nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), None).is_ok();
    if pid.is_none_or(taken) && pid_file.exists() {
        fs::remove_file(pid_file).map_err(file(pid_file))?;
    }
    if files.socket.exists() {
        fs::remove_dir_all(&files.socket).map_err(file(&files.socket))?;
    }
    DirBuilder::new().mode(0o700).create(&files.socket).map_err(file(&files.socket))?;
    files.user.map_or(Ok(()), |user| user.own(&files.socket))
}

/// Waits until Postgres itself says that it is ready: the eighth line of its pid file. Asking the port could
/// reach a stranger.
async fn ready(server: &mut Server, pid_file: &Path) -> Result<(), LocalError> {
    let before = fs::read_to_string(pid_file).ok();
    let says_so = async {
        let deadline = Instant::now() + READY_WITHIN;
        while Instant::now() < deadline {
            let text = fs::read_to_string(pid_file).ok();
            let status = text.as_deref().and_then(|text| text.lines().nth(7));
            if text != before && status.is_some_and(|status| status.trim() == "ready") {
                return true;
            }
            sleep(POLL_INTERVAL).await;
        }
        false
    };
    let in_time = tokio::select! {
        in_time = says_so => in_time,
        error = server.ended() => return Err(error),
    };
    match in_time {
        true => Ok(()),
        false => Err(server.failed(format!("was not ready within {} s", READY_WITHIN.as_secs()))),
    }
}
