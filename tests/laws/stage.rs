//! Where workflows are tried: real servers, the service, and every workflow with its commands led through the post
//! and its pace quickened. A new file in `workflows/` is found and tried like the others.

use std::fs;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::Duration;

use boxoffice::app::{App, Role};
use boxoffice::booking::Desk;
use boxoffice::bus::subjects;
use boxoffice::orchestrator::Engine;
use boxoffice::saga::{Definition, Saga, Status};
use boxoffice::{audit, store};
use sqlx::PgPool;
use tempfile::TempDir;
use tokio_util::sync::{CancellationToken, DropGuard};
use toml::{Table, Value};
use uuid::Uuid;

use super::parcels::Parcels;
use super::post::{Post, detour};
use super::wire::Wire;
use crate::common::Env;
use crate::common::app::{add_concert, add_performance, start, until};

/// Seats for all cases of a stage.
const SEATS: i32 = 2_000;
/// What each costs.
pub const PRICE: i64 = 100;
/// How often sagas that are due are looked at; the service itself does it once a second.
const SWEEP: Duration = Duration::from_millis(50);

/// How quickly the workflows of a stage lose patience. Retries come quickly and are few on every stage.
#[derive(Clone, Copy)]
pub struct Pace {
    /// Silence for so long, and a command is sent again.
    pub timeout_ms: i64,
    /// In place of every deadline that is given in seconds.
    pub deadline_seconds: Option<i64>,
    /// The settings of the service.
    pub flags: &'static [&'static str],
}

/// Where services are: in the program, or elsewhere.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Side {
    Here,
    Elsewhere,
}

impl Pace {
    /// Time enough for everything, also on a busy machine.
    pub const CALM: Self = Self { timeout_ms: 20_000, deadline_seconds: None, flags: &[] };
    /// The same, and locks come before anything is decided.
    pub const LOCKED: Self = Self { flags: &["--step-control", "pessimistic"], ..Self::CALM };
}

/// The servers, the service in this process, and the post.
pub struct Stage {
    pub env: Env,
    pub engine: Engine,
    pub desk: Desk,
    app: Mutex<Option<App>>,
    pub post: Post,
    pub concert: Uuid,
    pub performance: Uuid,
    pace: Pace,
    next_seat: AtomicI32,
    guests: Mutex<Vec<Uuid>>,
    workflows: TempDir,
    sweeping: CancellationToken,
    _sweeping: DropGuard,
}

/// Every workflow there is: the built-in ones, and one of nobody here.
pub fn workflows() -> Vec<(String, Definition)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let files = fs::read_dir(folder.join("workflows")).unwrap();
    let mut paths: Vec<_> = files.map(|entry| entry.unwrap().path()).collect();
    paths.push(folder.join("tests/laws/parcel.toml"));
    paths.sort();
    let read = |path: &std::path::PathBuf| {
        let text = fs::read_to_string(path).unwrap();
        let definition = Definition::parse(&path.display().to_string(), &text).unwrap();
        (text, definition)
    };
    paths.iter().map(read).collect()
}

impl Stage {
    pub async fn set(pace: Pace) -> Self {
        Self::wired(pace, None).await
    }

    /// The same, with the services on one side reaching their Postgres by this wire.
    pub async fn wired(pace: Pace, wire: Option<(&Wire, Side)>) -> Self {
        let mut env = Env::start().await;
        if let Some((wire, Side::Here)) = wire {
            env.database_url = wire.lay(&env.database_url).await;
        }
        let folder = tempfile::tempdir().unwrap();
        for (text, definition) in workflows() {
            let file = folder.path().join(format!("{}.toml", definition.name));
            fs::write(file, rewritten(&text, pace)).unwrap();
        }
        // Nobody waits for an answer here: the cases look at the rows.
        let given = ["--settle-ms", "1", "--workflows", folder.path().to_str().unwrap()];
        let flags: Vec<String> = given.iter().chain(pace.flags).map(ToString::to_string).collect();
        let roles = [Role::Orchestrator, Role::Worker, Role::Scheduler];
        let app = start(&env, &flags.iter().map(String::as_str).collect::<Vec<_>>(), &roles).await;
        let concert = add_concert(&app).await;
        let performance = add_performance(&app, concert, SEATS, PRICE).await;
        let elsewhere = wire.and_then(|(wire, side)| (side == Side::Elsewhere).then_some(wire));
        let all = workflows();
        let (_, made_up) = all.iter().find(|(_, definition)| definition.name == "parcel").unwrap();
        let parcels = Parcels::open(&env.bus, made_up, elsewhere).await;
        let post = Post::open(&env.bus, parcels).await;
        let sweeping = CancellationToken::new();
        tokio::spawn(sweeping.clone().run_until_cancelled_owned(sweep(app.engine.clone())));
        Self {
            post,
            env,
            engine: app.engine.clone(),
            desk: app.desk.clone(),
            app: Mutex::new(Some(app)),
            concert,
            performance,
            pace,
            next_seat: AtomicI32::new(1),
            guests: Mutex::default(),
            workflows: folder,
            sweeping: sweeping.clone(),
            _sweeping: sweeping.drop_guard(),
        }
    }

