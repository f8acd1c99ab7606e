//! Reads reservations for all waiting callers in one query. A thousand callers who wait for one
//! seat are answered at the same moment, and must not queue for connections to learn that they lost.

use sqlx::PgPool;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::BookingError;
use crate::orchestrator::Engine;
use crate::store;
use crate::store::reservations::Reservation;

/// Most reservations of one query.
const BATCH: usize = 256;

/// The id of a reservation, and the channel for its reader.
#[derive(Debug)]
pub(super) struct Request {
    id: Uuid,
    answer: oneshot::Sender<Option<Reservation>>,
}

/// One reservation as it stands.
pub(super) async fn find(
    pool: &PgPool,
    reads: &mpsc::Sender<Request>,
    id: Uuid,
) -> Result<Reservation, BookingError> {
    let (answer, found) = oneshot::channel();
    let found = match reads.send(Request { id, answer }).await {
        Ok(()) => found.await.map_err(|_| BookingError::Unavailable)?,
        // The service is stopping: the last callers read for themselves.
        Err(_) => store::reservations::get(&mut *pool.acquire().await?, id).await?,
    };
    found.ok_or(BookingError::Unknown)
}

/// Reads in batches, in the engine's turns, until the service stops.
pub(super) async fn run(engine: Engine, mut requests: mpsc::Receiver<Request>, stop: CancellationToken) {
    let mut batch = Vec::with_capacity(BATCH);
    while stop.run_until_cancelled(requests.recv_many(&mut batch, BATCH)).await.unwrap_or(0) > 0 {
        let _permit = engine.limit.take_with(&mut batch, BATCH, &mut requests).await;
        batch.retain(|request| !request.answer.is_closed());
        let ids: Vec<Uuid> = batch.iter().map(|request| request.id).collect();
        if ids.is_empty() {
            continue;
        }
        let read = || store::bounded(get_many(&engine, &ids));
        let found = match read().await {
            // The connection was broken; the pool opens a new one.
            Err(error) if store::outdates_connections(&error) => read().await,
            other => other,
        };
        match found {
            Ok(found) => answer(batch.drain(..), &found),
            Err(error) => {
                // Dropping the senders ends the waits of the callers with an error.
                tracing::warn!(%error, "reservations could not be read");
                batch.clear();
            }
        }
    }
}

async fn get_many(engine: &Engine, ids: &[Uuid]) -> store::Result<Vec<Reservation>> {
    store::reservations::get_many(&mut *engine.steps.acquire().await?, ids).await
}

fn answer(batch: impl Iterator<Item = Request>, found: &[Reservation]) {
    for request in batch {
        let reservation = found.iter().find(|reservation| reservation.id == request.id);
        // The caller may have gone away.
        let _told = request.answer.send(reservation.cloned());
    }
}
