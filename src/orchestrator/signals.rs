//! Signals from this process: drained into one transaction for all that wait.

use fail::fail_point;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{Batch, Engine, Halves, Verdict, Waiting};
use crate::bus::deliveries::BATCH;
use crate::saga::Event;
use crate::store;

/// A signal and who wants to know what became of it.
#[derive(Debug)]
pub(super) struct Request {
    saga: Uuid,
    signal: String,
    answer: oneshot::Sender<Verdict>,
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
        let (answer, verdict) = oneshot::channel();
        let request = Request { saga, signal: signal.to_owned(), answer };
        self.signals.try_send(request).map_err(|_| SignalError::Unavailable)?;
        verdict.await.map_err(|_| SignalError::Unavailable)
    }

    /// Waits for a saga to settle, from now on.
    pub fn waiting(&self, saga: Uuid) -> Waiting {
        self.waiters.register(saga)
    }
}

/// Takes signals in batches until the service stops.
pub(super) async fn run(engine: Engine, mut requests: mpsc::Receiver<Request>, stop: CancellationToken) {
    let mut batch = Vec::with_capacity(BATCH);
    while stop.run_until_cancelled(requests.recv_many(&mut batch, BATCH)).await.unwrap_or(0) > 0 {
        let mut items = Vec::with_capacity(batch.len());
        let mut answers = Vec::with_capacity(batch.len());
        for (at, request) in batch.drain(..).enumerate() {
            items.push((at, request.saga, request.signal));
            answers.push(Some(request.answer));
        }
        if let Err(error) = take_all(&engine, Halves::of(items), &mut answers).await {
            // Dropping the senders tells the callers that their signals were not taken.
            tracing::warn!(%error, "signals could not be taken");
        }
    }
}

type Answers = [Option<oneshot::Sender<Verdict>>];

async fn take_all(
    engine: &Engine,
    mut halves: Halves<(usize, Uuid, String)>,
    answers: &mut Answers,
) -> store::Result<()> {
    while let Some(items) = halves.next() {
        let result = match take(engine, items).await {
            Ok(verdicts) => {
                for (at, verdict) in verdicts {
                    // A caller that has gone away does not want to know.
                    let _told = answers[at].take().map(|answer| answer.send(verdict));
                }
                Ok(())
            }
            Err(error) => Err(error),
        };
        if let Some(((_, saga, _), error)) = halves.record(result).await? {
            tracing::error!(%saga, %error, "a signal could not be taken");
        }
    }
    Ok(())
}

async fn take(engine: &Engine, items: &[(usize, Uuid, String)]) -> store::Result<Vec<(usize, Verdict)>> {
    let mut tx = engine.steps.begin().await?;
    let ids: Vec<Uuid> = items.iter().map(|(_, saga, _)| *saga).collect();
    let mut batch = Batch::lock(&mut tx, &ids).await?;
    let mut verdicts = Vec::with_capacity(items.len());
    for (at, saga, signal) in items {
        verdicts.push((*at, batch.apply(&engine.catalogue, *saga, &Event::Signal(signal.clone()))));
    }
    let consequences = batch.write(&mut tx, &engine.catalogue).await?;
    tx.commit().await?;
    fail_point!("signals::committed");
    engine.follow_later(consequences);
    Ok(verdicts)
}
