//! A thousand journeys of `examples/trip` at once, by workers in three languages that are killed again and again.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use boxoffice::bus::{messages, publish};
use boxoffice::{ids, store};
use serde_json::{Map, json};
use sqlx::PgPool;
use tokio::process::{Child, Command};
use uuid::Uuid;

use crate::common::app::{TestApp, until};
use crate::common::fresh_database;
use crate::toolchains;

const TRIPS: usize = 1_000;
/// The pauses between two kills, in milliseconds.
const PAUSES: std::ops::Range<u64> = 200..1_200;
/// Workers are killed so often at least, also if the trips end earlier.
const KILLS: usize = 20;

fn trip() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/trip")
}

/// A worker and where it keeps its bookings.
struct Worker {
    name: &'static str,
    environment: [(&'static str, String); 2],
    process: Child,
}

impl Worker {
    fn start(name: &'static str, environment: [(&'static str, String); 2]) -> Self {
        let process = spawn(name, &environment);
        Self { name, environment, process }
    }

    /// As `kill -9` and a supervisor do.
    async fn kill_and_start(&mut self) {
        self.process.kill().await.unwrap();
        self.process = spawn(self.name, &self.environment);
    }
}

fn spawn(name: &str, environment: &[(&'static str, String); 2]) -> Child {
    let mut worker = Command::new(trip().join("run.sh"));
    worker.args(["--built", name]).envs(environment.iter().map(|(name, value)| (*name, value)));
    let quiet = worker.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    quiet.kill_on_drop(true).spawn().unwrap()
}

/// Starts all trips by messages, a third of them to a city where the last worker has no cars.
async fn start_all(test: &TestApp) {
    let trips: Vec<_> = (0..TRIPS)
        .map(|number| {
            let city = if number % 3 == 0 { "Venice" } else { "Oslo" };
            let input = json!({ "city": city, "approved": true }).as_object().unwrap().clone();
            let (subject_id, attributes) = (None, Map::new());
            let body = messages::StartBody {
                version: 1,
                workflow: "trip".to_owned(),
                subject_id,
                input,
                attributes,
            };
            messages::start(ids::new(), &body)
        })
        .collect();
    publish::publish(&test.app.bus, &trips, Clone::clone).await.unwrap();
}

/// The trips with this status.
async fn with_status(pool: &PgPool, status: &str) -> BTreeSet<Uuid> {
    let sql = "select id from saga_view where workflow = 'trip' and status = $1";
    sqlx::query_scalar(sql).bind(status).fetch_all(pool).await.unwrap().into_iter().collect()
}

/// What a worker has booked, once for each booking.
async fn in_postgres(url: &str, schema: &str) -> Vec<Uuid> {
    let pool = store::open(url, 1).unwrap();
    let sql = format!("select saga from {schema}.bookings order by saga");
    sqlx::query_scalar(sqlx::AssertSqlSafe(sql)).fetch_all(&pool).await.unwrap()
}

async fn in_sqlite(file: &Path) -> Vec<Uuid> {
    let program = "import sqlite3, sys\nfor row in sqlite3.connect(sys.argv[1]).execute('select saga from bookings'): print(row[0])";
    let python = Command::new("python3").args(["-c", program]).arg(file).output().await.unwrap();
    let mut sagas: Vec<Uuid> =
        String::from_utf8(python.stdout).unwrap().lines().map(|line| line.parse().unwrap()).collect();
    sagas.sort();
    sagas
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_trips_survive_killed_workers() {
    if !toolchains::trip_is_built().await {
        return;
    }
    let test = TestApp::with(&["--workflows", trip().to_str().unwrap()]).await;
    let (flights, cars, hotels) =
        (fresh_database().await, fresh_database().await, test.env.dir.join("hotel.db"));
    let nats = || ("NATS_URL", test.env.nats_url.clone());
    let mut workers: Vec<Worker> = Vec::new();
    for _ in 0..2 {
        workers.push(Worker::start("hotel", [nats(), ("HOTEL_DB", hotels.display().to_string())]));
        workers.push(Worker::start("flight", [nats(), ("DATABASE_URL", flights.clone())]));
        workers.push(Worker::start("car", [nats(), ("DATABASE_URL", cars.clone())]));
    }
    let pool = test.app.pool.clone();
    start_all(&test).await;
    let ended =
        async || with_status(&pool, "completed").await.len() + with_status(&pool, "compensated").await.len();
    let end = tokio::time::Instant::now() + Duration::from_secs(400);
    let mut kills = 0;
    while ended().await < TRIPS || kills < KILLS {
        assert!(tokio::time::Instant::now() < end, "{} of {TRIPS} trips have ended", ended().await);
        tokio::time::sleep(Duration::from_millis(rand::random_range(PAUSES))).await;
        workers[rand::random_range(0..6)].kill_and_start().await;
        kills += 1;
    }
    println!("{kills} kills");

    let (completed, compensated) =
        (with_status(&pool, "completed").await, with_status(&pool, "compensated").await);
    assert_eq!((completed.len(), compensated.len()), (TRIPS - TRIPS.div_ceil(3), TRIPS.div_ceil(3)));
    assert_eq!(store::operations::count_parked(&pool).await.unwrap(), 0);
    // Commands that were sent again are still taken off the stream.
    let steps = test.app.bus.jetstream.get_stream("STEPS").await.unwrap();
    until(60, "the last commands", || async { steps.get_info().await.unwrap().state.messages == 0 }).await;
    let booked: Vec<Uuid> = completed.into_iter().collect();
    assert_eq!(in_sqlite(&hotels).await, booked, "hotels");
    assert_eq!(in_postgres(&flights, "flight").await, booked, "flights");
    assert_eq!(in_postgres(&cars, "car").await, booked, "cars");
}
