//! Settings and stock of all sales in memory, read from Postgres.
//!
//! Both are read every second while a line is in use, never during a status poll. A change of settings is announced
//! too, so that it applies sooner. While Postgres is away the last values stay.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use chrono::{DateTime, Utc};
use sqlx::PgPool;
use tokio::sync::watch;
use tokio::time::Instant;

use super::super::line::Lottery;
use super::super::queue_token::{Inventory, Phase};
use super::phase::{inventory, phase};
use crate::clock::Clock;
use crate::ids::ConcertId;
use crate::store;
use crate::store::queue::{QueueSettings, Stock};

/// A join reads the stock again if it is older.
const MAX_STOCK_AGE: Duration = Duration::from_millis(1_500);
/// How long the stock of a concert is kept up to date after a user asked for it.
const INTEREST_WINDOW: Duration = Duration::from_secs(60);

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sale {
    pub settings: QueueSettings,
    pub phase: Phase,
    pub inventory: Inventory,
    /// The lottery of the opening; `None` while no opening is known.
    pub lottery: Option<Lottery>,
    /// Whether the stock has ever been read. Before that the sale counts as open and available.
    pub is_read: bool,
}

#[derive(Clone, Debug)]
struct Known {
    settings: QueueSettings,
    settings_read: Instant,
    stock: Option<Stock>,
    stock_read: Option<Instant>,
    asked: Option<Instant>,
    lottery: Option<Lottery>,
    /// The first reading since which nothing has been for sale.
    over_since: Option<Instant>,
}

#[derive(Debug)]
pub struct Sales {
    pool: PgPool,
    clock: Clock,
    known: RwLock<HashMap<ConcertId, Known>>,
    /// The concerts that a task is reading, because a user joined a line that was not in memory.
    reading: Mutex<HashSet<ConcertId>>,
    /// Changes when a reading ends. Many simultaneous joins cause one query, and all continue after it.
    read: watch::Sender<u64>,
    /// Whether the sales of all known lines have been read.
    are_read: AtomicBool,
}

/// The right to read a concert while other tasks wait. Dropping it wakes them.
struct ReadPermit<'a> {
    sales: &'a Sales,
    concert: ConcertId,
}

impl Drop for ReadPermit<'_> {
    fn drop(&mut self) {
        self.sales.reading().remove(&self.concert);
        self.sales.read.send_modify(|count| *count += 1);
    }
}

impl Sales {
    pub fn new(pool: PgPool, clock: Clock) -> Self {
        Self {
            pool,
            clock,
            known: RwLock::default(),
            reading: Mutex::default(),
            read: watch::Sender::new(0),
            are_read: AtomicBool::new(false),
        }
    }

    /// `None` if this instance knows no such concert.
    pub fn get(&self, concert: ConcertId) -> Option<Sale> {
        let now = self.clock.now();
        self.known().get(&concert).map(|known| known.sale(now))
    }

    pub fn lottery(&self, concert: ConcertId) -> Option<Lottery> {
        self.known().get(&concert)?.lottery
    }

    /// How long the sale has been over, between the first and the last reading that said so.
    pub fn over_for(&self, concert: ConcertId) -> Option<Duration> {
        let known = self.known();
        let known = known.get(&concert)?;
        Some(known.stock_read? - known.over_since?)
    }

    /// Whether any sale has such settings.
    pub fn any(&self, is: impl Fn(&QueueSettings) -> bool) -> bool {
        self.known().values().any(|known| is(&known.settings))
    }

    /// See [`store::queue::overdue_sagas`].
    pub async fn overdue_sagas(&self) -> store::Result<i64> {
        store::bounded(store::queue::overdue_sagas(&self.pool)).await
    }

    pub fn all(&self) -> Vec<Sale> {
        let now = self.clock.now();
        self.known().values().map(|known| known.sale(now)).collect()
    }

    /// A sale at most about a second old; `None` if there is no such concert.
    pub async fn fresh(&self, concert: ConcertId) -> store::Result<Option<Sale>> {
        let mut read = self.read.subscribe();
        loop {
            if let Some(sale) = self.if_fresh(concert) {
                return Ok(Some(sale));
            }
            if let Some(_permit) = self.read_permit(concert) {
                return self.read_now(concert).await;
            }
            // The sender lives as long as `self`.
            let _ = read.changed().await;
        }
    }

    async fn read_now(&self, concert: ConcertId) -> store::Result<Option<Sale>> {
        let Some(settings) = store::queue::get(&self.pool, concert).await? else {
            return Ok(None);
        };
        self.apply_settings(vec![settings]);
        self.read_stock(&[concert]).await?;
        Ok(self.if_fresh(concert))
    }

