//! A sorted list that knows every rank: inserting, removing and ranking cost O(log n).
//!
//! The places are in an array in their order, with a Fenwick tree that counts the present ones. New places are larger
//! than all others, so a join is a push. A place that comes late costs as much as there are places behind it. Removed
//! places stay as gaps until they are half of the array, which is then rebuilt. A skipped place keeps its rank.

/// Places in order, each with a value for the caller.
#[derive(Clone, Debug)]
pub struct RankedList<P, T> {
    slots: Vec<Slot<P, T>>,
    /// `tree[i]` counts the present slots in `(i + 1 - lowbit(i + 1))..=i`.
    tree: Vec<u32>,
    len: usize,
}

#[derive(Clone, Copy, Debug)]
struct Slot<P, T> {
    place: P,
    owner: T,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Present,
    Skipped,
    Gone,
}

impl<P, T> Slot<P, T> {
    fn is_there(&self) -> bool {
        self.state != State::Gone
    }
}

/// Gaps in a smaller array stay.
const SMALL: usize = 64;

impl<P, T> Default for RankedList<P, T> {
    fn default() -> Self {
        Self { slots: Vec::new(), tree: Vec::new(), len: 0 }
    }
}

impl<P: Copy + Ord, T: Copy> RankedList<P, T> {
    /// A list of places that are sorted and distinct. This costs O(n).
    pub fn from_sorted(all: impl IntoIterator<Item = (P, T)>) -> Self {
        let slot = |(place, owner)| Slot { place, owner, state: State::Present };
        let slots: Vec<_> = all.into_iter().map(slot).collect();
        let mut line = Self { len: slots.len(), slots, tree: Vec::new() };
        line.count_anew();
        line
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Inserts a place. Returns false if it is taken.
    pub fn insert(&mut self, place: P, owner: T) -> bool {
        match self.slots.last() {
            Some(last) if last.place >= place => self.insert_before_the_end(place, owner),
            _ => {
                self.slots.push(Slot { place, owner, state: State::Present });
                self.count_from(self.slots.len() - 1);
                self.len += 1;
                true
            }
        }
    }

    /// Removes a place. Returns false if it is not there.
    pub fn remove(&mut self, place: P) -> bool {
        let Some(index) = self.find(place) else {
            return false;
        };
        self.slots[index].state = State::Gone;
        self.add(index, false);
        self.len -= 1;
        if self.slots.len() >= SMALL && self.len < self.slots.len() / 2 {
            self.slots.retain(Slot::is_there);
            self.count_anew();
        }
        true
    }

    pub fn owner(&self, place: P) -> Option<T> {
        self.find(place).map(|index| self.slots[index].owner)
    }

    /// 1 is first; `None` if the place is not there.
    pub fn rank(&self, place: P) -> Option<usize> {
        self.find(place).map(|index| self.count_up_to(index))
    }

    /// Sets whether a place is skipped. Returns false if it is not there.
    pub fn set_skipped(&mut self, place: P, is_skipped: bool) -> bool {
        let Some(index) = self.find(place) else {
            return false;
        };
        self.slots[index].state = if is_skipped { State::Skipped } else { State::Present };
        true
    }

    /// All places with their values, from the front.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (P, T)> + '_ {
        self.slots_from_first().filter(|slot| slot.is_there()).map(|slot| (slot.place, slot.owner))
    }

    /// The places that are not skipped.
    pub fn ready(&self) -> impl Iterator<Item = (P, T)> + '_ {
        self.slots_from_first()
            .filter(|slot| slot.state == State::Present)
            .map(|slot| (slot.place, slot.owner))
    }

    fn slots_from_first(&self) -> impl DoubleEndedIterator<Item = &Slot<P, T>> + '_ {
        let start = if self.is_empty() { self.slots.len() } else { self.index_of_first() };
        self.slots[start..].iter()
    }

    fn find(&self, place: P) -> Option<usize> {
        let index = self.slots.binary_search_by_key(&place, |slot| slot.place).ok()?;
        self.slots[index].is_there().then_some(index)
    }

    fn insert_before_the_end(&mut self, place: P, owner: T) -> bool {
        let slot = Slot { place, owner, state: State::Present };
        match self.slots.binary_search_by_key(&place, |slot| slot.place) {
            Ok(index) if self.slots[index].is_there() => return false,
            Ok(index) => {
                self.slots[index] = slot;
                self.add(index, true);
            }
            Err(index) => {
                self.slots.insert(index, slot);
                self.count_from(index);
            }
        }
        self.len += 1;
        true
    }

    /// Rebuilds the tree from this slot on. Each node is the sum of its slot and of the nodes that it covers; earlier
    /// nodes do not depend on later ones.
    fn count_from(&mut self, index: usize) {
        self.tree.truncate(index);
        for slot in &self.slots[index..] {
            let node = self.tree.len() + 1;
            let low = lowbit(node);
            let mut sum = u32::from(slot.is_there());
            let mut step = 1;
            while step < low {
                sum += self.tree[node - step - 1];
                step *= 2;
            }
            self.tree.push(sum);
        }
    }

    fn add(&mut self, index: usize, present: bool) {
        let mut node = index + 1;
        while node <= self.tree.len() {
            let count = &mut self.tree[node - 1];
            *count = if present { *count + 1 } else { *count - 1 };
            node += lowbit(node);
        }
    }

    fn count_up_to(&self, index: usize) -> usize {
        let mut node = index + 1;
        let mut sum = 0;
        while node > 0 {
            sum += self.tree[node - 1] as usize;
            node -= lowbit(node);
        }
        sum
    }

    /// Descends the tree to the first present slot. The list must not be empty.
    fn index_of_first(&self) -> usize {
        let mut before = 0;
        let mut step = self.tree.len().next_power_of_two();
        while step > 0 {
            let node = before + step;
            if node <= self.tree.len() && self.tree[node - 1] == 0 {
                before = node;
            }
            step /= 2;
        }
        before
    }

    fn count_anew(&mut self) {
        self.tree = self.slots.iter().map(|slot| u32::from(slot.is_there())).collect();
        for node in 1..=self.tree.len() {
            let parent = node + lowbit(node);
            if parent <= self.tree.len() {
                self.tree[parent - 1] += self.tree[node - 1];
            }
        }
    }
}

