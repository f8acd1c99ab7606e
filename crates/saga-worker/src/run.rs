//! Starting and ending a worker: its checks, its announcement and its tasks.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures::FutureExt;
use saga_protocol::subjects;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::database::FenceDatabase;
use crate::nats::Nats;
use crate::worker::{StartError, Worker};
use crate::{manual_completion, presence, serve};

/// Why a worker does not run any more.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// It did not start.
    #[error(transparent)]
    Start(#[from] StartError),
    /// A task panicked or ended.
    #[error(
        "the task \"{task}\" of the service {service} has ended before the stop; see the log, and start it again"
    )]
    Dead { service: String, task: &'static str },
}

impl<DB: FenceDatabase> Worker<DB> {
    /// Starts the worker and serves its commands until `stop` is cancelled.
    ///
    /// # Errors
    /// If it cannot start, or if one of its tasks ends before `stop`. Then the others are stopped: end the process, so that its
    /// supervisor starts it again.
    pub async fn run(self, nats: &Nats, stop: &CancellationToken) -> Result<(), RunError> {
        self.start(nats, stop).await?.wait().await
    }

    /// Checks the settings, makes the table of outcomes, announces the service, and begins to serve its commands.
    ///
    /// # Errors
    /// If a command is of another service, if outcomes are not kept for long enough, or if NATS or the database cannot be used.
    pub async fn start(self, nats: &Nats, stop: &CancellationToken) -> Result<Running, StartError> {
        self.check_commands()?;
        self.check_keep(nats).await?;
        DB::prepare(&self.pool).await?;
        let commands: Vec<&str> = self.handlers.keys().map(String::as_str).collect();
        let (service, instance) = ((self.name.as_str(), env!("CARGO_PKG_VERSION")), self.instance.clone());
        let about = "steps of sagas, with a fence of its own";
        let announced = presence::announce(&nats.client, service, about, &commands, instance).await;
        let announced = announced.map_err(|error| StartError::Announcement { reason: error.to_string() })?;
        let requests = manual_completion::endpoint(&announced, &self.name).await?;

        let stop = stop.child_token();
        let mut running = Running { service: self.name.clone(), tasks: JoinSet::new(), stop: stop.clone() };
        let worker = Arc::new(self);
        let completions =
            manual_completion::answer_all(Arc::clone(&worker), announced, requests, stop.clone());
        running.spawn("manual completions", completions);
        for (command, handler) in &worker.handlers {
            let (command, handler) = (command.clone(), Arc::clone(handler));
            let serving = serve::serve(Arc::clone(&worker), nats.clone(), command, handler, stop.clone());
            running.spawn("commands", serving);
        }
        running.spawn("old outcomes", serve::purge(worker, stop));
        Ok(running)
    }

    fn check_commands(&self) -> Result<(), StartError> {
        match self.handlers.keys().find(|command| subjects::service_of(command) != self.name) {
            Some(command) => {
                Err(StartError::NotItsCommand { service: self.name.clone(), command: command.clone() })
            }
            None => Ok(()),
        }
    }

    /// An outcome must not be deleted while its command can still come.
    async fn check_keep(&self, nats: &Nats) -> Result<(), StartError> {
        let (keep, deadline, stream) = (self.keep, self.longest_deadline, subjects::STEPS);
        let found = nats.jetstream.get_stream(stream).await;
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

/// A worker that was started. Dropping it ends its tasks at once; [`Self::wait`] lets them finish their work.
#[derive(Debug)]
pub struct Running {
    service: String,
    tasks: JoinSet<Ended>,
    stop: CancellationToken,
}

/// How a task ended.
#[derive(Debug)]
struct Ended {
    task: &'static str,
    has_panicked: bool,
}

impl Running {
    fn spawn(&mut self, task: &'static str, work: impl Future<Output = ()> + Send + 'static) {
        // On the heap at once: loops are large, and each layer of the spawn would move them on the stack.
        let work = AssertUnwindSafe(Box::pin(work)).catch_unwind();
        self.tasks.spawn(async move { Ended { task, has_panicked: work.await.is_err() } });
    }

    /// Waits until `stop` is cancelled and all work in hand is finished.
    ///
    /// # Errors
    /// If a task panics, or ends before `stop`. Then the other tasks are stopped.
    pub async fn wait(mut self) -> Result<(), RunError> {
        let mut dead = None;
        while let Some(Ok(Ended { task, has_panicked })) = self.tasks.join_next().await {
            if has_panicked || !self.stop.is_cancelled() {
                tracing::error!(
                    task,
                    has_panicked,
                    "a task of a worker is dead; its process must be restarted"
                );
                dead = dead.or(Some(task));
            }
            self.stop.cancel();
        }
        match dead {
            Some(task) => Err(RunError::Dead { service: self.service, task }),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn running(stop: &CancellationToken) -> Running {
        let stop = stop.child_token();
        let mut running =
            Running { service: "printer".to_owned(), tasks: JoinSet::new(), stop: stop.clone() };
        running.spawn("obedient", stop.cancelled_owned());
        running
    }

    #[tokio::test]
    async fn dead_task_ends_the_worker() {
        for panics in [true, false] {
            let mut running = running(&CancellationToken::new());
            running.spawn("dead", async move { assert!(!panics, "on purpose") });
            let ended = running.wait().await;
            assert!(matches!(ended, Err(RunError::Dead { task: "dead", .. })), "{ended:?}");
        }
    }

    #[tokio::test]
    async fn worker_ends_well_after_the_stop() {
        let stop = CancellationToken::new();
        let running = running(&stop);
        stop.cancel();
        assert!(running.wait().await.is_ok());
    }
}
