//! Private servers: their data is used again, they never outlive their owner, and nothing that is left behind
//! blocks the next start.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use boxoffice::{bus, store};
use dev_servers::{Given, Local, addresses};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sqlx::{Connection, PgConnection};

use crate::common::fresh_dir;

async fn start(dir: &Path) -> Local {
    dev_servers::start(dir, Given::default()).await.expect("both servers start")
}

async fn query(url: &str, sql: &'static str) -> i64 {
    let mut database = PgConnection::connect(url).await.expect("Postgres answers");
    let count = sqlx::query_scalar(sql).fetch_one(&mut database).await.expect("the statement is good");
    database.close().await.expect("the connection closes");
    count
}

/// The processes of both servers of a data directory, as their pid files name them.
fn pids(dir: &Path) -> [Pid; 2] {
    [files(dir).join("data/postmaster.pid"), dir.join("nats/pid")].map(|path| {
        let text = fs::read_to_string(path).expect("a running server has a pid file");
        Pid::from_raw(text.lines().next().unwrap().trim().parse().unwrap())
    })
}

/// Where Postgres's files are: inside, or where the data directory says.
fn files(dir: &Path) -> PathBuf {
    match fs::read_to_string(dir.join("postgres.path")) {
        Ok(elsewhere) => PathBuf::from(elsewhere.trim()),
        Err(_) => dir.join("postgres"),
    }
}

