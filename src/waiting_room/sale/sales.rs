//! What Postgres says of each sale, kept in memory: the settings of its line, and what is left to buy.
//!
//! Both are read anew every second while anybody is there (a change of settings is also announced, so that it is in force sooner), never on
//! the way of a status poll. While Postgres is away the last answer stands.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use chrono::{DateTime, Utc};
use sqlx::PgPool;
use tokio::sync::watch;
use tokio::time::Instant;

use super::super::line::Lot;
use super::super::status::{Inventory, Phase};
use super::stage::{inventory, phase};
use crate::clock::Clock;
use crate::ids::ConcertId;
use crate::store;
use crate::store::queue::{QueueSettings, Stock};

/// How old an answer about the stock may be when somebody joins.
const FRESH: Duration = Duration::from_millis(1_500);
/// For how long after somebody asked for a concert its stock is kept up to date.
const OF_INTEREST: Duration = Duration::from_secs(60);

/// A sale, as it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sale {
    /// How the line is run.
    pub settings: QueueSettings,
    /// What the sale is doing.
    pub phase: Phase,
    /// What is left, roughly.
    pub inventory: Inventory,
    /// The opening and its draw; nothing while no opening is known.
    pub lot: Option<Lot>,
    /// Whether the stock has ever been read: until then nothing is known against a sale, and no opening by its dates.
    pub is_read: bool,
}

#[derive(Clone, Debug)]
struct Known {
    settings: QueueSettings,
    learnt: Instant,
    stock: Option<Stock>,
    stock_read: Option<Instant>,
    asked: Option<Instant>,
    lot: Option<Lot>,
    /// Since which reading nothing has been for sale.
    over_since: Option<Instant>,
}

/// All sales.
#[derive(Debug)]
pub struct Sales {
    pool: PgPool,
    clock: Clock,
    known: RwLock<HashMap<ConcertId, Known>>,
    /// The concerts that somebody is reading this moment, because somebody joined and they were not known yet.
    reading: Mutex<HashSet<ConcertId>>,
    /// Tells when one was read: a storm of joins asks Postgres once, and all are answered at the same moment.
    read: watch::Sender<u64>,
    /// Whether the sales of all lines have been read since those were known.
    are_read: AtomicBool,
}

/// The right to read a concert while others wait; given back when it is dropped, read or not.
struct Turn<'a> {
    sales: &'a Sales,
    concert: ConcertId,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.sales.reading().remove(&self.concert);
        self.sales.read.send_modify(|count| *count += 1);
    }
}

impl Sales {
    /// Knows nothing yet.
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

    /// A sale as this instance knows it; nothing if it knows of no such concert.
    pub fn get(&self, concert: ConcertId) -> Option<Sale> {
        let now = self.clock.now();
        self.known().get(&concert).map(|known| known.sale(now))
    }

    /// The opening of a sale and its draw, if this instance knows of one.
    pub fn lot(&self, concert: ConcertId) -> Option<Lot> {
        self.known().get(&concert)?.lot
    }

    /// For how long nothing of this concert has been for sale, from the first reading that said so to the last one.
    pub fn over_for(&self, concert: ConcertId) -> Option<Duration> {
        let known = self.known();
        let known = known.get(&concert)?;
        Some(known.stock_read? - known.over_since?)
    }

    /// Whether this holds for the settings of any sale.
    pub fn any(&self, is: impl Fn(&QueueSettings) -> bool) -> bool {
        self.known().values().any(|known| is(&known.settings))
    }

    /// How many sagas are overdue, see [`store::queue::overdue_sagas`].
    pub async fn overdue_sagas(&self) -> store::Result<i64> {
        store::bounded(store::queue::overdue_sagas(&self.pool)).await
    }

    /// Every sale this instance knows.
    pub fn all(&self) -> Vec<Sale> {
        let now = self.clock.now();
        self.known().values().map(|known| known.sale(now)).collect()
    }

    /// A sale as it stands now, at most about a second ago; nothing if there is no such concert.
    pub async fn fresh(&self, concert: ConcertId) -> store::Result<Option<Sale>> {
        let mut read = self.read.subscribe();
        loop {
            if let Some(sale) = self.if_fresh(concert) {
                return Ok(Some(sale));
            }
            if let Some(_turn) = self.turn(concert) {
                return self.read_now(concert).await;
            }
            // The sender lives as long as this does.
            let _ = read.changed().await;
        }
    }

    async fn read_now(&self, concert: ConcertId) -> store::Result<Option<Sale>> {
        let Some(settings) = store::queue::get(&self.pool, concert).await? else {
            return Ok(None);
        };
        self.learn_settings(vec![settings]);
        self.read_stock(&[concert]).await?;
        Ok(self.if_fresh(concert))
    }

