//! How JetStream did lately, as this process has found out by itself.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// How long JetStream may not work before requests should go elsewhere: a reconnect and most elections take less.
const TOLERANCE: Duration = Duration::from_secs(7);

/// What is wrong with JetStream, and what an operator can do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    pub found: String,
    pub advice: &'static str,
}

/// How JetStream did lately. Clones share it.
#[derive(Clone, Debug)]
pub struct Health(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    /// When the last probe began that went well.
    worked_at: Instant,
    /// What the last probe found wrong.
    problem: Option<Problem>,
    /// When the last probe ended that found something wrong.
    failed_at: Option<Instant>,
}

impl Default for Health {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(State { worked_at: Instant::now(), problem: None, failed_at: None })))
    }
}

impl Health {
    /// What is wrong, if JetStream has not worked for several seconds.
    pub fn problem(&self) -> Option<Problem> {
        let state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.problem.clone().filter(|_| state.worked_at.elapsed() >= TOLERANCE)
    }

    /// Whether the last probe failed.
    pub fn is_failing(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).problem.is_some()
    }

    /// Whether JetStream fails now, or a probe has failed within the last `age`.
    pub fn has_failed_within(&self, age: Duration) -> bool {
        let state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.problem.is_some() || state.failed_at.is_some_and(|at| at.elapsed() <= age)
    }

    pub(super) fn record(&self, begun: Instant, result: Result<(), Problem>) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match &result {
            Ok(()) => {
                if state.problem.is_some() {
                    tracing::info!("JetStream works again");
                }
                state.worked_at = begun;
            }
            Err(Problem { found, advice }) => {
                tracing::warn!(found, advice, "JetStream does not work");
                state.failed_at = Some(Instant::now());
            }
        }
        metrics::gauge!("boxoffice_jetstream_works").set(if result.is_ok() { 1.0 } else { 0.0 });
        state.problem = result.err();
    }
}