async fn until(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !condition() {
        assert!(Instant::now() < deadline, "waited 30 s: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// State and process group of a process, if there is one: from the system's table, or from `ps` where there is none.
fn look_at(pid: Pid) -> Option<(char, i32)> {
    let text = match fs::read_to_string(format!("/proc/{pid}/stat")) {
        Ok(stat) => {
            // pid (name) state ppid pgrp …; a name may hold anything.
            let words: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
            format!("{} {}", words[0], words[2])
        }
        Err(_) => {
            let listed =
                Command::new("ps").args(["-o", "stat=,pgid=", "-p", &pid.to_string()]).output().ok()?;
            String::from_utf8(listed.stdout).ok()?
        }
    };
    let (state, group) = text.trim().split_once(' ')?;
    Some((state.chars().next()?, group.trim().parse().ok()?))
}

/// A process that has ended and was not waited for counts as gone too.
fn is_gone(pid: Pid) -> bool {
    look_at(pid).is_none_or(|(state, _)| state == 'Z')
}

/// Kills the two shells that keep a server, and leaves the server: the first leads the process group, the second
/// was made right after the server.
fn kill_keeper_of(server: Pid) {
    let (_, group) = look_at(server).unwrap();
    let watch = (1..2_000)
        .map(|step| Pid::from_raw(server.as_raw() + step))
        .find(|pid| look_at(*pid).is_some_and(|(_, of)| of == group) && !is_gone(*pid));
    for shell in [Pid::from_raw(group), watch.unwrap()] {
        kill(shell, Signal::SIGKILL).unwrap();
    }
}

#[tokio::test]
async fn restart_reuses_data_stop_leaves_no_process() {
    let dir = fresh_dir("twice");
    let first = start(&dir).await;
    let mut database = PgConnection::connect(&first.database_url).await.unwrap();
    sqlx::raw_sql("create table kept as select 42::bigint as n").execute(&mut database).await.unwrap();
    let bus = bus::connect(&first.nats_url, "test", 1).await.unwrap();
    bus::topology::ensure_with_bucket(&bus).await.unwrap();
    let (servers, secret) = (pids(&dir), first.secrets.access_secret.clone());
    let addresses = (first.database_url.clone(), first.nats_url.clone());
    first.stop().await;
    assert!(servers.into_iter().all(is_gone));

    let second = start(&dir).await;
    assert_eq!(query(&second.database_url, "select n from kept").await, 42);
    let bus = bus::connect(&second.nats_url, "test", 1).await.unwrap();
    bus.jetstream.get_stream(bus::subjects::STEPS).await.expect("the stream was kept");
    assert_eq!(second.secrets.access_secret, secret);
    // Ports stay where they were, so that a process that is still connected finds its servers again.
    assert_eq!((second.database_url.clone(), second.nats_url.clone()), addresses);
    second.discard().await.unwrap();
    assert!(!dir.exists());
}

async fn rights(url: &str) -> (bool, bool, bool) {
    let mut database = PgConnection::connect(url).await.unwrap();
    let sql = "select rolsuper, rolcreaterole or rolcreatedb or rolreplication or rolbypassrls,
                      pg_get_userbyid(datdba) = current_user
               from pg_roles, pg_database where rolname = current_user and datname = current_database()";
    sqlx::query_as(sql).fetch_one(&mut database).await.unwrap()
}

#[tokio::test]
async fn the_service_owns_its_database_and_nothing_else() {
    let dir = fresh_dir("plain");
    let given = || Given { database_url: None, nats_url: Some("nats://none".into()) };
    let local = dev_servers::start(&dir, given()).await.unwrap();
    assert_eq!(rights(&local.database_url).await, (false, false, true));
    let mut service = PgConnection::connect(&local.database_url).await.unwrap();
    for sql in ["alter system set jit = on", "create role other", "copy pg_class to '/tmp/x'", "checkpoint"] {
        let error = sqlx::raw_sql(sql).execute(&mut service).await.unwrap_err();
        let code = error.as_database_error().and_then(|error| error.code()).map(|code| code.to_string());
        assert_eq!(code.as_deref(), Some("42501"), "{sql}: {error}");
    }
    let pool = store::open(&local.database_url, 2).unwrap();
    store::migrate(&pool).await.unwrap();
    pool.close().await;

    // A directory of an earlier release, whose cluster was made with the service's own role, goes on as it was.
    let mut superuser = PgConnection::connect(&local.superuser_url).await.unwrap();
    sqlx::raw_sql("alter role boxoffice superuser").execute(&mut superuser).await.unwrap();
    let url = local.database_url.clone();
    local.stop().await;
    fs::remove_file(dir.join("secrets/postgres_admin_password")).unwrap();
    let again = dev_servers::start(&dir, given()).await.unwrap();
    assert_eq!((&again.database_url, &again.superuser_url), (&url, &url));
    assert!(query(&url, "select count(*) from sagas").await == 0);
    again.discard().await.unwrap();
}

#[tokio::test]
async fn servers_are_local_and_need_a_password() {
    let dir = fresh_dir("closed");
    let local = start(&dir).await;
    let (before, after) = local.database_url.split_once('@').unwrap();
    let stranger = format!("postgres://boxoffice:guess@{after}");
    assert!(PgConnection::connect(&stranger).await.is_err(), "{before}");
    let (_, nats) = local.nats_url.split_once('@').unwrap();
    assert!(bus::connect(&format!("nats://{nats}"), "stranger", 1).await.is_err());
    for setting in ["fsync", "synchronous_commit"] {
        let mut database = PgConnection::connect(&local.database_url).await.unwrap();
        let value: String = sqlx::query_scalar("select current_setting($1)")
            .bind(setting)
            .fetch_one(&mut database)
            .await
            .unwrap();
        assert_eq!(value, "on", "{setting}");
    }
    local.stop().await;
}

#[tokio::test]
async fn second_process_gets_the_pid_of_the_owner() {
    let dir = fresh_dir("claimed");
    let given = Given { database_url: Some("postgres://none".into()), nats_url: Some("nats://none".into()) };
    let local = dev_servers::start(&dir, given.clone()).await.unwrap();
    let error = dev_servers::start(&dir, given).await.unwrap_err().to_string();
    assert!(error.contains(&std::process::id().to_string()) && error.contains("--data-dir"), "{error}");
    local.publish("127.0.0.1:8080".parse().unwrap(), None).unwrap();
    assert_eq!(addresses::find(&dir).unwrap().nats_url, "nats://none");
    local.stop().await;
    assert_eq!(addresses::find(&dir), None);
}

#[tokio::test]
async fn stale_files_do_not_block_a_start() {
    let dir = fresh_dir("stale");
    start(&dir).await.stop().await;
    // The worst case: the number in the pid file belongs to another process by now, this one.
    let data = files(&dir).join("data");
    let stale =
        format!("{}\n{}\n1700000000\n5432\n\n127.0.0.1\n  1 1\nready\n", std::process::id(), data.display());
    fs::write(data.join("postmaster.pid"), stale).unwrap();
    fs::write(dir.join("nats/pid"), std::process::id().to_string()).unwrap();
    fs::write(dir.join("lock"), "1\n").unwrap();
    fs::create_dir(files(&dir).join("data.new")).unwrap();
    let local = start(&dir).await;
    assert_eq!(query(&local.database_url, "select 1::bigint").await, 1);
    local.stop().await;
}

#[tokio::test]
async fn dead_server_is_reported_with_its_log() {
    let dir = fresh_dir("dies");
    let mut local = start(&dir).await;
    kill(pids(&dir)[1], Signal::SIGKILL).unwrap();
    let error = local.server_ended().await.to_string();
    assert!(error.contains("nats-server") && error.contains("Server is ready"), "{error}");
    local.stop().await;
}

#[tokio::test]
async fn unsupervised_servers_are_stopped_by_the_next_start() {
    let dir = fresh_dir("survivors");
    let local = start(&dir).await;
    let survivors = pids(&dir);
    for server in survivors {
        kill_keeper_of(server);
    }
    local.stop().await;
    let again = start(&dir).await;
    assert!(survivors.into_iter().all(is_gone));
    assert_eq!(query(&again.database_url, "select 1::bigint").await, 1);
    again.stop().await;
}

/// `boxoffice up` on this directory, ready to serve. It stops, too, when its input ends, so no test leaves it behind.
async fn up(dir: &Path) -> Child {
    let up = starting_up(dir, "127.0.0.1:0");
    until("`up` serves", || addresses::find(dir).is_some()).await;
    up
}

/// The same, at this address, and perhaps not ready yet.
fn starting_up(dir: &Path, address: &str) -> Child {
    Command::new(env!("CARGO_BIN_EXE_boxoffice"))
        .args(["up", "--until-stdin-ends", "--listen", address, "--data-dir"])
        .arg(dir)
        .stdin(Stdio::piped())
        .env_remove("DATABASE_URL")
        .env_remove("NATS_URL")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

#[tokio::test]
async fn the_servers_end_when_their_owner_is_killed() {
    let dir = fresh_dir("killed");
    let mut owner = up(&dir).await;
    let servers = pids(&dir);
    owner.kill().unwrap();
    owner.wait().unwrap();
    assert_eq!(addresses::find(&dir), None);
    // At once, while the servers of the killed process are perhaps still ending.
    let local = start(&dir).await;
    assert!(servers.into_iter().all(is_gone));
    assert_eq!(query(&local.database_url, "select 1::bigint").await, 1);
    local.stop().await;
}

#[tokio::test]
async fn orphaned_servers_end_by_themselves() {
    let dir = fresh_dir("orphaned");
    let mut owner = up(&dir).await;
    let servers = pids(&dir);
    owner.kill().unwrap();
    owner.wait().unwrap();
    until("both servers are gone", || servers.into_iter().all(is_gone)).await;
}

#[tokio::test]
async fn up_stops_on_signals_and_keeps_its_data() {
    let dir = fresh_dir("up");
    let mut seats_made = 0;
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let mut owner = up(&dir).await;
        let servers = pids(&dir);
        let found = addresses::find(&dir).unwrap();
        let seats = query(&found.database_url, "select count(*) from seats").await;
        assert!(seats > 0 && (seats_made == 0 || seats == seats_made));
        seats_made = seats;
        kill(Pid::from_raw(i32::try_from(owner.id()).unwrap()), signal).unwrap();
        assert!(owner.wait().unwrap().success());
        assert!(servers.into_iter().all(is_gone));
        assert_eq!(addresses::find(&dir), None);
    }
}

#[tokio::test]
async fn other_commands_find_up_once_it_is_ready() {
    let dir = fresh_dir("found");
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut owner = starting_up(&dir, &format!("127.0.0.1:{port}"));
    // Asked without a pause, so that the first moment of readiness is seen.
    let deadline = Instant::now() + Duration::from_secs(60);
    while !is_ready(port) {
        assert!(Instant::now() < deadline, "`up` does not become ready");
        std::thread::sleep(Duration::from_millis(1));
    }
    assert!(addresses::find(&dir).is_some(), "`up` is ready, and its addresses are not published");
    let made = Command::new(env!("CARGO_BIN_EXE_boxoffice"))
        .args(["keys", "create", "--role", "viewer", "--name", "first", "--data-dir"])
        .arg(&dir)
        .env_remove("DATABASE_URL")
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    drop(owner.stdin.take());
    assert!(owner.wait().unwrap().success());
}

fn is_ready(port: u16) -> bool {
    use std::io::{Read, Write};
    let Ok(mut connection) = std::net::TcpStream::connect(("127.0.0.1", port)) else {
        return false;
    };
    let mut answer = String::new();
    let request = b"GET /readyz HTTP/1.1\r\nhost: here\r\nconnection: close\r\n\r\n";
    let asked = connection.write_all(request).and_then(|()| connection.read_to_string(&mut answer));
    asked.is_ok() && answer.starts_with("HTTP/1.1 200")
}
