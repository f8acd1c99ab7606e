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
}

impl Default for Health {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(State { worked_at: Instant::now(), problem: None })))
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

    pub(super) fn record(&self, begun: Instant, result: Result<(), Problem>) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match &result {
            Ok(()) => {
                if state.problem.is_some() {
                    tracing::info!("JetStream works again");
                }
                state.worked_at = begun;
            }
            Err(Problem { found, advice }) => tracing::warn!(found, advice, "JetStream does not work"),
        }
        metrics::gauge!("boxoffice_jetstream_works").set(if result.is_ok() { 1.0 } else { 0.0 });
        state.problem = result.err();
    }
}