    fn turn(&self, concert: ConcertId) -> Option<Turn<'_>> {
        let is_mine = self.reading().insert(concert);
        is_mine.then(|| Turn { sales: self, concert })
    }

    fn reading(&self) -> MutexGuard<'_, HashSet<ConcertId>> {
        self.reading.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads the settings of all concerts anew, and the stock of those with people in line or lately asked for.
    pub async fn refresh(&self, with_people: Vec<ConcertId>) -> store::Result<()> {
        let asked = Instant::now();
        let settings = store::bounded(store::queue::all(&self.pool)).await?;
        self.learn_settings(settings);
        // What nobody has told of since then is gone.
        self.known_mut().retain(|_, known| known.learnt >= asked);
        let mut concerts = with_people;
        concerts.extend(
            self.known().iter().filter(|(_, known)| known.is_of_interest()).map(|(concert, _)| *concert),
        );
        concerts.sort_unstable();
        concerts.dedup();
        if concerts.is_empty() { Ok(()) } else { self.read_stock(&concerts).await }
    }

    /// The sales of all lines that are known have been read.
    pub fn note_read(&self) {
        self.are_read.store(true, Ordering::Release);
    }

    /// Whether that has ever been so.
    pub fn are_read(&self) -> bool {
        self.are_read.load(Ordering::Acquire)
    }

    /// Whether anybody has asked for the stock of any concert lately.
    pub fn are_of_interest(&self) -> bool {
        self.known().values().any(Known::is_of_interest)
    }

    /// Takes over settings that were read or changed just now.
    pub fn learn_settings(&self, settings: Vec<QueueSettings>) {
        let mut known = self.known_mut();
        for settings in settings {
            let concert = settings.concert_id;
            match known.get_mut(&concert) {
                Some(known) => {
                    known.settings = settings;
                    known.learnt = Instant::now();
                    known.find_lot();
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
                known.learn_stock(of_concert.remove(concert));
            }
        }
        Ok(())
    }

    fn if_fresh(&self, concert: ConcertId) -> Option<Sale> {
        let now = self.clock.now();
        let mut known = self.known_mut();
        let known = known.get_mut(&concert)?;
        known.asked = Some(Instant::now());
        known.stock_read.filter(|read| read.elapsed() < FRESH).map(|_| known.sale(now))
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
            learnt: Instant::now(),
            stock: None,
            stock_read: None,
            asked: None,
            lot: None,
            over_since: None,
        };
        known.find_lot();
        known
    }

    fn learn_stock(&mut self, stock: Option<Stock>) {
        let now = Instant::now();
        let is_over = stock.is_none_or(|stock| !stock.unsold);
        self.stock = stock;
        self.stock_read = Some(now);
        self.over_since = if is_over { self.over_since.or(Some(now)) } else { None };
        self.find_lot();
    }

    /// An opening that was set, or else the one that follows from the dates.
    fn find_lot(&mut self) {
        let set = self.settings.opens_at;
        let opens_at = set.or(self.stock.and_then(|stock| stock.opens_at));
        self.lot = opens_at.map(|at| Lot::new(self.settings.seed.bytes(), at, set.is_some()));
    }

    fn is_of_interest(&self) -> bool {
        self.asked.is_some_and(|asked| asked.elapsed() < OF_INTEREST)
    }

    fn sale(&self, now: DateTime<Utc>) -> Sale {
        // Never read: nothing is known against it.
        let (stock, inventory) = match (self.stock_read, self.stock) {
            (None, _) => (None, Inventory::Available),
            (Some(_), stock) => (Some(stock), inventory(stock.as_ref())),
        };
        let opens_at = self.lot.map(|lot| lot.opens_at);
        Sale {
            phase: phase(&self.settings, stock, opens_at, now),
            inventory,
            lot: self.lot,
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
    async fn an_opening_that_was_set_goes_before_the_one_of_the_dates() {
        let opening = |known: &Known| known.lot.map(|lot| lot.opens_at);
        let mut known = Known::new(QueueSettings::sample());
        assert_eq!(opening(&known), None, "nothing is known yet");
        known.learn_stock(stock(true, 6));
        assert_eq!(opening(&known), Some(at(0)));
        let by_dates = known.lot;
        known.settings.opens_at = Some(at(5));
        known.find_lot();
        assert_eq!(opening(&known), Some(at(5)));
        known.settings.opens_at = Some(at(0));
        known.find_lot();
        assert_ne!(known.lot, by_dates, "another seed");
        known.learn_stock(None);
        assert_eq!(opening(&known), Some(at(0)));
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_known_for_how_long_nothing_has_been_for_sale() {
        let mut known = Known::new(QueueSettings::sample());
        let over_for =
            |known: &Known| known.over_since.zip(known.stock_read).map(|(since, read)| read - since);
        known.learn_stock(stock(true, 0));
        assert_eq!(over_for(&known), None);
        known.learn_stock(stock(false, 0));
        tokio::time::advance(Duration::from_secs(3)).await;
        assert_eq!(over_for(&known), Some(Duration::ZERO), "nobody has looked since");
        known.learn_stock(stock(false, 0));
        assert_eq!(over_for(&known), Some(Duration::from_secs(3)));
        known.learn_stock(stock(true, 1));
        assert_eq!(over_for(&known), None);
    }
}