    fn read_permit(&self, concert: ConcertId) -> Option<ReadPermit<'_>> {
        let is_mine = self.reading().insert(concert);
        is_mine.then(|| ReadPermit { sales: self, concert })
    }

    fn reading(&self) -> MutexGuard<'_, HashSet<ConcertId>> {
        self.reading.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads the settings of all concerts, and the stock of those with users or with recent requests.
    pub async fn refresh(&self, with_people: Vec<ConcertId>) -> store::Result<()> {
        let asked = Instant::now();
        let settings = store::bounded(store::queue::all(&self.pool)).await?;
        self.apply_settings(settings);
        // Concerts that were not read no longer exist.
        self.known_mut().retain(|_, known| known.settings_read >= asked);
        let mut concerts = with_people;
        concerts.extend(
            self.known().iter().filter(|(_, known)| known.is_of_interest()).map(|(concert, _)| *concert),
        );
        concerts.sort_unstable();
        concerts.dedup();
        if concerts.is_empty() { Ok(()) } else { self.read_stock(&concerts).await }
    }

    /// Marks that the sales of all known lines have been read.
    pub fn mark_read(&self) {
        self.are_read.store(true, Ordering::Release);
    }

    pub fn are_read(&self) -> bool {
        self.are_read.load(Ordering::Acquire)
    }

    /// Whether a user has asked for the stock of any concert lately.
    pub fn are_of_interest(&self) -> bool {
        self.known().values().any(Known::is_of_interest)
    }

    pub fn apply_settings(&self, settings: Vec<QueueSettings>) {
        let mut known = self.known_mut();
        for settings in settings {
            let concert = settings.concert_id;
            match known.get_mut(&concert) {
                Some(known) => {
                    known.settings = settings;
                    known.settings_read = Instant::now();
                    known.find_lottery();
                }
                None => {
                    known.insert(concert, Known::new(settings));
                }
            }
        }
    }

    async fn read_stock(&self, concerts: &[ConcertId]) -> store::Result<()> {
        let stock = store::bounded(store::queue::stock(&self.pool, concerts, self.clock.now())).await?;
        let mut of_concert: HashMap<ConcertId, Stock> =
            stock.into_iter().map(|stock| (stock.concert_id, stock)).collect();
        let mut known = self.known_mut();
        for concert in concerts {
            if let Some(known) = known.get_mut(concert) {
                known.apply_stock(of_concert.remove(concert));
            }
        }
        Ok(())
    }

    fn if_fresh(&self, concert: ConcertId) -> Option<Sale> {
        let now = self.clock.now();
        let mut known = self.known_mut();
        let known = known.get_mut(&concert)?;
        known.asked = Some(Instant::now());
        known.stock_read.filter(|read| read.elapsed() < MAX_STOCK_AGE).map(|_| known.sale(now))
    }

    fn known(&self) -> RwLockReadGuard<'_, HashMap<ConcertId, Known>> {
        self.known.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn known_mut(&self) -> RwLockWriteGuard<'_, HashMap<ConcertId, Known>> {
        self.known.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    fn new(settings: QueueSettings) -> Self {
        let mut known = Self {
            settings,
            settings_read: Instant::now(),
            stock: None,
            stock_read: None,
            asked: None,
            lottery: None,
            over_since: None,
        };
        known.find_lottery();
        known
    }

    fn apply_stock(&mut self, stock: Option<Stock>) {
        let now = Instant::now();
        let is_over = stock.is_none_or(|stock| !stock.unsold);
        self.stock = stock;
        self.stock_read = Some(now);
        self.over_since = if is_over { self.over_since.or(Some(now)) } else { None };
        self.find_lottery();
    }

    /// The opening that was set, or else the one that follows from the dates.
    fn find_lottery(&mut self) {
        let set = self.settings.opens_at;
        let opens_at = set.or(self.stock.and_then(|stock| stock.opens_at));
        self.lottery = opens_at.map(|at| Lottery::new(self.settings.seed.bytes(), at, set.is_some()));
    }

    fn is_of_interest(&self) -> bool {
        self.asked.is_some_and(|asked| asked.elapsed() < INTEREST_WINDOW)
    }

    fn sale(&self, now: DateTime<Utc>) -> Sale {
        // Before the first reading the sale counts as available.
        let (stock, inventory) = match (self.stock_read, self.stock) {
            (None, _) => (None, Inventory::Available),
            (Some(_), stock) => (Some(stock), inventory(stock.as_ref())),
        };
        let opens_at = self.lottery.map(|lottery| lottery.opens_at);
        Sale {
            phase: phase(&self.settings, stock, opens_at, now),
            inventory,
            lottery: self.lottery,
            is_read: self.stock_read.is_some(),
            settings: self.settings.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::queue::at;

    fn stock(unsold: bool, free: i64) -> Option<Stock> {
        Some(Stock::sample(unsold, free))
    }

    #[tokio::test(start_paused = true)]
    async fn configured_opening_replaces_the_one_of_the_dates() {
        let opening = |known: &Known| known.lottery.map(|lottery| lottery.opens_at);
        let mut known = Known::new(QueueSettings::sample());
        assert_eq!(opening(&known), None, "nothing is known yet");
        known.apply_stock(stock(true, 6));
        assert_eq!(opening(&known), Some(at(0)));
        let by_dates = known.lottery;
        known.settings.opens_at = Some(at(5));
        known.find_lottery();
        assert_eq!(opening(&known), Some(at(5)));
        known.settings.opens_at = Some(at(0));
        known.find_lottery();
        assert_ne!(known.lottery, by_dates, "another seed");
        known.apply_stock(None);
        assert_eq!(opening(&known), Some(at(0)));
    }

    #[tokio::test(start_paused = true)]
    async fn time_without_anything_for_sale_is_known() {
        let mut known = Known::new(QueueSettings::sample());
        let over_for =
            |known: &Known| known.over_since.zip(known.stock_read).map(|(since, read)| read - since);
        known.apply_stock(stock(true, 0));
        assert_eq!(over_for(&known), None);
        known.apply_stock(stock(false, 0));
        tokio::time::advance(Duration::from_secs(3)).await;
        assert_eq!(over_for(&known), Some(Duration::ZERO), "no check since");
        known.apply_stock(stock(false, 0));
        assert_eq!(over_for(&known), Some(Duration::from_secs(3)));
        known.apply_stock(stock(true, 1));
        assert_eq!(over_for(&known), None);
    }
}
