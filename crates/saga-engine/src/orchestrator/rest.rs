//! Ended sagas rest, and sagas with an alarm of their own leave their flight, once their last events are acknowledged.

use std::collections::BTreeMap;
use std::time::Duration;

use sqlx::PgPool;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::store;
use crate::store::flights;

/// It is done in batches, this far apart: no caller waits for it, but a thousand of them at once take Postgres long enough
/// that others would. It has to be well below the time after which the sweeper publishes their events again.
const REST_INTERVAL: Duration = Duration::from_millis(100);
const MAX_BATCH: usize = 2_000;

/// A saga that need not be looked at any more, or not by its flight.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rested {
    pub saga: Uuid,
    /// The flight that it leaves. Without one it has ended, and its alarm is taken away.
    pub flight: Option<i64>,
}

/// Writes down what rests, until the service stops.
pub(super) async fn run(pool: PgPool, mut rested: mpsc::UnboundedReceiver<Rested>, stop: CancellationToken) {
    let mut batch = Vec::with_capacity(MAX_BATCH);
    while stop.run_until_cancelled(rested.recv_many(&mut batch, MAX_BATCH)).await.unwrap_or(0) > 0 {
        tokio::time::sleep(REST_INTERVAL).await;
        while batch.len() < MAX_BATCH
            && let Ok(next) = rested.try_recv()
        {
            batch.push(next);
        }
        if let Err(error) = store::bounded(write(&pool, &batch)).await {
            tracing::warn!(%error, "sagas at rest were not written down; the sweeper does it");
        }
        batch.clear();
    }
}

async fn write(pool: &PgPool, rested: &[Rested]) -> store::Result<()> {
    let mut left: BTreeMap<i64, Vec<Uuid>> = BTreeMap::new();
    let mut alone = Vec::new();
    for Rested { saga, flight } in rested {
        match flight {
            Some(flight) => left.entry(*flight).or_default().push(*saga),
            None => alone.push(*saga),
        }
    }
    if !alone.is_empty() {
        store::sagas::rest(pool, &alone).await?;
    }
    if !left.is_empty() {
        flights::leave(pool, &left).await?;
    }
    Ok(())
}
