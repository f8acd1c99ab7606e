//! The order in which users are admitted: those who joined before the opening by lottery, then all others by arrival.
//!
//! Before the lottery is drawn all users stand in order of arrival, and those who joined early see no rank.

use chrono::{DateTime, Utc};

use super::super::place::{Entry, Place, PlaceStatus};
use super::lottery::{Lottery, LotteryKey, Number};
use super::ranked_list::RankedList;
use crate::ids::UserId;

/// The waiting users of one line, each with a value for the caller.
#[derive(Debug)]
pub struct Order<T> {
    /// Early users in the order of the lottery; empty before it is drawn.
    drawn: RankedList<(Number, Place), T>,
    /// Early users in order of arrival.
    early: RankedList<Place, T>,
    /// All others, in order of arrival.
    late: RankedList<Place, T>,
    lottery: Option<(Lottery, LotteryKey)>,
    /// The earliest join of a user who was in line before the draw.
    earliest: Option<DateTime<Utc>>,
}

impl<T> Default for Order<T> {
    fn default() -> Self {
        let (drawn, early, late) = (RankedList::default(), RankedList::default(), RankedList::default());
        Self { drawn, early, late, lottery: None, earliest: None }
    }
}

impl<T: Copy + PartialEq> Order<T> {
    pub fn len(&self) -> usize {
        self.early.len() + self.late.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Adds a user. Returns false if another user has the place, which stays unchanged.
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

    /// Removes a user, if the user is in line.
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

    /// Sets whether a user is skipped by admission.
    pub fn set_skipped(&mut self, user: UserId, entry: &Entry, is_skipped: bool) {
        match self.number(user, entry) {
            Some(number) => self.drawn.set_skipped((number, entry.place), is_skipped),
            None => self.late.set_skipped(entry.place, is_skipped),
        };
    }

    /// 1 is next; `None` if the place is not in line.
    pub fn rank(&self, user: UserId, entry: &Entry) -> Option<usize> {
        match self.number(user, entry) {
            Some(number) => self.drawn.rank((number, entry.place)),
            None => self.late.rank(entry.place).map(|rank| self.drawn.len() + rank),
        }
    }

    /// All users, from the front.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = T> + '_ {
        self.drawn.iter().map(|(_, owner)| owner).chain(self.late.iter().map(|(_, owner)| owner))
    }

