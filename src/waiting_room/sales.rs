//! What Postgres says of each sale, kept in memory: the settings of its line, and what is left to buy.
//!
//! Both are read anew every second while anybody is there (a change of settings is also announced, so that it is in force sooner), never on
//! the way of a status poll. While Postgres is away the last answer stands.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use chrono::{DateTime, Utc};
use sqlx::PgPool;
use tokio::sync::watch;
use tokio::time::Instant;

use super::status::{Inventory, Phase};
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
}

#[derive(Clone, Debug)]
struct Known {
    settings: QueueSettings,
    learnt: Instant,
    stock: Option<Stock>,
    stock_read: Option<Instant>,
    asked: Option<Instant>,
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
        Self { pool, clock, known: RwLock::default(), reading: Mutex::default(), read: watch::Sender::new(0) }
    }

    /// A sale as this instance knows it; nothing if it knows of no such concert.
    pub fn get(&self, concert: ConcertId) -> Option<Sale> {
        let now = self.clock.now();
        self.known().get(&concert).map(|known| known.sale(now))
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
        let settings = store::queue::all(&self.pool).await?;
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
                }
                None => {
                    known.insert(concert, Known::new(settings));
                }
            }
        }
    }

    async fn read_stock(&self, concerts: &[ConcertId]) -> store::Result<()> {
        let stock = store::queue::stock(&self.pool, concerts, self.clock.now()).await?;
        let mut of_concert: HashMap<ConcertId, Stock> =
            stock.into_iter().map(|stock| (stock.concert_id, stock)).collect();
        let mut known = self.known_mut();
        for concert in concerts {
            if let Some(known) = known.get_mut(concert) {
                known.stock = of_concert.remove(concert);
                known.stock_read = Some(Instant::now());
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
        Self { settings, learnt: Instant::now(), stock: None, stock_read: None, asked: None }
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
        Sale { phase: phase(&self.settings, stock, now), inventory, settings: self.settings.clone() }
    }
}

/// What a sale is doing. `stock` is `None` while unknown, and `Some(None)` when no date is on sale or to come.
fn phase(settings: &QueueSettings, stock: Option<Option<Stock>>, now: DateTime<Utc>) -> Phase {
    let reached = |time: Option<DateTime<Utc>>| time.is_some_and(|time| time <= now);
    match stock {
        Some(None) => Phase::Closed,
        Some(Some(stock)) if !stock.unsold => Phase::SoldOut,
        _ if settings.paused => Phase::Paused,
        _ if settings.opens_at.is_none() || reached(settings.opens_at) => Phase::Open,
        _ if reached(settings.pre_queue_at) => Phase::PreQueue,
        _ => Phase::NotOpen,
    }
}

fn inventory(stock: Option<&Stock>) -> Inventory {
    match stock {
        Some(stock) if stock.unsold && stock.free * 10 > stock.seats => Inventory::Available,
        Some(stock) if stock.unsold => Inventory::Low,
        _ => Inventory::SoldOut,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_900_000_000 + seconds, 0).unwrap()
    }

    fn settings() -> QueueSettings {
        QueueSettings {
            concert_id: ConcertId::from_u128(1),
            max_active: 10,
            admit_per_minute: 600,
            min_rate: 0,
            max_rate: 600,
            pre_queue_at: None,
            opens_at: None,
            paused: false,
        }
    }

    fn stock(unsold: bool, free: i64) -> Option<Stock> {
        Some(Stock { concert_id: ConcertId::from_u128(1), dates: 1, seats: 50, unsold, free })
    }

    #[test]
    fn a_sale_goes_through_its_phases() {
        let early = QueueSettings { pre_queue_at: Some(at(10)), opens_at: Some(at(20)), ..settings() };
        let on_sale = Some(stock(true, 6));
        assert_eq!(phase(&early, on_sale, at(9)), Phase::NotOpen);
        assert_eq!(phase(&early, on_sale, at(10)), Phase::PreQueue);
        assert_eq!(phase(&early, on_sale, at(20)), Phase::Open);
        assert_eq!(phase(&QueueSettings { paused: true, ..early }, on_sale, at(30)), Phase::Paused);
        assert_eq!(phase(&early, Some(stock(false, 0)), at(30)), Phase::SoldOut);
        assert_eq!(phase(&early, Some(None), at(30)), Phase::Closed);
        assert_eq!(phase(&settings(), None, at(0)), Phase::Open, "unknown stock stops nobody");
    }

    #[test]
    fn few_seats_are_low_and_held_ones_are_not_sold_out() {
        assert_eq!(inventory(stock(true, 6).as_ref()), Inventory::Available);
        assert_eq!(inventory(stock(true, 5).as_ref()), Inventory::Low);
        assert_eq!(inventory(stock(true, 0).as_ref()), Inventory::Low);
        assert_eq!(inventory(stock(false, 0).as_ref()), Inventory::SoldOut);
        assert_eq!(inventory(None), Inventory::SoldOut);
    }
}
