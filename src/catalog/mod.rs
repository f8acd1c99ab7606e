//! The catalog: concerts, dates and seat maps, cached in memory.
//!
//! Concurrent requests share one read. A process that changes seats or concerts sends a notice, and every instance reads
//! its cached values again; see `cached_value.rs` for the intervals. If a notice is lost, or there is none because a hold
//! expires or a sale opens, a copy is still at most a second old. The steps that sell seats or take points never use the
//! catalog. `docs/performance.md` has the measurements.

mod seats;
mod seat_history;
mod keyed_cache;
mod cached_value;
mod document;

use std::sync::Arc;
use std::time::Duration;

use async_nats::{SubscribeError, Subscriber};
use futures::{FutureExt, StreamExt};
use moka::future::Cache;
use sqlx::PgPool;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

pub use document::Document;
pub use seats::{SeatMap, SeatMapBody};

use cached_value::RefreshPolicy;
use keyed_cache::KeyedCache;
use seats::Layout;

use crate::background::Tasks;
use crate::bus::messages::SeatsChanged;
use crate::bus::{Bus, subjects};
use crate::clock::Clock;
use crate::ids::{ConcertId, PerformanceId};
use crate::store::bounded;
use crate::store::catalog::{self, Concert, OpenPerformance};
use crate::store::dates::{self, DateState};

/// With the time of the read, a copy stays below a second old.
const POLICY: RefreshPolicy = RefreshPolicy {
    min_interval: Duration::from_millis(100),
    refresh_after: Duration::from_millis(600),
    max_age: Duration::from_millis(900),
};
/// How long data that never changes stays cached.
const STATIC_TTL: Duration = Duration::from_secs(300);
/// Limit of concurrent reads, so that connections are left for bookings.
const MAX_CONCURRENT_READS: usize = 4;

#[derive(Clone, Debug, thiserror::Error)]
pub enum CatalogError {
    #[error("there is no such concert or performance")]
    NotFound,
    #[error("the database did not answer: {0}")]
    Store(Arc<sqlx::Error>),
}

impl From<sqlx::Error> for CatalogError {
    fn from(error: sqlx::Error) -> Self {
        Self::Store(Arc::new(error))
    }
}

/// A page of the list of concerts: its first name and id, and its length.
type ConcertsPage = (Option<(String, Uuid)>, i64);

/// Clones share the cache.
#[derive(Clone)]
pub struct Catalog {
    bus: Bus,
    concerts: KeyedCache<ConcertsPage, Vec<Concert>>,
    concert: KeyedCache<ConcertId, Concert>,
    dates: KeyedCache<ConcertId, Vec<OpenPerformance>>,
    date: KeyedCache<PerformanceId, DateState>,
    maps: KeyedCache<PerformanceId, SeatMap>,
    source: Source,
}

/// The database, with the data that never changes in memory.
#[derive(Clone)]
struct Source {
    pool: PgPool,
    clock: Clock,
    read_limit: Arc<Semaphore>,
    concerts: Cache<ConcertId, ()>,
    concert_of_dates: Cache<PerformanceId, ConcertId>,
    /// By the version of the sections and prices.
    layouts: Cache<(PerformanceId, i64), Arc<Layout>>,
}

