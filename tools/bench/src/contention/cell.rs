//! What is measured at a time: what is asked for, how it is controlled, how many ask, and how much they are in each
//! other's way.

use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Mutex, PoisonError};

use chrono::{DateTime, Utc};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::store::rivals::{Deed, Request};
use boxoffice::ids;
use boxoffice::store::points::BALANCE_LIMIT;

/// Seats of the hall.
pub(super) const SEATS: i32 = 50_000;
/// Accounts, and what each begins with.
pub(super) const ACCOUNTS: i32 = 5_000;
pub(super) const POINTS: i64 = 1_000;
/// Points of one charge or use.
const AMOUNT: i64 = 100;
/// After so many uses a caller charges points again, somewhat fewer than the uses took. So the balance of an account that
/// all callers use is often too low, and its uses are refused.
const USES: u64 = 7;
const CHARGED_AGAIN: i64 = 600;

/// A way of concurrency control for callers that change the same row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// One statement that changes the row if its condition holds, as a transaction of its own.
    Conditional,
    /// A transaction that locks the row, reads it, decides, and writes.
    ForUpdate,
    /// Read, decide, write over the version that was read; from the start again if it is another one now.
    Version,
    /// A transaction that takes a lock with the row's number first, then reads, decides, and writes.
    Advisory,
    /// A lock in a KV bucket before the transaction, and a write over the version that was read, because a lock can be lost.
    KvLock,
    /// What is asked for meanwhile is taken together: lock the rows in the order of their keys, decide in memory, write.
    Batches,
}

/// How often callers ask for the same row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Contention {
    /// Each asks for a random row of thousands.
    Low,
    /// All ask for the same row. A seat can be sold once; when it is gone, all ask for the next.
    Extreme,
}

/// A combination.
#[derive(Clone, Copy, Debug)]
pub struct Cell {
    pub deed: Deed,
    pub way: Way,
    pub contention: Contention,
    /// How many ask at once.
    pub callers: u32,
    /// Where chance begins: which rows callers want where contention is low.
    pub seed: u64,
}

/// What is asked for next in a cell.
#[derive(Debug)]
pub(super) struct Choice {
    cell: Cell,
    wanted: AtomicI32,
    chance: Mutex<StdRng>,
}

impl Way {
    /// Every way, in the order of the page.
    pub const ALL: [Self; 6] =
        [Self::Conditional, Self::ForUpdate, Self::Version, Self::Advisory, Self::KvLock, Self::Batches];

    /// Its name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Conditional => "conditional_update",
            Self::ForUpdate => "for_update",
            Self::Version => "version",
            Self::Advisory => "advisory_lock",
            Self::KvLock => "kv_lock",
            Self::Batches => "batches",
        }
    }
}

impl Contention {
    /// Its name in reports.
    pub fn name(self) -> &'static str {
        if self == Self::Low { "low" } else { "extreme" }
    }
}

impl Cell {
    /// Every cell with so many callers: the ways one after the other, so that a machine that slows down meanwhile
    /// slows down neighbours.
    pub fn all(callers: u32, seed: u64) -> Vec<Self> {
        let mut all = Vec::new();
        for deed in [Deed::Hold, Deed::Charge, Deed::Use] {
            for contention in [Contention::Low, Contention::Extreme] {
                all.extend(Way::ALL.map(|way| Self { deed, way, contention, callers, seed }));
            }
        }
        all
    }

    /// The name of what is asked for in reports.
    pub fn case(&self) -> &'static str {
        match self.deed {
            Deed::Hold => "seat_hold",
            Deed::Charge => "point_charge",
            Deed::Use => "point_use",
        }
    }
}

impl Choice {
    pub(super) fn of(cell: Cell) -> Self {
        let chance = Mutex::new(StdRng::seed_from_u64(cell.seed));
        Self { cell, wanted: AtomicI32::new(1), chance }
    }

