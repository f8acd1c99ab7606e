//! A service outside the engine's database: it gives functions for its commands, and this keeps the fence around them.
//!
//! ```ignore
//! elsewhere::Service::new("printer", pool)
//!     .command("printer.print", |conn, asked| Box::pin(print(conn, asked)))
//!     .command("printer.unprint", |conn, asked| Box::pin(unprint(conn, asked)))
//!     .limit(Duration::from_secs(10))
//!     .run(&bus, &stop)
//!     .await?;
//! ```
//!
//! Each function runs in the transaction that has the step's row locked, and its writes stay only if it says `done`.
//! Commands that come twice, late or after their undo never reach it. The contract is `docs/workers.md`; a service in
//! another language follows it by hand.

mod serve;
mod by_hand;
mod judge;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use serde_json::{Map, Value};
use sqlx::{PgConnection, PgPool};
use tokio_util::sync::CancellationToken;

use crate::background::Tasks;
use crate::bus::{Bus, presence, subjects};
use crate::saga::{Command, Outcome};
use crate::store;

/// How long outcomes are kept, unless it is said: a month.
const KEEP: Duration = Duration::from_secs(30 * 24 * 3600);
/// The longest deadline of a step, unless it is said: a day.
const LONGEST_DEADLINE: Duration = Duration::from_secs(24 * 3600);
/// The longest that a function may take, unless it is said.
const LIMIT: Duration = Duration::from_secs(30);

/// What a command's function is given.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    pub command: &'a Command,
    /// On an undo the output of the `do`, if that is known to be done. If not, nothing of it is in this database; what
    /// a function calls elsewhere may still have happened.
    pub done: Option<&'a Map<String, Value>>,
}

/// What a command's function comes to. An error counts as `failed`, or, if the database is away, as not tried.
pub type Answered<'a> = BoxFuture<'a, anyhow::Result<Outcome>>;

type Handler = Arc<dyn for<'a> Fn(&'a mut PgConnection, Asked<'a>) -> Answered<'a> + Send + Sync>;

/// A service, its own database, and a function for each of its commands.
#[derive(Clone)]
pub struct Service {
    name: String,
    pool: PgPool,
    keep: Duration,
    longest_deadline: Duration,
    limit: Duration,
    handlers: BTreeMap<String, Handler>,
}

/// Why a service cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("{command} is not a command of the service {service}: its name must begin with `{service}.`")]
    NotItsCommand { service: String, command: String },
    #[error(
        "outcomes are kept for {keep:?}, but a command may come up to {needed:?} after it was first seen: the longest \
         deadline ({deadline:?}) and then as long as the stream {stream} keeps messages ({age:?}); keep them for longer"
    )]
    KeptTooShort { keep: Duration, needed: Duration, deadline: Duration, stream: &'static str, age: Duration },
    #[error(
        "the stream {stream} keeps messages for ever, so no outcome may ever be forgotten; give it a max_age"
    )]
    EndlessStream { stream: &'static str },
    #[error("the stream {stream} cannot be looked at: {reason}")]
    Stream { stream: &'static str, reason: String },
    #[error("the table of outcomes cannot be made: {0}")]
    Database(#[from] sqlx::Error),
    #[error(transparent)]
    Presence(#[from] presence::PresenceError),
}

/// Why a service does not run any more.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error(transparent)]
    Start(#[from] StartError),
    #[error(
        "the task \"{task}\" of the service {service} has ended before the stop; see the log, and start it again"
    )]
    Dead { service: String, task: &'static str },
}

impl Service {
    /// A service without commands yet. Its outcomes are in the table `saga_outcomes` of this database.
    pub fn new(name: &str, pool: PgPool) -> Self {
        let (keep, longest_deadline) = (KEEP, LONGEST_DEADLINE);
        let handlers = BTreeMap::new();
        Self { name: name.to_owned(), pool, keep, longest_deadline, limit: LIMIT, handlers }
    }

    /// Serves a command by this function; do and undo of one step must be commands of one service.
    pub fn command<F>(mut self, command: &str, handler: F) -> Self
    where
        F: for<'a> Fn(&'a mut PgConnection, Asked<'a>) -> Answered<'a> + Send + Sync + 'static,
    {
        self.handlers.insert(command.to_owned(), Arc::new(handler));
        self
    }

    /// Keeps outcomes for so long; `longest_deadline` is that of the workflows whose steps it serves.
    pub fn keep(mut self, outcomes: Duration, longest_deadline: Duration) -> Self {
        (self.keep, self.longest_deadline) = (outcomes, longest_deadline);
        self
    }

    /// Gives each function so long, a `do` at most until its deadline. One that takes longer is cut off, what it wrote is
    /// rolled back, and the answer is `unknown`: the engine asks again.
    pub fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// Starts the service and serves it until `stop`.
    ///
    /// # Errors
    /// If it cannot start, or if one of its tasks ends before `stop`. Then all others are stopped: end the process, so that it
    /// is started again.
    pub async fn run(self, bus: &Bus, stop: &CancellationToken) -> Result<(), RunError> {
        let name = self.name.clone();
        let stop = stop.child_token();
        let tasks = Tasks::new(&stop);
        self.start(bus, &tasks, &stop).await?;
        let died = stop.run_until_cancelled(tasks.died()).await;
        stop.cancel();
        tasks.wait().await;
        died.map_or(Ok(()), |task| Err(RunError::Dead { service: name, task }))
    }

    /// Checks everything, makes the table of outcomes, announces the service, and serves it until `stop`. A task of it that ends
    /// earlier is reported by [`Tasks::died`].
    pub async fn start(self, bus: &Bus, tasks: &Tasks, stop: &CancellationToken) -> Result<(), StartError> {
        self.check_commands()?;
        self.check_keep(bus).await?;
        store::outcomes::prepare(&self.pool).await?;
        let commands: Vec<&str> = self.handlers.keys().map(String::as_str).collect();
        let announced =
            presence::announce(bus, &self.name, "steps of sagas, with a fence of its own", &commands).await?;
        by_hand::listen(&self, announced, tasks, stop).await?;
        serve::run(&self, bus, tasks, stop);
        Ok(())
    }

    fn check_commands(&self) -> Result<(), StartError> {
        match self.handlers.keys().find(|command| subjects::service_of(command) != self.name) {
            Some(command) => {
                Err(StartError::NotItsCommand { service: self.name.clone(), command: command.clone() })
            }
            None => Ok(()),
        }
    }

    /// What is forgotten must not be asked again.
    async fn check_keep(&self, bus: &Bus) -> Result<(), StartError> {
        let (keep, deadline, stream) = (self.keep, self.longest_deadline, subjects::STEPS);
        let found = bus.jetstream.get_stream(stream).await;
        let found = found.map_err(|error| StartError::Stream { stream, reason: error.to_string() })?;
        let age = found.cached_info().config.max_age;
        if age.is_zero() {
            return Err(StartError::EndlessStream { stream });
        }
        let needed = deadline + age;
        if keep <= needed {
            return Err(StartError::KeptTooShort { keep, needed, deadline, stream, age });
        }
        Ok(())
    }
}