impl Catalog {
    /// Starts with an empty cache, and subscribes to notices of changes. With `caches` false every request is a read.
    ///
    /// # Errors
    /// If NATS refuses a subscription.
    pub async fn open(
        pool: PgPool,
        bus: Bus,
        clock: Clock,
        caches: bool,
        tasks: &Tasks,
        stop: &CancellationToken,
    ) -> Result<Self, SubscribeError> {
        let policy = caches.then_some(POLICY);
        let max_reads = if caches { MAX_CONCURRENT_READS } else { Semaphore::MAX_PERMITS };
        let source = Source::new(pool, clock, max_reads);
        let seats = bus.client.subscribe(subjects::SEATS_CHANGED).await?;
        let concerts = bus.client.subscribe(subjects::CONCERTS_CHANGED).await?;
        let catalog = Self {
            bus,
            concerts: KeyedCache::new(1_000, policy, limited(&source, Source::read_concerts)),
            concert: KeyedCache::new(10_000, policy, limited(&source, Source::read_concert)),
            dates: KeyedCache::new(10_000, policy, limited(&source, Source::read_dates)),
            date: KeyedCache::new(10_000, policy, limited(&source, Source::read_date)),
            maps: KeyedCache::new(500, policy, limited(&source, Source::read_map)),
            source,
        };
        tasks.supervise("changed seats", apply_seat_notices(catalog.clone(), seats, stop.clone()));
        tasks.supervise("changed concerts", apply_concert_notices(catalog.clone(), concerts, stop.clone()));
        Ok(catalog)
    }

    /// Concerts by name after the given one, at most 1 s old. The instance that added one sees it at once.
    pub async fn concerts(
        &self,
        after: Option<(String, Uuid)>,
        limit: i64,
    ) -> Result<Arc<Vec<Concert>>, CatalogError> {
        self.concerts.get((after, limit)).await
    }

    /// One concert, at most 1 s old. The instance that added it sees it at once.
    pub async fn concert(&self, id: ConcertId) -> Result<Arc<Concert>, CatalogError> {
        self.concert.get(id).await
    }

    /// Checks that a concert exists. Concerts are never deleted.
    pub async fn known_concert(&self, id: ConcertId) -> Result<(), CatalogError> {
        let load = async { self.source.clone().read_concert(id).await.map(drop) };
        self.source.concerts.try_get_with(id, load).await.map_err(unshare)
    }

    /// A concert's dates in their window that have free seats, by start, at most 1 s old.
    pub async fn performances(&self, concert: ConcertId) -> Result<Arc<Vec<OpenPerformance>>, CatalogError> {
        self.dates.get(concert).await
    }

    /// The concert of a date, which never changes.
    pub async fn concert_of(&self, performance: PerformanceId) -> Result<ConcertId, CatalogError> {
        let load = async {
            let found = catalog::concert_of(&self.source.pool, performance).await?;
            found.ok_or(CatalogError::NotFound)
        };
        self.source.concert_of_dates.try_get_with(performance, load).await.map_err(unshare)
    }

    /// One date, at most 1 s old.
    pub async fn date(&self, performance: PerformanceId) -> Result<Arc<DateState>, CatalogError> {
        self.date.get(performance).await
    }

    /// The seats of a date, at most 1 s old.
    pub async fn seats(&self, performance: PerformanceId) -> Result<Arc<SeatMap>, CatalogError> {
        self.maps.get(performance).await
    }

    /// A concert or a date was added or changed here: drops the cached ones, and notifies the other instances.
    pub async fn concerts_changed(&self) {
        self.invalidate_concerts();
        announce_changed_concerts(&self.bus).await;
    }

    fn invalidate_concerts(&self) {
        self.concerts.invalidate_all();
        self.concert.invalidate_all();
        self.dates.invalidate_all();
        self.date.invalidate_all();
    }
}

/// Notifies all instances that cache concerts.
pub async fn announce_changed_concerts(bus: &Bus) {
    if let Err(error) = bus.notify(subjects::CONCERTS_CHANGED, bytes::Bytes::new()).await {
        tracing::debug!(%error, "other instances were not notified of a new or changed concert or performance; they see it within a second");
    }
}

/// Notifies all instances that seats of a date have changed. Without a connection they see it within a second.
pub async fn announce_changed_seats(bus: &Bus, concert: ConcertId, performance: PerformanceId) {
    let changed = SeatsChanged { performances: vec![performance], concerts: vec![concert] };
    let Ok(body) = serde_json::to_vec(&changed) else { return };
    if let Err(error) = bus.notify(subjects::SEATS_CHANGED, body.into()).await {
        tracing::debug!(%error, "other instances were not notified of changed seats; they see them within a second");
    }
}