fn lowbit(node: usize) -> usize {
    node & node.wrapping_neg()
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    use super::*;
    use crate::waiting_room::place::Place;

    /// The same list as a sorted map.
    fn check(line: &RankedList<Place, u32>, model: &BTreeMap<Place, u32>, passed_over: &BTreeSet<Place>) {
        assert_eq!(line.len(), model.len());
        assert_eq!(line.is_empty(), model.is_empty());
        let ours: Vec<_> = line.iter().collect();
        let theirs: Vec<_> = model.iter().map(|(place, owner)| (*place, *owner)).collect();
        assert_eq!(ours, theirs);
        let ready: Vec<Place> = line.ready().map(|(place, _)| place).collect();
        let theirs: Vec<Place> = model.keys().filter(|place| !passed_over.contains(place)).copied().collect();
        assert_eq!(ready, theirs);
        for (index, place) in model.keys().enumerate() {
            assert_eq!(line.rank(*place), Some(index + 1));
        }
    }

    #[derive(Clone, Debug)]
    enum Act {
        Join(u32),
        JoinLate(Place, u32),
        Leave(usize),
        LeaveFront,
        PassOver(usize, bool),
    }

    fn acts() -> impl Strategy<Value = Vec<Act>> {
        let act = prop_oneof![
            6 => any::<u32>().prop_map(Act::Join),
            1 => (0u64..400, any::<u32>()).prop_map(|(place, owner)| Act::JoinLate(place, owner)),
            3 => any::<usize>().prop_map(Act::Leave),
            2 => Just(Act::LeaveFront),
            2 => (any::<usize>(), any::<bool>()).prop_map(|(at, over)| Act::PassOver(at, over)),
        ];
        prop::collection::vec(act, 0..400)
    }

    proptest! {
        #[test]
        fn it_agrees_with_a_sorted_map(acts in acts()) {
            let mut line = RankedList::default();
            let (mut model, mut passed_over) = (BTreeMap::new(), BTreeSet::new());
            let mut next = 1;
            for act in acts {
                match act {
                    Act::Join(owner) => {
                        next += 2;
                        prop_assert!(line.insert(next, owner));
                        model.insert(next, owner);
                    }
                    Act::JoinLate(place, owner) => {
                        let free = !model.contains_key(&place);
                        prop_assert_eq!(line.insert(place, owner), free);
                        model.entry(place).or_insert(owner);
                        next = next.max(place);
                    }
                    Act::Leave(at) if !model.is_empty() => {
                        let place = *model.keys().nth(at % model.len()).unwrap();
                        prop_assert!(line.remove(place));
                        prop_assert!(!line.remove(place));
                        prop_assert_eq!(line.rank(place), None);
                        prop_assert!(!line.set_skipped(place, true));
                        model.remove(&place);
                        passed_over.remove(&place);
                    }
                    Act::LeaveFront => {
                        if let Some((place, _)) = model.pop_first() {
                            prop_assert!(line.remove(place));
                            passed_over.remove(&place);
                        }
                    }
                    Act::PassOver(at, over) if !model.is_empty() => {
                        let place = *model.keys().nth(at % model.len()).unwrap();
                        prop_assert!(line.set_skipped(place, over));
                        if over { passed_over.insert(place) } else { passed_over.remove(&place) };
                    }
                    Act::PassOver(..) => prop_assert!(!line.set_skipped(7, true)),
                    Act::Leave(_) => prop_assert!(!line.remove(7)),
                }
            }
            check(&line, &model, &passed_over);
            check(&RankedList::from_sorted(model.clone()), &model, &BTreeSet::new());
        }
    }

    #[test]
    fn gaps_are_compacted() {
        let mut line = RankedList::default();
        for place in 1..=10_000u64 {
            line.insert(place, 0u32);
        }
        for place in 1..=9_990 {
            line.remove(place);
        }
        assert_eq!(line.len(), 10);
        assert!(line.slots.len() < 2 * SMALL, "{} slots for 10 places", line.slots.len());
        assert_eq!(line.rank(9_991), Some(1));
        assert_eq!(line.rank(10_000), Some(10));
    }

    #[test]
    fn restoring_before_newcomers_costs_like_growing() {
        let mut line = RankedList::default();
        (1_000_001..=1_000_003).for_each(|place| assert!(line.insert(place, 0u32)));
        // Counting all again for each would take minutes.
        (1..=100_000u64).for_each(|place| assert!(line.insert(place, 0)));
        assert_eq!((line.rank(100_000), line.rank(1_000_003)), (Some(100_000), Some(100_003)));
    }
}