    /// The users that are not skipped, from the front.
    pub fn ready(&self) -> impl Iterator<Item = T> + '_ {
        self.drawn.ready().map(|(_, owner)| owner).chain(self.late.ready().map(|(_, owner)| owner))
    }

    /// All users, in order of arrival.
    pub fn by_arrival(&self) -> impl Iterator<Item = T> + '_ {
        self.early.iter().chain(self.late.iter()).map(|(_, owner)| owner)
    }

    /// Whether the line has the order of this lottery: it was drawn, or no user joined before its opening.
    pub fn is_of(&self, lottery: &Lottery) -> bool {
        match &self.lottery {
            Some((drawn, _)) => drawn == lottery,
            None => self.late.is_empty() || self.earliest.is_none_or(|at| !lottery.is_early(at)),
        }
    }

    /// Orders all users by this lottery.
    pub fn draw(&mut self, lottery: Lottery, waiting: impl IntoIterator<Item = (UserId, Entry, T)>) {
        let key = lottery.key();
        let waiting: Vec<_> = waiting.into_iter().collect();
        let is_silent = |(_, entry, _): &&(UserId, Entry, T)| entry.status != PlaceStatus::Waiting;
        let silent: Vec<_> = waiting.iter().filter(is_silent).copied().collect();
        let (mut early, mut late): (Vec<_>, Vec<_>) =
            waiting.into_iter().partition(|(_, entry, _)| lottery.is_early(entry.issued_at));
        early.sort_unstable_by_key(|(_, entry, _)| entry.place);
        late.sort_unstable_by_key(|(_, entry, _)| entry.place);
        let number = |(user, entry, owner): &(UserId, Entry, T)| ((key.number(*user), entry.place), *owner);
        let mut drawn: Vec<_> = early.iter().map(number).collect();
        drawn.sort_unstable_by_key(|(number, _)| *number);
        let by_place = |all: Vec<(UserId, Entry, T)>| {
            RankedList::from_sorted(all.into_iter().map(|(_, entry, owner)| (entry.place, owner)))
        };
        *self = Self {
            drawn: RankedList::from_sorted(drawn),
            early: by_place(early),
            late: by_place(late),
            lottery: Some((lottery, key)),
            earliest: None,
        };
        for (user, entry, _) in silent {
            self.set_skipped(user, &entry, true);
        }
    }

    /// The number of a user who takes part in the lottery that was drawn.
    fn number(&self, user: UserId, entry: &Entry) -> Option<Number> {
        let (lottery, key) = self.lottery.as_ref()?;
        lottery.is_early(entry.issued_at).then(|| key.number(user))
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
        Entry { revision: place, place, issued_at: at(issued), status: PlaceStatus::Waiting }
    }

    fn user(number: u64) -> UserId {
        UserId::from_u128(number.into())
    }

    fn lottery(opens_at: i64) -> Lottery {
        Lottery::new(&[7; 32], at(opens_at), true)
    }

    /// Early users first, by number and place; then all others by place.
    fn by_hand(lottery: &Lottery, mut all: Vec<(UserId, Entry)>) -> Vec<UserId> {
        all.sort_by_key(|(user, entry)| {
            let is_early = lottery.is_early(entry.issued_at);
            (!is_early, is_early.then(|| lottery.key().number(*user)), entry.place)
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
            let lottery = lottery(50);
            let mut entrants: Vec<_> =
                all.into_iter().map(|(place, issued)| (user(place), waiting(place, issued))).collect();
            let mut order = Order::default();
            let cut = if entrants.is_empty() { 0 } else { cut.index(entrants.len()) };
            for (user, entry) in &entrants[..cut] {
                order.insert(*user, entry, *user);
            }
            order.draw(lottery, entrants[..cut].iter().map(|(user, entry)| (*user, *entry, *user)));
            // These joins were under way, or came later.
            for (user, entry) in &entrants[cut..] {
                order.insert(*user, entry, *user);
            }
            for leaver in leavers {
                if !entrants.is_empty() {
                    let (user, entry) = entrants.remove(leaver.index(entrants.len()));
                    order.remove(user, &entry);
                    prop_assert_eq!(order.rank(user, &entry), None);
                }
            }
            let expected = by_hand(&lottery, entrants.clone());
            prop_assert_eq!(order.iter().collect::<Vec<_>>(), expected.as_slice());
            prop_assert_eq!(order.iter().next_back(), expected.last().copied());
            prop_assert_eq!(order.len(), entrants.len());
            for (user, entry) in &entrants {
                let rank = expected.iter().position(|one| one == user).map(|index| index + 1);
                prop_assert_eq!(order.rank(*user, entry), rank);
            }
        }
    }

    #[test]
    fn line_has_the_order_of_a_drawn_lottery() {
        let mut order = Order::default();
        assert!(order.is_of(&lottery(50)));
        order.insert(user(1), &waiting(1, 60), 1);
        assert!(order.is_of(&lottery(50)) && order.is_of(&lottery(60)));
        order.insert(user(2), &waiting(2, 40), 2);
        assert!(!order.is_of(&lottery(50)) && order.is_of(&lottery(40)));
        let all = [(user(1), waiting(1, 60), 1), (user(2), waiting(2, 40), 2)];
        order.draw(lottery(50), all);
        assert!(order.is_of(&lottery(50)) && !order.is_of(&lottery(40)));
        order.set_skipped(user(2), &all[1].1, true);
        assert_eq!((order.ready().collect::<Vec<_>>(), order.rank(user(1), &all[0].1)), (vec![1], Some(2)));
        assert_eq!(order.iter().collect::<Vec<_>>(), [2, 1]);
        assert_eq!(order.by_arrival().next(), Some(2));
        let silent = PlaceStatus::Silent { grace_until: at(100) };
        let kept = [all[0], (all[1].0, Entry { status: silent, ..all[1].1 }, 2)];
        order.draw(lottery(90), kept);
        assert_eq!(order.ready().collect::<Vec<_>>(), [1], "who is silent stays passed over");
        order.draw(lottery(90), all);
        assert!(order.is_of(&lottery(90)));
        let key = lottery(90).key();
        let first = if key.number(user(1)) < key.number(user(2)) { 1 } else { 2 };
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
        order.draw(lottery(50), all.iter().map(|(user, entry)| (*user, *entry, ())));
        let took = start.elapsed();
        println!("drawn in {took:?}");
        // An optimised build takes less than a tenth of a second. Single insertions would take minutes.
        assert!(took < Duration::from_secs(10), "{took:?}");
        assert_eq!(order.len(), 200_000);
    }
}
