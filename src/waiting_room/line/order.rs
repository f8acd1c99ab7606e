//! In which order those who wait are admitted: early comers by lot, then all others as they came.
//!
//! Until an opening has been drawn everybody stands in order of arrival, and who came early has no rank to tell.

use chrono::{DateTime, Utc};

use super::super::place::{Entry, Place, Standing};
use super::lot::{Drum, Lot, Number};
use super::ranks::Line;
use crate::ids::UserId;

/// Everybody who waits in one concert's line, each with something the caller wants back.
#[derive(Debug)]
pub struct Order<T> {
    /// Early comers in the order of the lot; nobody before the draw.
    drawn: Line<(Number, Place), T>,
    /// The same people in order of arrival.
    early: Line<Place, T>,
    /// All others, in order of arrival.
    late: Line<Place, T>,
    lot: Option<(Lot, Drum)>,
    /// The earliest that anybody came who was in line before the draw.
    earliest: Option<DateTime<Utc>>,
}

impl<T> Default for Order<T> {
    fn default() -> Self {
        let (drawn, early, late) = (Line::default(), Line::default(), Line::default());
        Self { drawn, early, late, lot: None, earliest: None }
    }
}

impl<T: Copy + PartialEq> Order<T> {
    /// How many wait.
    pub fn len(&self) -> usize {
        self.early.len() + self.late.len()
    }

    /// Whether nobody waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Puts somebody in line; false if the place is another owner's, whom it must not cost the place.
    pub fn insert(&mut self, user: UserId, entry: &Entry, owner: T) -> bool {
        let number = self.number(user, entry);
        let line = if number.is_some() { &mut self.early } else { &mut self.late };
        if !line.insert(entry.place, owner) && line.owner(entry.place) != Some(owner) {
            return false;
        }
        match number {
            Some(number) => {
                self.drawn.insert((number, entry.place), owner);
            }
            None => {
                self.earliest = Some(self.earliest.map_or(entry.issued_at, |at| at.min(entry.issued_at)));
            }
        }
        true
    }

    /// Takes somebody out of the line who may be in it.
    pub fn remove(&mut self, user: UserId, entry: &Entry) {
        match self.number(user, entry) {
            Some(number) => {
                self.early.remove(entry.place);
                self.drawn.remove((number, entry.place));
            }
            None => {
                self.late.remove(entry.place);
            }
        }
    }

    /// Whether somebody in line is passed over from now on.
    pub fn pass_over(&mut self, user: UserId, entry: &Entry, is_passed_over: bool) {
        match self.number(user, entry) {
            Some(number) => self.drawn.pass_over((number, entry.place), is_passed_over),
            None => self.late.pass_over(entry.place, is_passed_over),
        };
    }

    /// The rank of a place: 1 is next. Nothing if it is not in line.
    pub fn rank(&self, user: UserId, entry: &Entry) -> Option<usize> {
        match self.number(user, entry) {
            Some(number) => self.drawn.rank((number, entry.place)),
            None => self.late.rank(entry.place).map(|rank| self.drawn.len() + rank),
        }
    }

