//! The reads that everybody makes, from memory: concerts, dates and seat maps.
//!
//! Each read is made once at a time for all who ask (single flight), and its answer is given to everybody
//! for a moment. How old an answer may be is stated at each function; nothing that sells a seat or takes a
//! point trusts it. There is no invalidation between instances: the ages are short enough.

mod seats;

use std::sync::Arc;
use std::time::Duration;

use moka::future::Cache;
use sqlx::PgPool;
use uuid::Uuid;

pub use seats::{SeatMap, SeatMapBody};

use crate::clock::Clock;
use crate::ids::{ConcertId, PerformanceId};
use crate::store::catalog::{self, Concert, OpenPerformance, Performance, SeatStatus};

/// How long a page of concerts is given out.
const CONCERTS_AGE: Duration = Duration::from_secs(3);
/// How long dates and seat maps are given out; with the time of reading them it stays below a second.
const SEATS_AGE: Duration = Duration::from_millis(750);
/// How long what never changes is remembered.
const FACTS_AGE: Duration = Duration::from_secs(300);

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
    pool: PgPool,
    clock: Clock,
    concerts: Cache<ConcertsPage, Arc<Vec<Concert>>>,
    concert: Cache<ConcertId, Arc<Concert>>,
    known_concerts: Cache<ConcertId, ()>,
    performances: Cache<ConcertId, Arc<Vec<OpenPerformance>>>,
    facts: Cache<PerformanceId, Arc<Performance>>,
    seats: Cache<(PerformanceId, Option<SeatStatus>), Arc<SeatMap>>,
}

impl Catalog {
    /// An empty memory in front of the database.
    pub fn new(pool: PgPool, clock: Clock) -> Self {
        Self {
            pool,
            clock,
            concerts: Cache::builder().max_capacity(1_000).time_to_live(CONCERTS_AGE).build(),
            concert: Cache::builder().max_capacity(10_000).time_to_live(CONCERTS_AGE).build(),
            known_concerts: Cache::builder().max_capacity(100_000).time_to_live(FACTS_AGE).build(),
            performances: Cache::builder().max_capacity(10_000).time_to_live(SEATS_AGE).build(),
            facts: Cache::builder().max_capacity(100_000).time_to_live(FACTS_AGE).build(),
            seats: Cache::builder().max_capacity(1_000).time_to_live(SEATS_AGE).build(),
        }
    }

    /// Concerts by name after the given one; at most 3 s old, or new on the instance that added one.
    pub async fn concerts(
        &self,
        after: Option<(String, Uuid)>,
        limit: i64,
    ) -> Result<Arc<Vec<Concert>>, CatalogError> {
        let load = async {
            let after = after.as_ref().map(|(name, id)| (name.as_str(), *id));
            let rows = catalog::list_concerts(&self.pool, after, limit, self.clock.now()).await?;
            Ok(Arc::new(rows))
        };
        self.concerts.try_get_with((after.clone(), limit), load).await.map_err(unshare)
    }

    /// Forgets what is known of concerts: one was added here, or a date of one.
    pub fn concerts_changed(&self) {
        self.concerts.invalidate_all();
        self.concert.invalidate_all();
    }

    /// One concert; at most 3 s old, or new on the instance that added it.
    pub async fn concert(&self, id: ConcertId) -> Result<Arc<Concert>, CatalogError> {
        let load = async {
            let found = catalog::concert(&self.pool, id, self.clock.now()).await?;
            found.map(Arc::new).ok_or(CatalogError::NotFound)
        };
        self.concert.try_get_with(id, load).await.map_err(unshare)
    }

    /// Answers whether there is such a concert, else [`CatalogError::NotFound`]. A concert never goes away.
    pub async fn known_concert(&self, id: ConcertId) -> Result<(), CatalogError> {
        let load = async {
            let found = catalog::concert(&self.pool, id, self.clock.now()).await?;
            found.map(|_| ()).ok_or(CatalogError::NotFound)
        };
        self.known_concerts.try_get_with(id, load).await.map_err(unshare)
    }

    /// A concert's dates in their window that have free seats, by start; at most 1 s old.
    pub async fn performances(&self, concert: ConcertId) -> Result<Arc<Vec<OpenPerformance>>, CatalogError> {
        let load = async {
            let rows = catalog::open_performances(&self.pool, concert, self.clock.now()).await?;
            Ok(Arc::new(rows))
        };
        self.performances.try_get_with(concert, load).await.map_err(unshare)
    }

    /// What never changes about a date: its concert, its times.
    pub async fn performance(&self, id: PerformanceId) -> Result<Arc<Performance>, CatalogError> {
        let load = async {
            let found = catalog::performance(&self.pool, id).await?;
            found.map(Arc::new).ok_or(CatalogError::NotFound)
        };
        self.facts.try_get_with(id, load).await.map_err(unshare)
    }

    /// The seats of a date, all or those with one status, ready to be sent; at most 1 s old.
    pub async fn seats(
        &self,
        performance: PerformanceId,
        only: Option<SeatStatus>,
    ) -> Result<Arc<SeatMap>, CatalogError> {
        let load = async {
            let rows = catalog::seat_map(&self.pool, performance, only, self.clock.now()).await?;
            Ok(Arc::new(SeatMap::render(performance, &rows)))
        };
        self.seats.try_get_with((performance, only), load).await.map_err(unshare)
    }
}

/// Those who waited for the same read share its error.
#[allow(clippy::needless_pass_by_value, reason = "this is how the cache hands errors over")]
fn unshare(error: Arc<CatalogError>) -> CatalogError {
    CatalogError::clone(&error)
}
