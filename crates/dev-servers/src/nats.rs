//! A private nats-server with JetStream: the settings of `nats/single.conf`, on 127.0.0.1, with a random password.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::Path;
use std::thread::available_parallelism;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde::Deserialize;
use tokio::time::sleep;

use super::error::{LocalError, file};
use super::programs;
use super::secrets::{self, write_private};
use super::supervisor::{Launch, Log, Server, Traces, free_port};

/// The same file that the containers use.
const SETTINGS: &str = include_str!("../../../nats/single.conf");

const WHAT: &str = "the private nats-server";
const USER: &str = "boxoffice";
/// Ports tried when another program takes the one just found free.
const TRIES: usize = 5;
/// Reading large streams back may take a while.
const READY_WITHIN: Duration = Duration::from_secs(120);
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// The file in which nats-server says where it listens once it is ready.
#[derive(Deserialize)]
struct Ports {
    nats: Vec<String>,
}

/// A long line takes some hundred megabytes. Each garbage collection scans all of it, and delays other requests for a
/// tenth of a second, so it should be rare. On two shared cores one thread is enough: one thread per core spends a
/// sixth more CPU time on waking them.
fn environment() -> Vec<(&'static str, &'static str)> {
    let is_small = available_parallelism().is_ok_and(|cores| cores.get() <= 2);
    let wanted = [("GOGC", "400"), ("GOMAXPROCS", "1")];
    let taken = if is_small { &wanted[..] } else { &wanted[..1] };
    taken.iter().copied().filter(|(name, _)| env::var_os(name).is_none()).collect()
}

/// Starts the private nats-server of a claimed data directory; its streams of an earlier run are used again.
/// Gives its address, with user and password.
pub(super) async fn start(data_dir: &Path) -> Result<(String, Server), LocalError> {
    let password = secrets::keep(data_dir, "nats_password")?;
    let program = programs::nats_server()?;
    let root = data_dir.join("nats");
    fs::create_dir_all(&root).map_err(file(&root))?;
    let pid_file = root.join("pid");
    let conf = root.join("private.conf");
    let traces = Traces { pid_file: &pid_file, mark: conf.as_os_str(), signal: Signal::SIGTERM };
    let log = Log::claim(&data_dir.join("nats.log"), WHAT, &traces).await?;
    let shared = root.join("single.conf");
    write_private(&shared, SETTINGS).map_err(file(&shared))?;
    // The password is in the file and not among the arguments, which every user of the machine can read.
    let own =
        format!("include \"single.conf\"\nauthorization {{ user: {USER}, password: \"{password}\" }}\n");
    write_private(&conf, &own).map_err(file(&conf))?;

    let port_file = data_dir.join("nats.port");
    let ports = root.join("ports");
    let mut tried = 0;
    let (server, address) = loop {
        tried += 1;
        fresh(&ports)?;
        let port = free_port(&port_file).map_err(file(&port_file))?;
        let arguments: [OsString; 12] = [
            "-c".into(),
            conf.clone().into(),
            "-a".into(),
            "127.0.0.1".into(),
            "-p".into(),
            port.to_string().into(),
            "-sd".into(),
            root.join("store").into(),
            "--ports_file_dir".into(),
            ports.clone().into(),
            "-P".into(),
            pid_file.clone().into(),
        ];
        let launch = Launch {
            what: WHAT,
            program: &program,
            arguments: arguments.into(),
            user: None,
            folder: &root,
            signal: "TERM",
            environment: environment(),
        };
        let mut server = Server::launch(&launch, &log)?;
        match ready(&mut server, &ports).await {
            Ok(address) => break (server, address),
            Err(LocalError::Failed { tail, .. })
                if tried < TRIES && tail.contains("address already in use") =>
            {
                tracing::info!(port, "another program took the port, trying another one");
            }
            Err(error) => return Err(error),
        }
    };
    let port = address.rsplit(':').next().unwrap_or_default();
    write_private(&port_file, port).map_err(file(&port_file))?;
    tracing::info!(port, files = %root.display(), "private nats-server ready");
    Ok((format!("nats://{USER}:{password}@127.0.0.1:{port}"), server))
}

fn fresh(dir: &Path) -> Result<(), LocalError> {
    if dir.exists() {
        fs::remove_dir_all(dir).map_err(file(dir))?;
    }
    fs::create_dir(dir).map_err(file(dir))
}

/// Waits until the server has written where it listens, which it does once it is ready.
async fn ready(server: &mut Server, ports: &Path) -> Result<String, LocalError> {
    let says_so = async {
        let deadline = Instant::now() + READY_WITHIN;
        while Instant::now() < deadline {
            if let Some(address) = listening(ports) {
                return Some(address);
            }
            sleep(POLL_INTERVAL).await;
        }
        None
    };
    let in_time = tokio::select! {
        in_time = says_so => in_time,
        error = server.ended() => return Err(error),
    };
    in_time.ok_or_else(|| server.failed(format!("was not ready within {} s", READY_WITHIN.as_secs())))
}

fn listening(ports: &Path) -> Option<String> {
    let entry = fs::read_dir(ports).ok()?.flatten().next()?;
    let ports: Ports = serde_json::from_str(&fs::read_to_string(entry.path()).ok()?).ok()?;
    ports.nats.into_iter().next()
}
