//! Tasks of this process: a task that must last as long as the process is supervised, and its early end is reported.

use std::future::Future;
use std::panic::AssertUnwindSafe;

use futures::FutureExt;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// The tasks of a process. Clones share them.
#[derive(Clone, Debug)]
pub struct Tasks {
    tracker: TaskTracker,
    stop: CancellationToken,
    /// The first supervised task that ended before the stop.
    dead: watch::Sender<Option<&'static str>>,
}

impl Tasks {
    /// No tasks yet; all are expected to last until `stop` is cancelled.
    pub fn new(stop: &CancellationToken) -> Self {
        Self { tracker: TaskTracker::new(), stop: stop.clone(), dead: watch::Sender::new(None) }
    }

    /// Runs a task that must last until the stop. If it panics or returns earlier, the process is broken: `/readyz` says so
    /// and [`Self::died`] returns, so that the process can end and be started again.
    pub fn supervise(&self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        // On the heap at once: loops are large, and each layer of the spawn would move them on the stack.
        let task = Box::pin(task);
        let Self { stop, dead, .. } = self.clone();
        self.tracker.spawn(async move {
            let ended = AssertUnwindSafe(task).catch_unwind().await;
            if ended.is_ok() && stop.is_cancelled() {
                return;
            }
            let how = if ended.is_ok() { "returned" } else { "panicked" };
            tracing::error!(task = name, how, "a background task is dead; this process must be restarted");
            metrics::counter!("boxoffice_dead_tasks_total", "task" => name).increment(1);
            dead.send_if_modified(|dead| {
                let is_first = dead.is_none();
                dead.get_or_insert(name);
                is_first
            });
        });
    }

    /// Runs a task that ends by itself. The stop waits for it.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.tracker.spawn(task);
    }

    /// The first supervised task that ended before the stop, if any did.
    pub fn dead(&self) -> Option<&'static str> {
        *self.dead.borrow()
    }

    /// Returns the name of the first supervised task that ends before the stop; waits until there is one.
    pub async fn died(&self) -> &'static str {
        let mut dead = self.dead.subscribe();
        loop {
            if let Some(name) = *dead.borrow_and_update() {
                return name;
            }
            // The sender lives in `self`, so this fails never.
            let _changed = dead.changed().await;
        }
    }

    /// Waits until every task has ended. To be called after the stop.
    pub async fn wait(&self) {
        self.tracker.close();
        self.tracker.wait().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn task_that_ends_early_is_reported() {
        for (name, panics) in [("panicking", true), ("returning", false)] {
            let tasks = Tasks::new(&CancellationToken::new());
            tasks.supervise("lasting", std::future::pending());
            assert_eq!(tasks.dead(), None);
            tasks.supervise(name, async move { assert!(!panics, "on purpose") });
            assert_eq!(tasks.died().await, name);
            assert_eq!(tasks.dead(), Some(name));
        }
    }

    #[tokio::test]
    async fn task_that_ends_after_stop_is_fine() {
        let stop = CancellationToken::new();
        let tasks = Tasks::new(&stop);
        tasks.supervise("obedient", stop.clone().cancelled_owned());
        stop.cancel();
        tasks.wait().await;
        assert_eq!(tasks.dead(), None);
    }
}
