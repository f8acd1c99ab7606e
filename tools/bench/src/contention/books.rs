//! Compares the answers to the callers with the tables: no seat is sold twice, no change is lost, no balance is below zero.
//! At least one request must be granted: a way that refuses everything is fast, and useless.

use std::collections::{BTreeMap, BTreeSet};

use uuid::Uuid;

use super::arena::Arena;
use super::cell::POINTS;
use crate::store::rivals::{self, Books, Deed, Request};

/// Everything that was granted.
#[derive(Clone, Debug, Default)]
pub struct Acknowledged {
    holds: Vec<(i32, Uuid)>,
    entries: i64,
    charged: i64,
    used: i64,
}

impl Acknowledged {
    /// Notes that a request was granted.
    pub fn granted(&mut self, request: &Request) {
        match request.deed {
            Deed::Hold => self.holds.push((request.place, request.id)),
            Deed::Charge => self.charged += request.amount,
            Deed::Use => self.used += request.amount,
        }
        self.entries += i64::from(request.deed != Deed::Hold);
    }

    /// Whether nothing of what this is about was granted. Every way grants some requests while rows have stock.
    pub fn is_nothing(&self, deed: Deed) -> bool {
        match deed {
            Deed::Hold => self.holds.is_empty(),
            Deed::Charge => self.charged == 0,
            Deed::Use => self.used == 0,
        }
    }

    /// How much is wrong in the tables of the arena, if this is all that was granted since they were made ready.
    pub async fn check(&self, arena: &Arena, deed: Deed) -> anyhow::Result<u64> {
        Ok(match deed {
            Deed::Hold => self.wrong_seats(&rivals::holders(arena.pool()).await?),
            Deed::Charge | Deed::Use => self.wrong_books(rivals::books(arena.pool(), POINTS).await?),
        })
    }

    /// Counts callers that were granted a seat that another caller holds, and seats whose holder got no such answer.
    fn wrong_seats(&self, holders: &[(i32, Uuid)]) -> u64 {
        let holders: BTreeMap<i32, Uuid> = holders.iter().copied().collect();
        let lost = self.holds.iter().filter(|(place, id)| holders.get(place) != Some(id)).count();
        let acknowledged: BTreeSet<&(i32, Uuid)> = self.holds.iter().collect();
        let unacknowledged =
            holders.iter().filter(|(place, id)| !acknowledged.contains(&(**place, **id))).count();
        (lost + unacknowledged) as u64
    }

    /// Counts inconsistent accounts, and the difference between the ledger and the answers.
    fn wrong_books(&self, books: Books) -> u64 {
        let Books { entries, charged, used, broken } = books;
        let same_amount = (charged, used) == (self.charged, self.used);
        let unlike = entries.abs_diff(self.entries).max(u64::from(!same_amount));
        broken.unsigned_abs() + unlike
    }
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;

    use super::*;

    #[test]
    fn seats_given_twice_or_unannounced_are_wrong() {
        let [one, other] = [1, 2].map(Uuid::from_u128);
        let acknowledged = Acknowledged { holds: vec![(1, one), (2, other)], ..Acknowledged::default() };
        assert_eq!(acknowledged.wrong_seats(&[(1, one), (2, other)]), 0);
        assert_eq!(acknowledged.wrong_seats(&[(1, one), (2, other), (3, one)]), 1);
        assert_eq!(acknowledged.wrong_seats(&[(1, one)]), 1);
        let twice = Acknowledged { holds: vec![(1, one), (1, other)], ..Acknowledged::default() };
        assert_eq!(twice.wrong_seats(&[(1, other)]), 1);
    }

    #[test]
    fn only_the_measured_deed_counts() {
        let deeds = [Deed::Hold, Deed::Charge, Deed::Use];
        let of = |acknowledged: &Acknowledged| deeds.map(|deed| acknowledged.is_nothing(deed));
        assert_eq!(of(&Acknowledged::default()), [true; 3]);
        // Who uses points charges some in between.
        let mut acknowledged = Acknowledged::default();
        acknowledged.granted(&Request {
            id: Uuid::nil(),
            deed: Deed::Charge,
            place: 1,
            amount: 5,
            at: DateTime::UNIX_EPOCH,
        });
        assert_eq!(of(&acknowledged), [true, false, true]);
    }

    #[test]
    fn a_ledger_that_says_something_else_is_wrong() {
        let acknowledged = Acknowledged { entries: 2, charged: 100, used: 50, ..Acknowledged::default() };
        let books = Books { entries: 2, charged: 100, used: 50, broken: 0 };
        assert_eq!(acknowledged.wrong_books(books), 0);
        assert_eq!(acknowledged.wrong_books(Books { entries: 3, ..books }), 1);
        assert_eq!(acknowledged.wrong_books(Books { charged: 90, ..books }), 1);
        assert_eq!(acknowledged.wrong_books(Books { broken: 2, ..books }), 2);
    }
}
