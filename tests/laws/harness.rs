//! Starts what the law tests need: real servers, the service in this process, and every workflow with its commands
//! sent through a proxy and with short times. Each file in `workflows/` is found, so a new workflow is tested too.

use std::fs;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::Duration;

use boxoffice::app::{App, Role};
use boxoffice::booking::BookingService;
use boxoffice::bus::subjects;
use boxoffice::orchestrator::Engine;
use boxoffice::saga::{Definition, Saga, Status};
use boxoffice::{audit, store};
use sqlx::PgPool;
use tempfile::TempDir;
use tokio_util::sync::{CancellationToken, DropGuard};
use toml::{Table, Value};
use uuid::Uuid;

use super::command_proxy::{CommandProxy, proxied};
use super::link::Link;
use super::sample_workflow::SampleWorkflow;
use crate::common::Env;
use crate::common::app::{add_concert, add_performance, start, until};

/// The seats of the performance, for all cases together.
const SEATS: i32 = 2_000;
pub const PRICE: i64 = 100;
/// The service itself sweeps once a second.
const SWEEP_INTERVAL: Duration = Duration::from_millis(50);

/// The times of the workflows. Every harness has few and quick retries.
#[derive(Clone, Copy)]
pub struct Timing {
    /// The reply timeout of every command.
    pub timeout_ms: i64,
    /// Replaces every deadline that is given in seconds.
    pub deadline_seconds: Option<i64>,
    /// Flags of the service.
    pub flags: &'static [&'static str],
}

/// Whether a service is part of the program or an external worker.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Side {
    Here,
    Elsewhere,
}

impl Timing {
    /// Long enough for a busy machine.
    pub const NORMAL: Self = Self { timeout_ms: 20_000, deadline_seconds: None, flags: &[] };
    /// Like `NORMAL`, and the service takes its locks before it decides.
    pub const LOCKED: Self = Self { flags: &["--step-control", "pessimistic"], ..Self::NORMAL };
}

pub struct Harness {
    pub env: Env,
    pub engine: Engine,
    pub booking: BookingService,
    app: Mutex<Option<App>>,
    pub proxy: CommandProxy,
    pub concert: Uuid,
    pub performance: Uuid,
    timing: Timing,
    next_seat: AtomicI32,
    holders: Mutex<Vec<Uuid>>,
    workflows: TempDir,
    sweeping: CancellationToken,
    _sweeping: DropGuard,
}

/// The built-in workflows, the sample workflow and the one with groups of parallel steps, each with its text.
pub fn workflows() -> Vec<(String, Definition)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let files = fs::read_dir(folder.join("workflows")).unwrap();
    let mut paths: Vec<_> = files.map(|entry| entry.unwrap().path()).collect();
    paths.push(folder.join("tests/laws/sample_workflow.toml"));
    paths.push(folder.join("tests/laws/parallel_workflow.toml"));
    paths.sort();
    let read = |path: &std::path::PathBuf| {
        let text = fs::read_to_string(path).unwrap();
        let definition = Definition::parse(&path.display().to_string(), &text).unwrap();
        (text, definition)
    };
    paths.iter().map(read).collect()
}

impl Harness {
    pub async fn start(timing: Timing) -> Self {
        Self::start_with_link(timing, None).await
    }

    /// Like [`Self::start`]. The services of one side reach their Postgres through the link.
    pub async fn start_with_link(timing: Timing, link: Option<(&Link, Side)>) -> Self {
        let mut env = Env::start().await;
        if let Some((link, Side::Here)) = link {
            env.database_url = link.connect(&env.database_url).await;
        }
        let folder = tempfile::tempdir().unwrap();
        for (text, definition) in workflows() {
            let file = folder.path().join(format!("{}.toml", definition.name));
            fs::write(file, rewritten(&text, timing)).unwrap();
        }
        // No request waits for a saga here: the cases read the rows.
        let given = ["--settle-ms", "1", "--workflows", folder.path().to_str().unwrap()];
        let flags: Vec<String> = given.iter().chain(timing.flags).map(ToString::to_string).collect();
        let roles = [Role::Orchestrator, Role::Worker, Role::Scheduler];
        let app = start(&env, &flags.iter().map(String::as_str).collect::<Vec<_>>(), &roles).await;
        let concert = add_concert(&app).await;
        let performance = add_performance(&app, concert, SEATS, PRICE).await;
        let elsewhere = link.and_then(|(link, side)| (side == Side::Elsewhere).then_some(link));
        let sample = SampleWorkflow::open(&env.bus, &workflows(), elsewhere).await;
        let proxy = CommandProxy::open(&env.bus, sample).await;
        let sweeping = CancellationToken::new();
        tokio::spawn(sweeping.clone().run_until_cancelled_owned(sweep(app.engine.clone())));
        Self {
            proxy,
            env,
            engine: app.engine.clone(),
            booking: app.booking.clone(),
            app: Mutex::new(Some(app)),
            concert,
            performance,
            timing,
            next_seat: AtomicI32::new(1),
            holders: Mutex::default(),
            workflows: folder,
            sweeping: sweeping.clone(),
            _sweeping: sweeping.drop_guard(),
        }
    }

