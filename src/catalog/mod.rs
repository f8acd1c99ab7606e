//! The reads that everybody makes, from memory: concerts, dates and seat maps.
//!
//! Each read is made once at a time for all who ask (single flight), and its answer is given to everybody. Whoever changes
//! seats or concerts says so, and every instance reads anew what it keeps of them; see `kept.rs` for the pace. Should
//! a word be lost, or be one that nobody says (a hold that runs out, a sale that opens), a copy still lives for less than a
//! second. Nothing that sells a seat or takes a point trusts it. `docs/reads.md` has what was measured.

mod listen;
mod seats;
mod seat_history;
mod shelf;
mod kept;
mod document;

use std::sync::Arc;
use std::time::Duration;

use async_nats::SubscribeError;
use futures::FutureExt;
use moka::future::Cache;
use sqlx::PgPool;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

pub use document::Document;
pub use seats::{SeatMap, SeatMapBody};

use kept::Pace;
use seats::Layout;
use shelf::Shelf;

use crate::background::Tasks;
use crate::bus::{Bus, subjects};
use crate::clock::Clock;
use crate::ids::{ConcertId, PerformanceId};
use crate::store::bounded;
use crate::store::catalog::{self, Concert, OpenPerformance, Performance};

/// How old a copy may be: with the time of reading it stays below a second.
const PACE: Pace = Pace {
    floor: Duration::from_millis(100),
    ahead: Duration::from_millis(600),
    bound: Duration::from_millis(900),
};
/// How long what never changes is remembered.
const FACTS_AGE: Duration = Duration::from_secs(300);
/// How many reads are made at once, so that those who look around leave connections for those who buy.
const READS_AT_ONCE: usize = 4;

/// Why a read has no answer.
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

/// A page of the list of concerts: where it starts and how long it is.
type ConcertsPage = (Option<(String, Uuid)>, i64);

/// Cached reads of what is on sale. Clones share their memory.
#[derive(Clone)]
pub struct Catalog {
    bus: Bus,
    concerts: Shelf<ConcertsPage, Vec<Concert>>,
    concert: Shelf<ConcertId, Concert>,
    dates: Shelf<ConcertId, Vec<OpenPerformance>>,
    maps: Shelf<PerformanceId, SeatMap>,
    known: Known,
}

/// What never changes, and where it is read.
#[derive(Clone)]
struct Known {
    pool: PgPool,
    clock: Clock,
    turns: Arc<Semaphore>,
    concerts: Cache<ConcertId, ()>,
    performances: Cache<PerformanceId, Arc<Performance>>,
    layouts: Cache<PerformanceId, Arc<Layout>>,
}

impl Catalog {
    /// An empty memory in front of the database, and whoever keeps it true. With `keeps` false nothing that can change is
    /// kept: every read asks the database.
    ///
    /// # Errors
    /// When NATS does not take a subscription.
    pub async fn open(
        pool: PgPool,
        bus: Bus,
        clock: Clock,
        keeps: bool,
        tasks: &Tasks,
        stop: &CancellationToken,
    ) -> Result<Self, SubscribeError> {
        let pace = keeps.then_some(PACE);
        let turns = if keeps { READS_AT_ONCE } else { Semaphore::MAX_PERMITS };
        let known = Known::new(pool, clock, turns);
        let seats = bus.client.subscribe(subjects::SEATS_CHANGED).await?;
        let concerts = bus.client.subscribe(subjects::CONCERTS_CHANGED).await?;
        let catalog = Self {
            bus,
            concerts: Shelf::new(1_000, pace, reading(&known, Known::read_concerts)),
            concert: Shelf::new(10_000, pace, reading(&known, Known::read_concert)),
            dates: Shelf::new(10_000, pace, reading(&known, Known::read_dates)),
            maps: Shelf::new(500, pace, reading(&known, Known::read_map)),
            known,
        };
        tasks.supervise("changed seats", listen::seats(catalog.clone(), seats, stop.clone()));
        tasks.supervise("changed concerts", listen::concerts(catalog.clone(), concerts, stop.clone()));
        Ok(catalog)
    }

