//! A worker: its service, its functions and its settings.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use saga_core::{Command, Outcome};
use serde_json::{Map, Value};
use sqlx::Pool;
use tokio::sync::Semaphore;

use crate::database::FenceDatabase;
use crate::presence;

/// How long outcomes are kept by default: 30 days.
const DEFAULT_KEEP: Duration = Duration::from_secs(30 * 24 * 3600);
/// The longest deadline of a step by default: a day.
const DEFAULT_LONGEST_DEADLINE: Duration = Duration::from_secs(24 * 3600);
/// How long a function may take by default.
const DEFAULT_LIMIT: Duration = Duration::from_secs(30);

/// What a function is called with.
#[derive(Clone, Copy, Debug)]
pub struct StepRequest<'a> {
    /// The command. Its `context` has the saga's input and the outputs of earlier steps.
    pub command: &'a Command,
    /// On an undo, the output of the `do` if the `do` is known to be done. If it is `None`, nothing of the `do` is in this database;
    /// effects outside the database may still have happened.
    pub done: Option<&'a Map<String, Value>>,
}

/// What a function returns. An error is answered as `failed` with the code [`crate::HANDLER_FAILED`]. An [`sqlx::Error`] that says that the
/// database cannot be used is not answered: the command comes again.
pub type HandlerFuture<'a> = BoxFuture<'a, anyhow::Result<Outcome>>;

pub(crate) type Handler<DB> = Arc<
    dyn for<'a> Fn(&'a mut <DB as sqlx::Database>::Connection, StepRequest<'a>) -> HandlerFuture<'a>
        + Send
        + Sync,
>;

/// A service, its own database, and a function for each of its commands.
pub struct Worker<DB: FenceDatabase> {
    pub(crate) name: String,
    pub(crate) instance: String,
    pub(crate) pool: Pool<DB>,
    pub(crate) keep: Duration,
    pub(crate) limit: Duration,
    pub(crate) longest_deadline: Duration,
    /// Commands that are handled at once, each with a connection.
    pub(crate) concurrency: Semaphore,
    pub(crate) handlers: BTreeMap<String, Handler<DB>>,
}

/// Why a worker cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A command belongs to another service.
    #[error("{command} is not a command of the service {service}: its name must begin with `{service}.`")]
    NotItsCommand { service: String, command: String },
    /// Outcomes would be deleted while their command can still come.
    #[error(
        "outcomes are kept for {keep:?}, but a command may come up to {needed:?} after it was first seen: the longest \
         deadline ({deadline:?}) and then as long as the stream {stream} keeps messages ({age:?}); keep them for longer"
    )]
    KeptTooShort { keep: Duration, needed: Duration, deadline: Duration, stream: &'static str, age: Duration },
    /// Outcomes could never be deleted.
    #[error(
        "the stream {stream} keeps messages for ever, so no outcome may ever be deleted; give it a max_age"
    )]
    EndlessStream { stream: &'static str },
    /// The stream of commands is missing, or JetStream does not answer.
    #[error("the stream {stream} cannot be looked at: {reason}")]
    Stream { stream: &'static str, reason: String },
    /// The fence's table cannot be made.
    #[error("the table of outcomes cannot be made: {0}")]
    Database(#[from] sqlx::Error),
    /// The service cannot be announced.
    #[error("NATS did not take the announcement: {reason}")]
    Announcement { reason: String },
}

impl<DB: FenceDatabase> Worker<DB> {
    /// A worker of this service, without commands yet. Its fence is the table `saga_outcomes` in this database.
    /// Its commands use all connections of the pool but one, which is left to completions by hand.
    pub fn new(service: &str, pool: Pool<DB>) -> Self {
        let connections = pool.options().get_max_connections().saturating_sub(1).max(1);
        Self {
            name: service.to_owned(),
            instance: presence::process_name(),
            pool,
            keep: DEFAULT_KEEP,
            limit: DEFAULT_LIMIT,
            longest_deadline: DEFAULT_LONGEST_DEADLINE,
            concurrency: Semaphore::new(connections as usize),
            handlers: BTreeMap::new(),
        }
    }

    /// Serves a command such as `printer.print` by this function. The do and the undo of one step must be commands of one service.
    pub fn command<F>(mut self, command: &str, handler: F) -> Self
    where
        F: for<'a> Fn(&'a mut DB::Connection, StepRequest<'a>) -> HandlerFuture<'a> + Send + Sync + 'static,
    {
        self.handlers.insert(command.to_owned(), Arc::new(handler));
        self
    }

    /// Sets how long outcomes are kept (30 days by default), and the longest deadline of all steps that this service serves (a day by
    /// default). Outcomes must be kept for longer than the deadline and the age of the stream `STEPS` together.
    pub fn keep(mut self, outcomes: Duration, longest_deadline: Duration) -> Self {
        (self.keep, self.longest_deadline) = (outcomes, longest_deadline);
        self
    }

    /// Sets how long a function may take: 30 s by default, and a `do` at most until its deadline. A function that takes longer is cut
    /// off, what it wrote is rolled back, and the answer is `unknown`: the engine asks again.
    pub fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// Sets what this process calls itself in replies and in its announcement: by default the machine's name and the process's number.
    pub fn instance(mut self, name: &str) -> Self {
        name.clone_into(&mut self.instance);
        self
    }
}