    /// Who waits, from the front on.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = T> + '_ {
        self.drawn.iter().map(|(_, owner)| owner).chain(self.late.iter().map(|(_, owner)| owner))
    }

    /// The same without those who are passed over.
    pub fn ready(&self) -> impl Iterator<Item = T> + '_ {
        self.drawn.ready().map(|(_, owner)| owner).chain(self.late.ready().map(|(_, owner)| owner))
    }

    /// Who waits, in order of arrival.
    pub fn by_arrival(&self) -> impl Iterator<Item = T> + '_ {
        self.early.iter().chain(self.late.iter()).map(|(_, owner)| owner)
    }

    /// Whether the order is the one of this lot: it was drawn, or nobody came before its opening.
    pub fn is_of(&self, lot: &Lot) -> bool {
        match &self.lot {
            Some((drawn, _)) => drawn == lot,
            None => self.late.is_empty() || self.earliest.is_none_or(|at| !lot.is_early(at)),
        }
    }

    /// Orders everybody who waits by this lot.
    pub fn draw(&mut self, lot: Lot, waiting: impl IntoIterator<Item = (UserId, Entry, T)>) {
        let drum = lot.drum();
        let waiting: Vec<_> = waiting.into_iter().collect();
        let is_silent = |(_, entry, _): &&(UserId, Entry, T)| entry.standing != Standing::Waiting;
        let silent: Vec<_> = waiting.iter().filter(is_silent).copied().collect();
        let (mut early, mut late): (Vec<_>, Vec<_>) =
            waiting.into_iter().partition(|(_, entry, _)| lot.is_early(entry.issued_at));
        early.sort_unstable_by_key(|(_, entry, _)| entry.place);
        late.sort_unstable_by_key(|(_, entry, _)| entry.place);
        let number = |(user, entry, owner): &(UserId, Entry, T)| ((drum.number(*user), entry.place), *owner);
        let mut drawn: Vec<_> = early.iter().map(number).collect();
        drawn.sort_unstable_by_key(|(number, _)| *number);
        let by_place = |all: Vec<(UserId, Entry, T)>| {
            Line::from_sorted(all.into_iter().map(|(_, entry, owner)| (entry.place, owner)))
        };
        *self = Self {
            drawn: Line::from_sorted(drawn),
            early: by_place(early),
            late: by_place(late),
            lot: Some((lot, drum)),
            earliest: None,
        };
        for (user, entry, _) in silent {
            self.pass_over(user, &entry, true);
        }
    }

    /// The number of somebody who came before an opening that has been drawn.
    fn number(&self, user: UserId, entry: &Entry) -> Option<Number> {
        let (lot, drum) = self.lot.as_ref()?;
        lot.is_early(entry.issued_at).then(|| drum.number(user))
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use proptest::prelude::*;

    use super::*;
    fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_900_000_000 + seconds, 0).unwrap()
    }

    fn waiting(place: Place, issued: i64) -> Entry {
        Entry { revision: place, place, issued_at: at(issued), standing: Standing::Waiting }
    }

    fn user(number: u64) -> UserId {
        UserId::from_u128(number.into())
    }

    fn lot(opens_at: i64) -> Lot {
        Lot::new(&[7; 32], at(opens_at), true)
    }

    /// Early before late, early ones by their number, then by place.
    fn by_hand(lot: &Lot, mut all: Vec<(UserId, Entry)>) -> Vec<UserId> {
        all.sort_by_key(|(user, entry)| {
            let is_early = lot.is_early(entry.issued_at);
            (!is_early, is_early.then(|| lot.drum().number(*user)), entry.place)
        });
        all.into_iter().map(|(user, _)| user).collect()
    }

    proptest! {
        #[test]
        fn it_is_the_same_whenever_it_is_drawn(
            all in prop::collection::btree_map(1u64..500, 0i64..100, 0..80),
            leavers in prop::collection::vec(any::<prop::sample::Index>(), 0..20),
            cut in any::<prop::sample::Index>(),
        ) {
            let lot = lot(50);
            let mut everybody: Vec<_> =
                all.into_iter().map(|(place, issued)| (user(place), waiting(place, issued))).collect();
            let mut order = Order::default();
            let cut = if everybody.is_empty() { 0 } else { cut.index(everybody.len()) };
            for (user, entry) in &everybody[..cut] {
                order.insert(*user, entry, *user);
            }
            order.draw(lot, everybody[..cut].iter().map(|(user, entry)| (*user, *entry, *user)));
            // These were on their way, or came later.
            for (user, entry) in &everybody[cut..] {
                order.insert(*user, entry, *user);
            }
            for leaver in leavers {
                if !everybody.is_empty() {
                    let (user, entry) = everybody.remove(leaver.index(everybody.len()));
                    order.remove(user, &entry);
                    prop_assert_eq!(order.rank(user, &entry), None);
                }
            }
            let expected = by_hand(&lot, everybody.clone());
            prop_assert_eq!(order.iter().collect::<Vec<_>>(), expected.as_slice());
            prop_assert_eq!(order.iter().next_back(), expected.last().copied());
            prop_assert_eq!(order.len(), everybody.len());
            for (user, entry) in &everybody {
                let rank = expected.iter().position(|one| one == user).map(|index| index + 1);
                prop_assert_eq!(order.rank(*user, entry), rank);
            }
        }
    }

    #[test]
    fn a_line_is_of_an_opening_once_it_is_drawn_or_if_nobody_came_before() {
        let mut order = Order::default();
        assert!(order.is_of(&lot(50)));
        order.insert(user(1), &waiting(1, 60), 1);
        assert!(order.is_of(&lot(50)) && order.is_of(&lot(60)));
        order.insert(user(2), &waiting(2, 40), 2);
        assert!(!order.is_of(&lot(50)) && order.is_of(&lot(40)));
        let all = [(user(1), waiting(1, 60), 1), (user(2), waiting(2, 40), 2)];
        order.draw(lot(50), all);
        assert!(order.is_of(&lot(50)) && !order.is_of(&lot(40)));
        order.pass_over(user(2), &all[1].1, true);
        assert_eq!((order.ready().collect::<Vec<_>>(), order.rank(user(1), &all[0].1)), (vec![1], Some(2)));
        assert_eq!(order.iter().collect::<Vec<_>>(), [2, 1]);
        assert_eq!(order.by_arrival().next(), Some(2));
        let silent = Standing::Silent { grace_until: at(100) };
        let kept = [all[0], (all[1].0, Entry { standing: silent, ..all[1].1 }, 2)];
        order.draw(lot(90), kept);
        assert_eq!(order.ready().collect::<Vec<_>>(), [1], "who is silent stays passed over");
        order.draw(lot(90), all);
        assert!(order.is_of(&lot(90)));
        let drum = lot(90).drum();
        let first = if drum.number(user(1)) < drum.number(user(2)) { 1 } else { 2 };
        assert_eq!(order.iter().next(), Some(first), "now both are early");
    }

    #[test]
    fn two_hundred_thousand_are_drawn_in_one_go() {
        let all: Vec<_> = (1..=200_000).map(|place| (user(place), waiting(place, 0))).collect();
        let mut order = Order::default();
        for (user, entry) in &all {
            order.insert(*user, entry, ());
        }
        let start = Instant::now();
        order.draw(lot(50), all.iter().map(|(user, entry)| (*user, *entry, ())));
        let took = start.elapsed();
        println!("drawn in {took:?}");
        // An optimised build takes less than a tenth of a second; one insertion after another would take minutes.
        assert!(took < Duration::from_secs(10), "{took:?}");
        assert_eq!(order.len(), 200_000);
    }
}