    /// Stops the service; the servers and the post stay.
    pub async fn stop_service(&self) {
        self.sweeping.cancel();
        let app = self.app.lock().unwrap().take();
        app.expect("it runs").stop().await;
    }

    /// The settings that a process on this stage needs beside the servers.
    pub fn flags(&self) -> Vec<String> {
        let workflows = self.workflows.path().display().to_string();
        let pace = self.pace.flags.iter().map(ToString::to_string);
        ["--workflows".to_owned(), workflows].into_iter().chain(pace).collect()
    }

    pub fn pool(&self) -> &PgPool {
        &self.env.pool
    }

    /// The definitions as they are on this stage, the newest of each workflow.
    pub fn definition(&self, workflow: &str) -> &Definition {
        self.engine.registry.latest(workflow).unwrap()
    }

    /// A seat that no other case has.
    pub fn seat(&self) -> i32 {
        self.next_seat.fetch_add(1, Ordering::Relaxed)
    }

    pub async fn saga(&self, id: Uuid) -> Saga {
        store::sagas::get(self.pool(), id).await.unwrap().expect("the saga was started")
    }

    /// Every message that was on its way by now has been dealt with. Others may be on theirs: what came before them is
    /// told by the number of the last one.
    pub async fn drained(&self) {
        for name in [subjects::STEPS, subjects::SAGAS] {
            let stream = || async { self.env.bus.jetstream.get_stream(name).await.unwrap() };
            let last = stream().await.cached_info().state.last_sequence;
            until(20, "all messages to be dealt with", || async {
                let state = stream().await.cached_info().state.clone();
                state.messages == 0 || state.first_sequence > last
            })
            .await;
        }
    }

    /// Somebody who took a seat while cases were tried, and must still have it at the end.
    pub fn remember_guest(&self, reservation: Uuid) {
        self.guests.lock().unwrap().push(reservation);
    }

    /// Every guest still has the seat, every saga has ended, nothing was parked, and the books are right.
    pub async fn close(&self) {
        let guests = self.guests.lock().unwrap().clone();
        for guest in guests {
            assert_eq!(self.saga(guest).await.status, Status::Waiting, "a guest lost the seat");
            self.desk.cancel(guest).await.unwrap();
        }
        until(30, "every saga to end", || async {
            store::sagas::count_open(self.pool()).await.unwrap().is_empty()
        })
        .await;
        assert_eq!(store::operations::count_parked(self.pool()).await.unwrap(), 0, "messages were parked");
        let report = audit::run(self.pool()).await.unwrap();
        assert!(report.is_good(true), "the audit found: {report:#?}");
    }
}

async fn sweep(engine: Engine) {
    loop {
        tokio::time::sleep(SWEEP).await;
        engine.sweep().await.unwrap();
    }
}

/// A workflow whose commands go through the post, and whose pauses are short.
fn rewritten(text: &str, pace: Pace) -> String {
    let mut workflow: Table = text.parse().unwrap();
    for step in workflow["steps"].as_array_mut().unwrap() {
        let step = step.as_table_mut().unwrap();
        for key in ["command", "undo"] {
            if let Some(Value::String(command)) = step.get_mut(key) {
                *command = detour(command);
            }
        }
        if let (Some(seconds), Some(deadline)) = (pace.deadline_seconds, step.get_mut("deadline"))
            && let Some(given) = deadline.get_mut("seconds")
        {
            *given = Value::Integer(seconds);
        }
        if step.contains_key("command") {
            step.insert("timeout_ms".to_owned(), Value::Integer(pace.timeout_ms));
            for key in ["retry", "undo_retry"] {
                let retry = "first_ms = 10\nfactor = 2.0\ncap_ms = 20\nattempts = 3".parse::<Table>();
                step.insert(key.to_owned(), Value::Table(retry.unwrap()));
            }
        }
    }
    workflow.to_string()
}
