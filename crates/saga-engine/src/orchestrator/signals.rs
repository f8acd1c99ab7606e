//! Signals from this process: drained into one transaction for all that wait.

use fail::fail_point;
use saga_protocol::spans::{self, SpanContext};
use serde_json::Map;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::batcher::BatchQueue;
use super::{Batch, Engine, Verdict, Waiting};
use crate::saga::{self, Event};
use crate::store;
use crate::store::Control;
use crate::store::batch_tx::{BatchTx, with_lock_fallback};
use crate::store::claims::{Claims, is_taken};
use crate::store::idempotency::Asked;
use crate::store::write_batch::WriteBatch;
use crate::trace_context;

/// An external message to a saga.
#[derive(Clone, Debug)]
pub(super) struct Signal {
    pub saga: Uuid,
    signal: saga::Signal,
    /// An idempotency key that is claimed with it.
    key: Option<Asked>,
    /// The span of the request that gives it.
    cause: Option<SpanContext>,
}

/// Why a signal could not be given.
#[derive(Debug, thiserror::Error)]
pub enum SignalError {
    /// The database or this process could not take it; whether it did is unknown, and it may be given again.
    #[error("the signal could not be taken now; it may be given again")]
    Unavailable,
}

impl Engine {
    /// Gives a saga a signal. Register with [`Engine::waiting`] first to learn where it leads.
    pub async fn signal(&self, saga: Uuid, signal: &str) -> Result<Verdict, SignalError> {
        self.signal_with(saga, saga::Signal { name: signal.to_owned(), payload: Map::new() }).await
    }

    /// The same for a signal with a payload.
    pub async fn signal_with(&self, saga: Uuid, signal: saga::Signal) -> Result<Verdict, SignalError> {
        self.signal_under(saga, signal, None).await?.ok_or(SignalError::Unavailable)
    }

    /// The same; an idempotency key is claimed with it, whatever the verdict. `None` if another request has the key: then
    /// the signal was not given.
    pub async fn signal_under(
        &self,
        saga: Uuid,
        signal: saga::Signal,
        key: Option<Asked>,
    ) -> Result<Option<Verdict>, SignalError> {
        let cause = trace_context::current();
        self.signals.ask(Signal { saga, signal, key, cause }).await.ok_or(SignalError::Unavailable)
    }

    /// Waits for a saga to settle, from now on.
    pub fn waiting(&self, saga: Uuid) -> Waiting {
        self.waiters.register(saga)
    }
}

/// Takes signals in batches until the service stops.
pub(super) async fn run(
    engine: Engine,
    requests: BatchQueue<Signal, Option<Verdict>>,
    stop: CancellationToken,
) {
    let limit = engine.limit.clone();
    requests.work(engine, limit, stop, |engine, signals| Box::pin(take(engine, signals))).await;
}

async fn take(engine: &Engine, signals: &[Signal]) -> store::Result<Vec<Option<Verdict>>> {
    let mut claims = Claims::of(signals.iter().map(|signal| signal.key.as_ref()));
    loop {
        let given =
            with_lock_fallback(engine.control, |control| attempt(engine, signals, &claims, control)).await;
        match given {
            Err(error) if is_taken(&error) && claims.look(&engine.steps).await? => {}
            given => return given,
        }
    }
}

async fn attempt(
    engine: &Engine,
    signals: &[Signal],
    claims: &Claims<'_>,
    control: Control,
) -> store::Result<Vec<Option<Verdict>>> {
    let begun = spans::begin();
    let mut attempt = BatchTx::begin(&engine.steps, control).await?;
    let ids: Vec<Uuid> = signals.iter().map(|signal| signal.saga).collect();
    let sagas = engine.waiting_sagas(&mut attempt, &ids).await?;
    let mut changes = WriteBatch::default();
    let now = attempt.time_to_decide(&engine.clock, &mut changes).await?;
    let mut batch = Batch::of(sagas, now);
    batch.begun_at(begun);
    let mut verdicts = Vec::with_capacity(signals.len());
    for (at, Signal { saga, signal, cause, .. }) in signals.iter().enumerate() {
        batch.caused_by(*cause);
        let give = || batch.apply(&engine.registry, *saga, &Event::Signal(signal.clone()));
        verdicts.push((!claims.is_taken(at)).then(give));
    }
    claims.add_to(&mut changes, |at| verdicts[at] == Some(Verdict::Moved));
    let effects = batch.decided(&mut changes, engine);
    attempt.write(changes).await?;
    fail_point!("signals::committed");
    engine.dispatch_detached(effects);
    Ok(verdicts)
}
