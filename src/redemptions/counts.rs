//! How many tickets of a date are redeemed, by gate. One reader a second asks Postgres, however many watch.

use std::sync::Arc;
use std::time::Duration;

use futures::stream::{self, Stream};
use moka::future::Cache;
use serde::Serialize;
use sqlx::PgPool;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::sleep;
use utoipa::ToSchema;
use uuid::Uuid;

use super::Redemptions;
use crate::store::redemptions::{self, GateCount};

/// How old counts may be, and how often watchers look at them.
const COUNT_INTERVAL: Duration = Duration::from_secs(1);
/// Streams of counts that one instance serves at most.
pub const COUNT_STREAMS_AT_ONCE: usize = 100;
/// Dates whose counts are remembered.
const CACHED_DATES: u64 = 1_000;

/// The redeemed tickets of a date.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = RedemptionCounts)]
pub struct Counts {
    performance_id: Uuid,
    /// Valid tickets, redeemed or not.
    tickets: i64,
    redeemed: i64,
    /// By gate, in the order of their names.
    gates: Vec<GateCount>,
}

#[derive(Clone, Debug)]
pub(super) struct CountCache {
    pool: PgPool,
    known: Cache<Uuid, Option<Arc<Counts>>>,
    streams: Arc<Semaphore>,
}

impl CountCache {
    pub(super) fn new(pool: PgPool) -> Self {
        let known = Cache::builder().max_capacity(CACHED_DATES).time_to_live(COUNT_INTERVAL).build();
        Self { pool, known, streams: Arc::new(Semaphore::new(COUNT_STREAMS_AT_ONCE)) }
    }

    async fn read(&self, performance: Uuid) -> sqlx::Result<Option<Arc<Counts>>> {
        let Some(tickets) = redemptions::valid_tickets(&self.pool, performance).await? else {
            return Ok(None);
        };
        let gates = redemptions::counts(&self.pool, performance).await?;
        let redeemed = gates.iter().map(|gate| gate.redeemed).sum();
        Ok(Some(Arc::new(Counts { performance_id: performance, tickets, redeemed, gates })))
    }
}

impl Redemptions {
    /// The counts of a date, at most a second old; none if there is no such date.
    pub async fn counts(&self, performance: Uuid) -> Result<Option<Arc<Counts>>, Arc<sqlx::Error>> {
        self.counts.known.try_get_with(performance, self.counts.read(performance)).await
    }

    /// A place for one more stream of counts, unless there are too many.
    pub fn stream_place(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.counts.streams).try_acquire_owned().ok()
    }

    /// The counts whenever they change, after `last`, until the date is gone. While Postgres is away the stream waits.
    pub fn count_changes(
        &self,
        performance: Uuid,
        last: Arc<Counts>,
    ) -> impl Stream<Item = Arc<Counts>> + use<> {
        let redemptions = self.clone();
        stream::unfold((redemptions, last), move |(redemptions, last)| async move {
            loop {
                sleep(COUNT_INTERVAL).await;
                match redemptions.counts(performance).await {
                    Ok(None) => return None,
                    Ok(Some(counts)) if counts != last => {
                        return Some((Arc::clone(&counts), (redemptions, counts)));
                    }
                    Ok(Some(_)) => {}
                    Err(error) => tracing::debug!(%error, "counts of redemptions could not be read"),
                }
            }
        })
    }
}
