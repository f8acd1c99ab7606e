//! The ways of concurrency control: each does one request under its kind of lock or check.

use std::sync::Arc;

use anyhow::bail;
use sqlx::PgPool;

use super::batches::Batches;
use super::cell::{ACCOUNTS, POINTS, SEATS, Way, decided};
use super::cost::{Cost, Spent};
use super::locks::Locks;
use crate::store::rivals::{self, Deed, Request};
use boxoffice::bus::Bus;

/// How often a request is tried before it counts as failed. With 24 at a time for one row, one in 24 gets through.
const MOST_TRIES: u32 = 1_000;

/// The tables, the connections, the locks and the loops of batches: what all ways work with.
#[derive(Debug)]
pub struct Arena {
    pool: PgPool,
    locks: Locks,
    batches: Batches,
    cost: Arc<Cost>,
    outside: PgPool,
}

impl Arena {
    /// Makes the tables beside those of the database at `url`, to which `outside` is connected, and the bucket. No other
    /// process may do so at the same time.
    pub async fn open(outside: &PgPool, url: &str, bus: &Bus, connections: u32) -> anyhow::Result<Self> {
        rivals::make(outside).await?;
        let (pool, cost) = (rivals::open(url, connections)?, Arc::<Cost>::default());
        let locks = Locks::open(bus, Arc::clone(&cost)).await?;
        let batches = Batches::start(&pool, &cost);
        Ok(Self { pool, locks, batches, cost, outside: outside.clone() })
    }

    /// Takes all of it away.
    pub async fn close(&self) -> anyhow::Result<()> {
        self.pool.close().await;
        self.locks.discard().await?;
        Ok(rivals::discard(&self.outside).await?)
    }

    /// The connections, all of them on these tables.
    pub fn pool(&self) -> &PgPool {
        &self.pool
    }

    /// The locks in the bucket.
    pub fn locks(&self) -> &Locks {
        &self.locks
    }

    /// All seats free, or all accounts as they were, whichever this is about.
    pub async fn reset(&self, deed: Deed) -> anyhow::Result<()> {
        match deed {
            Deed::Hold => rivals::seat(&self.pool, SEATS).await?,
            Deed::Charge | Deed::Use => rivals::endow(&self.pool, ACCOUNTS, POINTS).await?,
        }
        self.cost.take();
        Ok(())
    }

    /// What was spent since the last time, or since everything was made ready.
    pub(super) fn spent(&self) -> Spent {
        self.cost.take()
    }

    /// Does what is asked for in this way. Says whether it was granted.
    pub async fn ask(&self, way: Way, request: &Request) -> anyhow::Result<bool> {
        match way {
            Way::Conditional => {
                let mut conn = self.pool.acquire().await?;
                self.cost.tried();
                self.cost.asked(1, 1);
                Ok(rivals::at_once(&mut conn, request).await?)
            }
            Way::ForUpdate => self.locked(request, false).await,
            Way::Advisory => self.locked(request, true).await,
            Way::Version => self.versioned(request).await,
            Way::KvLock => self.under_lock(request).await,
            Way::Batches => {
                self.cost.tried();
                self.batches.ask(request).await
            }
        }
    }

    /// With a lock in Postgres that lasts as long as the transaction: of the row itself, or beside it.
    async fn locked(&self, request: &Request, beside: bool) -> anyhow::Result<bool> {
        let mut tx = self.pool.begin().await?;
        self.cost.tried();
        if beside {
            rivals::lock(&mut tx, request).await?;
        }
        let row = rivals::read(&mut tx, request, !beside).await?;
        let left = decided(request, row.stock);
        self.cost.asked(1, 3 + u64::from(beside) + u64::from(left.is_some()));
        match left {
            Some(left) => {
                rivals::write(&mut tx, request, left, None).await?;
                tx.commit().await?;
            }
            // A row that was only locked would be something to commit, and to write to the disk.
            None => tx.rollback().await?,
        }
        Ok(left.is_some())
    }

    /// With nothing but a version: two transactions of one statement each, repeated until no other write came in between.
    async fn versioned(&self, request: &Request) -> anyhow::Result<bool> {
        let mut conn = self.pool.acquire().await?;
        for _ in 0..MOST_TRIES {
            self.cost.tried();
            self.cost.asked(1, 1);
            let row = rivals::read(&mut conn, request, false).await?;
            let Some(left) = decided(request, row.stock) else { return Ok(false) };
            self.cost.asked(1, 1);
            if rivals::write(&mut conn, request, left, Some((row.version, row.version + 1))).await? {
                return Ok(true);
            }
        }
        bail!("others came in between {MOST_TRIES} times")
    }

    /// With a lock in the bucket. The connection is taken after the lock: a caller that waits for the lock needs none.
    async fn under_lock(&self, request: &Request) -> anyhow::Result<bool> {
        for _ in 0..MOST_TRIES {
            self.cost.tried();
            let held = self.locks.take(request.place).await?;
            let written = self.fenced(request, held.revision).await;
            self.locks.give_back(held).await;
            if let Some(granted) = written? {
                return Ok(granted);
            }
        }
        bail!("the lock was lost {MOST_TRIES} times")
    }

    /// Reads, decides and writes under a lock of this revision; nothing if the lock was lost meanwhile. It is not enough to
    /// refuse a revision that is lower than that of the last write: the next holder may have read by now, and
    /// not yet written. So the row must be as it was read, too.
    pub async fn fenced(&self, request: &Request, revision: u64) -> anyhow::Result<Option<bool>> {
        let revision = i64::try_from(revision)?;
        let mut conn = self.pool.acquire().await?;
        self.cost.asked(1, 1);
        let row = rivals::read(&mut conn, request, false).await?;
        if row.version > revision {
            return Ok(None);
        }
        let Some(left) = decided(request, row.stock) else { return Ok(Some(false)) };
        self.cost.asked(1, 1);
        let written = rivals::write(&mut conn, request, left, Some((row.version, revision))).await?;
        Ok(written.then_some(true))
    }
}
