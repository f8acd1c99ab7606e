//! Attacks by one address and one user while other users poll their places: the latency of the polls, and the memory used.
//!
//! The attackers run on a thread of their own: thousands of connections that send nothing, one user who opens event streams
//! without end, and bodies of a mebibyte that are refused. All come from the address that the others come from.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::Plan;
use super::client::{Caller, Client};
use super::crowd;
use super::load;
use super::people::stand_in_line;
use super::progress::Progress;
use super::report::{Goal, Measure, Quantile, Report};
use super::stage::{ALL_ROLES, Meter, Stage, Wanted};
use super::timing::Timings;

/// Connections that send nothing: more than the service keeps open.
const SILENT: u32 = 10_300;
/// The pause before a closed one is opened again.
const REOPEN_AFTER: Duration = Duration::from_secs(1);
/// Event streams that one user opens per second.
const STREAMS_PER_SECOND: u64 = 50;
/// Bodies that are refused, at once, without a pause.
const BODIES_AT_ONCE: usize = 3;
/// Numbers in each of them: with its commas a mebibyte, less some bytes.
const NUMBERS: usize = 524_000;
/// Who waits in line and asks for a place.
const PEOPLE: u32 = 400;
/// How many of them join at once.
const JOIN_AT_ONCE: u32 = 32;
/// How often it is asked whether the service lives, per second.
const LIVEZ_RATE: u32 = 20;
/// The goals: milliseconds at p99, and megabytes at the peak.
const GOAL_MS: f64 = 200.0;
const GOAL_MB: f64 = 300.0;

/// What the attackers achieved.
#[derive(Default)]
struct Achieved {
    connections: AtomicU64,
    streams: AtomicU64,
    bodies: AtomicU64,
}

pub(super) async fn run(plan: &Plan, progress: &Progress) -> anyhow::Result<Report> {
    let (rate, seconds) = (plan.rate.unwrap_or(200), plan.seconds.unwrap_or(40));
    let stage = Stage::open(plan, Wanted::default()).await?;
    let service = stage.serve(ALL_ROLES).await?;
    let client = service.client.clone();
    let queue = json!({ "max_active": 2, "admit_per_minute": 1 });
    let (concert, performance) = crowd::sale(&stage, &client, queue, 1_000).await?;
    let people = stand_in_line(&stage, &client, concert, JOIN_AT_ONCE, PEOPLE, progress).await?;
    let people: Vec<Caller> = people.into_iter().map(|(_, caller)| caller).collect();
    let attacker = people.first().context("there are people in line")?.clone();

    let stop = CancellationToken::new();
    let achieved: Arc<Achieved> = Arc::default();
    let attack = begin(&client, attacker, performance, Arc::clone(&achieved), stop.clone())?;
    // All connections are open before anything is measured.
    sleep(Duration::from_secs(3)).await;
    let meter = Meter::start();
    let (polls, lives) = measure(&client, people, rate, seconds, progress).await;
    let cpu = meter.read();
    let peak = service.peak_resident().map(|bytes| bytes as f64 / 1e6);
    stop.cancel();
    let _ended = attack.join();

    let report = report(&polls, &lives, peak, &achieved);
    let asked = polls.timings.count();
    stage.close(vec![service], report.work(asked, polls.seconds, cpu).with("seconds", seconds)).await
}

fn report(polls: &Asked, lives: &Asked, peak: Option<f64>, achieved: &Achieved) -> Report {
    let goal = |name, asked: &Asked| Measure::with_goal(name, &asked.timings, Quantile::P99, GOAL_MS);
    let measures = vec![goal("asking for a place", polls), goal("asking whether it lives", lives)];
    let mut report = Report::new("attack", measures);
    report.errors = polls.errors + lives.errors;
    report.goals = vec![Goal::at_most("megabytes of the service at the peak", peak, GOAL_MB)];
    report.generator_late = polls.late.spread();
    let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    report
        .with("silent_connections", SILENT)
        .with("connections_opened", count(&achieved.connections))
        .with("streams_opened", count(&achieved.streams))
        .with("bodies_refused", count(&achieved.bodies))
}

/// The results of the users who polled meanwhile.
struct Asked {
    timings: Timings,
    late: Timings,
    errors: u64,
    seconds: f64,
}