    /// Stops the service. The servers and the proxy keep running.
    pub async fn stop_service(&self) {
        self.sweeping.cancel();
        let app = self.app.lock().unwrap().take();
        app.expect("it runs").stop().await;
    }

    /// The flags for another process on this harness.
    pub fn flags(&self) -> Vec<String> {
        let workflows = self.workflows.path().display().to_string();
        let timing = self.timing.flags.iter().map(ToString::to_string);
        ["--workflows".to_owned(), workflows].into_iter().chain(timing).collect()
    }

    pub fn pool(&self) -> &PgPool {
        &self.env.pool
    }

    /// The newest version, with the changes of this harness.
    pub fn definition(&self, workflow: &str) -> std::sync::Arc<Definition> {
        self.engine.registry.latest(workflow).unwrap()
    }

    /// A seat that no other case uses.
    pub fn seat(&self) -> i32 {
        self.next_seat.fetch_add(1, Ordering::Relaxed)
    }

    pub async fn saga(&self, id: Uuid) -> Saga {
        store::sagas::get(self.pool(), id).await.unwrap().expect("the saga was started")
    }

    /// Waits until every message that is in the streams now has been processed. The sequence number of the last
    /// message says which these are.
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

    /// Remembers a reservation that must still hold its seat when the harness closes.
    pub fn remember_holder(&self, reservation: Uuid) {
        self.holders.lock().unwrap().push(reservation);
    }

    /// Checks that every remembered reservation holds its seat, every saga ends, no message was parked, and the audit
    /// is good.
    pub async fn close(&self) {
        let holders = self.holders.lock().unwrap().clone();
        for holder in holders {
            assert_eq!(
                self.saga(holder).await.status,
                Status::Waiting,
                "a remembered reservation lost its seat"
            );
            self.booking.cancel(holder).await.unwrap();
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
        tokio::time::sleep(SWEEP_INTERVAL).await;
        engine.sweep().await.unwrap();
    }
}

/// Sends the workflow's commands through the proxy and shortens its times.
fn rewritten(text: &str, timing: Timing) -> String {
    let mut workflow: Table = text.parse().unwrap();
    rewrite_steps(workflow["steps"].as_array_mut().unwrap(), timing);
    workflow.to_string()
}

fn rewrite_steps(steps: &mut [Value], timing: Timing) {
    for step in steps {
        let step = step.as_table_mut().unwrap();
        if let Some(members) = step.get_mut("parallel") {
            rewrite_steps(members.as_array_mut().unwrap(), timing);
        }
        for key in ["command", "undo"] {
            if let Some(Value::String(command)) = step.get_mut(key) {
                *command = proxied(command);
            }
        }
        if let (Some(seconds), Some(deadline)) = (timing.deadline_seconds, step.get_mut("deadline"))
            && let Some(given) = deadline.get_mut("seconds")
        {
            *given = Value::Integer(seconds);
        }
        if step.contains_key("command") {
            step.insert("timeout_ms".to_owned(), Value::Integer(timing.timeout_ms));
            for key in ["retry", "undo_retry"] {
                let retry = "first_ms = 10\nfactor = 2.0\ncap_ms = 20\nattempts = 3".parse::<Table>();
                step.insert(key.to_owned(), Value::Table(retry.unwrap()));
            }
        }
    }
}