    /// Concerts by name after the given one; at most 1 s old, and new on the instance that added one.
    pub async fn concerts(
        &self,
        after: Option<(String, Uuid)>,
        limit: i64,
    ) -> Result<Arc<Vec<Concert>>, CatalogError> {
        self.concerts.get((after, limit)).await
    }

    /// One concert; at most 1 s old, and new on the instance that added it.
    pub async fn concert(&self, id: ConcertId) -> Result<Arc<Concert>, CatalogError> {
        self.concert.get(id).await
    }

    /// Answers whether there is such a concert, else [`CatalogError::NotFound`]. A concert never goes away.
    pub async fn known_concert(&self, id: ConcertId) -> Result<(), CatalogError> {
        let load = async { self.known.clone().read_concert(id).await.map(drop) };
        self.known.concerts.try_get_with(id, load).await.map_err(unshare)
    }

    /// A concert's dates in their window that have free seats, by start; at most 1 s old.
    pub async fn performances(&self, concert: ConcertId) -> Result<Arc<Vec<OpenPerformance>>, CatalogError> {
        self.dates.get(concert).await
    }

    /// What never changes about a date: its concert, its times.
    pub async fn performance(&self, id: PerformanceId) -> Result<Arc<Performance>, CatalogError> {
        let load = async {
            let found = catalog::performance(&self.known.pool, id).await?;
            found.map(Arc::new).ok_or(CatalogError::NotFound)
        };
        self.known.performances.try_get_with(id, load).await.map_err(unshare)
    }

    /// The seats of a date; at most 1 s old.
    pub async fn seats(&self, performance: PerformanceId) -> Result<Arc<SeatMap>, CatalogError> {
        self.maps.get(performance).await
    }

    /// A concert was added here, or a date of one: forgets what is known of them, and tells the other instances.
    pub async fn concerts_changed(&self) {
        self.forget_concerts();
        announce_changed_concerts(&self.bus).await;
    }

    fn forget_concerts(&self) {
        self.concerts.forget_all();
        self.concert.forget_all();
        self.dates.forget_all();
    }
}

/// Asks the instances that cache concerts to read them anew.
pub async fn announce_changed_concerts(bus: &Bus) {
    if let Err(error) = bus.notify(subjects::CONCERTS_CHANGED, bytes::Bytes::new()).await {
        tracing::debug!(%error, "other instances were not notified of a new concert or performance; they see it within a second");
    }
}

impl Known {
    fn new(pool: PgPool, clock: Clock, turns: usize) -> Self {
        Self {
            pool,
            clock,
            turns: Arc::new(Semaphore::new(turns)),
            concerts: Cache::builder().max_capacity(100_000).time_to_live(FACTS_AGE).build(),
            performances: Cache::builder().max_capacity(100_000).time_to_live(FACTS_AGE).build(),
            layouts: Cache::builder().max_capacity(500).time_to_idle(FACTS_AGE).build(),
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

    async fn read_map(self, performance: PerformanceId) -> Result<SeatMap, CatalogError> {
        let load = async {
            let places = bounded(catalog::seat_places(&self.pool, performance)).await?;
            Ok(Arc::new(Layout::of(performance, &places)))
        };
        let layout = self.layouts.try_get_with(performance, load).await.map_err(unshare)?;
        let taken = bounded(catalog::taken_seats(&self.pool, performance, self.clock.now())).await?;
        Ok(SeatMap::of(layout, &taken))
    }
}

/// A reader for a shelf: waits for its turn, then reads.
fn reading<K, V, F>(
    known: &Known,
    read: fn(Known, K) -> F,
) -> impl Fn(K) -> futures::future::BoxFuture<'static, Result<V, CatalogError>> + Send + Sync + 'static
where
    K: Send + 'static,
    V: 'static,
    F: Future<Output = Result<V, CatalogError>> + Send + 'static,
{
    let known = known.clone();
    move |key| {
        let known = known.clone();
        let reading = async move {
            let turns = Arc::clone(&known.turns);
            // It is never closed.
            let _turn = turns.acquire().await;
            read(known, key).await
        };
        reading.boxed()
    }
}

/// Those who waited for the same read share its error.
#[allow(clippy::needless_pass_by_value, reason = "this is how the cache hands errors over")]
fn unshare(error: Arc<CatalogError>) -> CatalogError {
    CatalogError::clone(&error)
}