    /// What a caller asks for the `nth` time; nothing if all seats are gone.
    pub(super) fn next(&self, nth: u64, at: DateTime<Utc>) -> Option<Request> {
        let (deed, amount) = match self.cell.deed {
            Deed::Hold => (Deed::Hold, 1),
            Deed::Use if nth % (USES + 1) == USES => (Deed::Charge, CHARGED_AGAIN),
            deed => (deed, AMOUNT),
        };
        let place = match (self.cell.contention, self.cell.deed) {
            (Contention::Low, Deed::Hold) => self.drawn(SEATS),
            (Contention::Low, _) => self.drawn(ACCOUNTS),
            (Contention::Extreme, Deed::Hold) => self.wanted.load(Ordering::Relaxed),
            (Contention::Extreme, _) => 1,
        };
        let is_there = self.cell.deed != Deed::Hold || place <= SEATS;
        is_there.then(|| Request { id: ids::new(), deed, place, amount, at })
    }

    fn drawn(&self, most: i32) -> i32 {
        self.chance.lock().unwrap_or_else(PoisonError::into_inner).random_range(1..=most)
    }

    /// A caller got the answer for a seat: this caller or another has it, so it is no longer free.
    pub(super) fn gone(&self, place: i32) {
        // Another caller may have got its answer before.
        let _known = self.wanted.compare_exchange(place, place + 1, Ordering::Relaxed, Ordering::Relaxed);
    }
}

/// What is left of a row's stock if the request is granted; nothing if it is refused. A seat is a stock of one.
pub(super) fn decided(request: &Request, stock: i64) -> Option<i64> {
    let left = match request.deed {
        Deed::Hold | Deed::Use => stock - request.amount,
        Deed::Charge => stock + request.amount,
    };
    (0..=BALANCE_LIMIT).contains(&left).then_some(left)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(deed: Deed, contention: Contention, nth: u64) -> Option<Request> {
        let choice = Choice::of(Cell { deed, way: Way::Version, contention, callers: 1, seed: 1 });
        choice.next(nth, DateTime::UNIX_EPOCH)
    }

    #[test]
    fn row_gives_and_takes_within_limits() {
        let decide = |deed, stock| decided(&asked(deed, Contention::Extreme, 0).unwrap(), stock);
        assert_eq!([decide(Deed::Hold, 1), decide(Deed::Hold, 0)], [Some(0), None]);
        assert_eq!([decide(Deed::Use, AMOUNT), decide(Deed::Use, AMOUNT - 1)], [Some(0), None]);
        assert_eq!(decide(Deed::Charge, BALANCE_LIMIT - AMOUNT), Some(BALANCE_LIMIT));
        assert_eq!(decide(Deed::Charge, BALANCE_LIMIT), None);
    }

    #[test]
    fn requests_take_one_seat_after_another() {
        let cell = Cell {
            deed: Deed::Hold,
            way: Way::Version,
            contention: Contention::Extreme,
            callers: 1,
            seed: 1,
        };
        let choice = Choice::of(cell);
        let wanted = || choice.next(0, DateTime::UNIX_EPOCH).map(|request| request.place);
        assert_eq!(wanted(), Some(1));
        choice.gone(1);
        choice.gone(1);
        assert_eq!(wanted(), Some(2));
        (2..=SEATS).for_each(|place| choice.gone(place));
        assert_eq!(wanted(), None);
    }

    #[test]
    fn the_same_seed_makes_the_same_choices() {
        let places = |seed| {
            let cell =
                Cell { deed: Deed::Hold, way: Way::Version, contention: Contention::Low, callers: 1, seed };
            let choice = Choice::of(cell);
            (0..20)
                .filter_map(|nth| choice.next(nth, DateTime::UNIX_EPOCH))
                .map(|request| request.place)
                .collect::<Vec<_>>()
        };
        assert_eq!(places(1), places(1));
        assert_ne!(places(1), places(2));
    }

    #[test]
    fn whoever_uses_points_charges_less_again() {
        let all: Vec<Request> = (0..=USES).filter_map(|nth| asked(Deed::Use, Contention::Low, nth)).collect();
        let used: i64 = all.iter().filter(|asked| asked.deed == Deed::Use).map(|asked| asked.amount).sum();
        let charged: i64 =
            all.iter().filter(|asked| asked.deed == Deed::Charge).map(|asked| asked.amount).sum();
        assert!(0 < charged && charged < used, "{charged} {used}");
    }

    #[test]
    fn every_way_is_measured_for_every_case() {
        let all = Cell::all(3, 1);
        let names: std::collections::BTreeSet<_> =
            all.iter().map(|cell| (cell.case(), cell.way.name(), cell.contention.name())).collect();
        assert_eq!((all.len(), names.len()), (36, 36));
    }
}