/// Others ask for their places, and a machine whether the service lives.
async fn measure(
    client: &Client,
    people: Vec<Caller>,
    rate: u32,
    seconds: u32,
    progress: &Progress,
) -> (Asked, Asked) {
    let quiet = Progress::new(true);
    progress.begin("others ask for their places", u64::from(rate * seconds));
    let people = Arc::new(people);
    let polls = ask(rate, rate * seconds, progress, {
        let client = client.apart();
        move |number| {
            let (client, people) = (client.clone(), Arc::clone(&people));
            async move { client.look(&people[number as usize % people.len()]).await.map(drop) }
        }
    });
    let lives = ask(LIVEZ_RATE, LIVEZ_RATE * seconds, &quiet, {
        let client = client.apart();
        move |_| {
            let client = client.clone();
            async move {
                let status = client.get("/livez", &Caller::default()).await?.status;
                anyhow::ensure!(status == 200, "/livez answered {status}");
                Ok(())
            }
        }
    });
    tokio::join!(polls, lives)
}

async fn ask<W>(rate: u32, total: u32, progress: &Progress, work: impl Fn(u32) -> W) -> Asked
where
    W: Future<Output = anyhow::Result<()>> + Send + 'static,
{
    let timings: Arc<Mutex<Timings>> = Arc::default();
    let loaded = load::steadily(rate, total, progress, |number| {
        let (timings, asked) = (Arc::clone(&timings), work(number));
        async move {
            let begun = Instant::now();
            let answer = asked.await;
            timings.lock().unwrap_or_else(PoisonError::into_inner).add_duration(begun.elapsed());
            answer
        }
    })
    .await;
    let timings = timings.lock().unwrap_or_else(PoisonError::into_inner).clone();
    Asked { timings, late: loaded.late, errors: loaded.errors, seconds: loaded.seconds }
}

/// Starts the attackers on a thread of their own.
fn begin(
    client: &Client,
    attacker: Caller,
    performance: Uuid,
    achieved: Arc<Achieved>,
    stop: CancellationToken,
) -> anyhow::Result<std::thread::JoinHandle<()>> {
    let address: SocketAddr = client.authority().parse().context("the service answers at an address")?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let attack = async move {
        let mut attackers = JoinSet::new();
        for _ in 0..SILENT {
            attackers.spawn(keep_silent(address, Arc::clone(&achieved)));
        }
        attackers.spawn(open_streams(address, attacker.clone(), Arc::clone(&achieved)));
        for _ in 0..BODIES_AT_ONCE {
            attackers.spawn(send_bodies(address, attacker.clone(), performance, Arc::clone(&achieved)));
        }
        stop.cancelled().await;
        attackers.abort_all();
    };
    Ok(std::thread::spawn(move || runtime.block_on(attack)))
}

/// A connection that sends nothing; one that was closed is opened again.
async fn keep_silent(address: SocketAddr, achieved: Arc<Achieved>) {
    loop {
        if let Ok(mut stream) = TcpStream::connect(address).await {
            achieved.connections.fetch_add(1, Ordering::Relaxed);
            let _closed = stream.read(&mut [0; 1]).await;
        }
        sleep(REOPEN_AFTER).await;
    }
}

/// One user opens streams, and keeps all that the service leaves open.
async fn open_streams(address: SocketAddr, attacker: Caller, achieved: Arc<Achieved>) {
    let head = head("GET", "/v1/queue-tokens/current/events", &attacker, 0);
    let mut open = JoinSet::new();
    loop {
        if let Ok(mut stream) = TcpStream::connect(address).await
            && stream.write_all(head.as_bytes()).await.is_ok()
        {
            achieved.streams.fetch_add(1, Ordering::Relaxed);
            open.spawn(async move {
                let mut bytes = [0; 4_096];
                while stream.read(&mut bytes).await.is_ok_and(|length| length > 0) {}
            });
        }
        while open.try_join_next().is_some() {}
        sleep(Duration::from_millis(1_000 / STREAMS_PER_SECOND)).await;
    }
}

/// Orders of far too many seats, one after the other.
async fn send_bodies(address: SocketAddr, attacker: Caller, performance: Uuid, achieved: Arc<Achieved>) {
    let zeros = vec!["0"; NUMBERS].join(",");
    let body = format!("{{\"performance_id\":\"{performance}\",\"seats\":[{zeros}]}}");
    let request = format!("{}{body}", head("POST", "/v1/reservations", &attacker, body.len()));
    loop {
        let Ok(mut stream) = TcpStream::connect(address).await else { continue };
        if stream.write_all(request.as_bytes()).await.is_err() {
            continue;
        }
        let mut answer = Vec::new();
        if stream.read_to_end(&mut answer).await.is_ok() && answer.starts_with(b"HTTP/1.1 422") {
            achieved.bodies.fetch_add(1, Ordering::Relaxed);
        }
    }
}

fn head(method: &str, path: &str, caller: &Caller, length: usize) -> String {
    format!(
        "{method} {path} HTTP/1.1\r\nHost: service\r\nConnection: close\r\nAuthorization: Bearer {}\r\n\
         Queue-Token: {}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n",
        caller.bearer, caller.queue_token
    )
}