/// Applies notices about dates whose seats have changed.
async fn apply_seat_notices(catalog: Catalog, mut notices: Subscriber, stop: CancellationToken) {
    while let Some(Some(message)) = stop.run_until_cancelled(notices.next()).await {
        match serde_json::from_slice::<SeatsChanged>(&message.payload) {
            Ok(changed) => {
                for performance in &changed.performances {
                    catalog.maps.notify_change(performance).await;
                }
                for concert in &changed.concerts {
                    catalog.dates.notify_change(concert).await;
                }
            }
            Err(error) => tracing::warn!(%error, "a notice about changed seats is malformed; it is ignored"),
        }
    }
}

/// Applies notices about new or changed concerts or dates.
async fn apply_concert_notices(catalog: Catalog, mut notices: Subscriber, stop: CancellationToken) {
    while let Some(Some(_)) = stop.run_until_cancelled(notices.next()).await {
        catalog.invalidate_concerts();
    }
}

impl Source {
    fn new(pool: PgPool, clock: Clock, max_reads: usize) -> Self {
        Self {
            pool,
            clock,
            read_limit: Arc::new(Semaphore::new(max_reads)),
            concerts: Cache::builder().max_capacity(100_000).time_to_live(STATIC_TTL).build(),
            concert_of_dates: Cache::builder().max_capacity(100_000).time_to_live(STATIC_TTL).build(),
            layouts: Cache::builder().max_capacity(500).time_to_idle(STATIC_TTL).build(),
        }
    }

    async fn read_concerts(self, (after, limit): ConcertsPage) -> Result<Vec<Concert>, CatalogError> {
        let after = after.as_ref().map(|(name, id)| (name.as_str(), *id));
        Ok(bounded(catalog::list_concerts(&self.pool, after, limit, self.clock.now())).await?)
    }

    async fn read_concert(self, id: ConcertId) -> Result<Concert, CatalogError> {
        bounded(catalog::concert(&self.pool, id, self.clock.now())).await?.ok_or(CatalogError::NotFound)
    }

    async fn read_dates(self, concert: ConcertId) -> Result<Vec<OpenPerformance>, CatalogError> {
        Ok(bounded(catalog::open_performances(&self.pool, concert, self.clock.now())).await?)
    }

    async fn read_date(self, performance: PerformanceId) -> Result<DateState, CatalogError> {
        bounded(dates::get(&self.pool, performance)).await?.ok_or(CatalogError::NotFound)
    }

    /// The statuses come first: a layout that is read afterwards is of their version or a later one.
    async fn read_map(self, performance: PerformanceId) -> Result<SeatMap, CatalogError> {
        let taken = bounded(catalog::taken_seats(&self.pool, performance, self.clock.now())).await?;
        let load = async {
            let places = bounded(catalog::seat_places(&self.pool, performance)).await?;
            Ok(Arc::new(Layout::of(performance, &places)))
        };
        let layout = self.layouts.try_get_with((performance, taken.layout_version), load).await;
        Ok(SeatMap::of(layout.map_err(unshare)?, &taken))
    }
}

/// A reader for a cache that waits for a permit of the read limit.
fn limited<K, V, F>(
    source: &Source,
    read: fn(Source, K) -> F,
) -> impl Fn(K) -> futures::future::BoxFuture<'static, Result<V, CatalogError>> + Send + Sync + 'static
where
    K: Send + 'static,
    V: 'static,
    F: Future<Output = Result<V, CatalogError>> + Send + 'static,
{
    let source = source.clone();
    move |key| {
        let source = source.clone();
        let reading = async move {
            let limit = Arc::clone(&source.read_limit);
            // The semaphore is never closed.
            let _permit = limit.acquire().await;
            read(source, key).await
        };
        reading.boxed()
    }
}

/// Callers of one read share its error.
#[allow(clippy::needless_pass_by_value, reason = "the cache passes errors by value")]
fn unshare(error: Arc<CatalogError>) -> CatalogError {
    CatalogError::clone(&error)
}
