//! Chooses the best free seats for a request that leaves the choice to the service. One pure function.
//!
//! Seats are next to each other if they have consecutive numbers in one row of one section. Seats are ordered by their rank,
//! then by their number; a group is as good as the last of its seats. So the best group of a list that was cut off is the
//! best group of all, if the list has one: a group with a seat outside of the list is worse.
//!
//! Accessible seats and their companion seats are for those who ask for them. Others get them only when there is no group
//! without them.

use crate::store::reservations::BestSeats;

/// A free seat that may be chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Candidate {
    pub number: i32,
    pub rank: i32,
    /// Seats of one row of one section have the same.
    pub row: u32,
    pub kind: SeatKind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum SeatKind {
    Ordinary,
    Companion,
    Accessible,
}

/// What a request gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Choice {
    /// These seats, by number.
    Seats(Vec<i32>),
    /// The list was cut off, and the rest may have what is wanted.
    CutOff,
    /// There are no such seats. The same request for this many seats would get them.
    None { largest_group: usize },
}

/// What seats a group may have.
struct Rule {
    allows: fn(SeatKind) -> bool,
    needs_accessible: bool,
}

/// For those who ask for an accessible seat: it and its companion seats first, then any seats beside it.
const FOR_ACCESS: [Rule; 2] = [
    Rule { allows: |kind| kind != SeatKind::Ordinary, needs_accessible: true },
    Rule { allows: |_| true, needs_accessible: true },
];
/// For all others: the accessible seats are offered last.
const FOR_OTHERS: [Rule; 2] = [
    Rule { allows: |kind| kind == SeatKind::Ordinary, needs_accessible: false },
    Rule { allows: |_| true, needs_accessible: false },
];

/// Chooses among the candidates, which are sorted by row and number, those for which `is_open`. A list is whole if no free seat
/// of the date, or of the wanted section, is missing.
pub(super) fn choose(
    candidates: &[Candidate],
    is_open: impl Fn(usize) -> bool,
    wanted: &BestSeats,
    is_whole: bool,
) -> Choice {
    let count = usize::try_from(wanted.count).unwrap_or(0);
    let open: Vec<&Candidate> =
        candidates.iter().enumerate().filter(|(at, _)| is_open(*at)).map(|(_, seat)| seat).collect();
    let rules = if wanted.accessible { &FOR_ACCESS } else { &FOR_OTHERS };
    match wanted.together {
        true => choose_group(&open, count, rules, is_whole),
        false => choose_single(open, count, wanted.accessible, is_whole),
    }
}

fn choose_group(open: &[&Candidate], count: usize, rules: &[Rule; 2], is_whole: bool) -> Choice {
    if let Some(group) = best_group(open, count, &rules[0]) {
        return Choice::Seats(group);
    }
    if !is_whole {
        return Choice::CutOff;
    }
    match best_group(open, count, &rules[1]) {
        Some(group) => Choice::Seats(group),
        None => Choice::None { largest_group: largest_group(open, &rules[1]) },
    }
}

/// The best of the groups of so many seats next to each other.
fn best_group(open: &[&Candidate], count: usize, rule: &Rule) -> Option<Vec<i32>> {
    let groups = runs(open, rule).flat_map(|run| run.windows(count.max(1)));
    let good = groups.filter(|group| !rule.needs_accessible || has_accessible(group));
    let best = good.min_by_key(|group| {
        let last = group.iter().map(|seat| (seat.rank, seat.number)).max();
        (last, group[0].number)
    });
    best.map(|group| group.iter().map(|seat| seat.number).collect())
}

/// How many seats the longest group has.
fn largest_group(open: &[&Candidate], rule: &Rule) -> usize {
    let good = runs(open, rule).filter(|run| !rule.needs_accessible || has_accessible(run));
    good.map(<[_]>::len).max().unwrap_or(0)
}

/// The longest groups of allowed seats next to each other.
fn runs<'a, 'b>(open: &'a [&'b Candidate], rule: &Rule) -> impl Iterator<Item = &'a [&'b Candidate]> {
    let allows = rule.allows;
    let is_next = move |one: &&Candidate, other: &&Candidate| {
        one.row == other.row
            && one.number.checked_add(1) == Some(other.number)
            && allows(one.kind)
            && allows(other.kind)
    };
    open.chunk_by(is_next).filter(move |run| allows(run[0].kind))
}

fn has_accessible(group: &[&Candidate]) -> bool {
    group.iter().any(|seat| seat.kind == SeatKind::Accessible)
}

/// The best seats wherever they are.
fn choose_single(mut open: Vec<&Candidate>, count: usize, accessible: bool, is_whole: bool) -> Choice {
    let is_ordinary = |seat: &&Candidate| seat.kind == SeatKind::Ordinary;
    open.sort_by_key(|seat| (!is_ordinary(seat), seat.rank, seat.number));
    if accessible {
        let first = open.iter().position(|seat| seat.kind == SeatKind::Accessible);
        match first {
            Some(first) => open[..=first].rotate_right(1),
            None if is_whole => return Choice::None { largest_group: 0 },
            None => return Choice::CutOff,
        }
    }
    let Some(chosen) = open.get(..count) else {
        return if is_whole { Choice::None { largest_group: open.len() } } else { Choice::CutOff };
    };
    let rest = if accessible { &chosen[1..] } else { chosen };
    if !is_whole && !rest.iter().all(is_ordinary) {
        return Choice::CutOff;
    }
    let mut numbers: Vec<i32> = chosen.iter().map(|seat| seat.number).collect();
    numbers.sort_unstable();
    Choice::Seats(numbers)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ordinary(number: i32) -> Candidate {
        Candidate { number, rank: 0, row: 0, kind: SeatKind::Ordinary }
    }

    fn wanted(count: i32) -> BestSeats {
        BestSeats { count, section: None, together: true, accessible: false }
    }

    fn all_open(candidates: &[Candidate], wanted: &BestSeats) -> Choice {
        choose(candidates, |_| true, wanted, true)
    }

    #[test]
    fn group_with_lowest_numbers_is_best() {
        let seats = [1, 3, 4, 6, 7, 8].map(ordinary);
        assert_eq!(all_open(&seats, &wanted(1)), Choice::Seats(vec![1]));
        assert_eq!(all_open(&seats, &wanted(2)), Choice::Seats(vec![3, 4]));
        assert_eq!(all_open(&seats, &wanted(3)), Choice::Seats(vec![6, 7, 8]));
        assert_eq!(all_open(&seats, &wanted(4)), Choice::None { largest_group: 3 });
        assert_eq!(all_open(&[], &wanted(1)), Choice::None { largest_group: 0 });
        assert_eq!(choose(&seats, |at| at != 4, &wanted(3), true), Choice::None { largest_group: 2 });
    }

    #[test]
    fn lower_rank_goes_before_lower_number() {
        let mut seats = [1, 2, 3, 4, 5, 6].map(ordinary);
        seats.iter_mut().for_each(|seat| seat.rank = if seat.number > 3 { 0 } else { 1 });
        assert_eq!(all_open(&seats, &wanted(2)), Choice::Seats(vec![4, 5]));
        // A group is as good as its last seat.
        assert_eq!(choose(&seats, |at| at != 4, &wanted(2), true), Choice::Seats(vec![1, 2]));
    }

    #[test]
    fn rows_end_groups() {
        let mut seats = [1, 2, 3, 4].map(ordinary);
        seats[2].row = 1;
        seats[3].row = 1;
        assert_eq!(all_open(&seats, &wanted(3)), Choice::None { largest_group: 2 });
    }

    #[test]
    fn apart_takes_the_first_seats() {
        let seats = [2, 4, 9].map(ordinary);
        let apart = BestSeats { together: false, ..wanted(2) };
        assert_eq!(all_open(&seats, &apart), Choice::Seats(vec![2, 4]));
        assert_eq!(all_open(&seats, &BestSeats { count: 4, ..apart }), Choice::None { largest_group: 3 });
    }

    #[test]
    fn accessible_seats_are_offered_last() {
        let mut seats = [1, 2, 3, 4, 5].map(ordinary);
        seats[0].kind = SeatKind::Accessible;
        seats[1].kind = SeatKind::Companion;
        assert_eq!(all_open(&seats, &wanted(1)), Choice::Seats(vec![3]));
        assert_eq!(all_open(&seats, &wanted(3)), Choice::Seats(vec![3, 4, 5]));
        assert_eq!(all_open(&seats, &wanted(4)), Choice::Seats(vec![1, 2, 3, 4]));
        let accessible = |count, together| BestSeats { count, section: None, together, accessible: true };
        assert_eq!(all_open(&seats, &accessible(2, true)), Choice::Seats(vec![1, 2]));
        assert_eq!(all_open(&seats, &accessible(3, true)), Choice::Seats(vec![1, 2, 3]));
        assert_eq!(all_open(&seats, &accessible(2, false)), Choice::Seats(vec![1, 3]));
        assert_eq!(
            choose(&seats, |at| at > 0, &accessible(1, true), true),
            Choice::None { largest_group: 0 }
        );
        assert_eq!(
            choose(&seats, |at| at > 0, &accessible(1, false), true),
            Choice::None { largest_group: 0 }
        );
    }

    /// Halls of a few rows with seats of all kinds, some of them taken, sorted as `choose` wants them.
    fn hall() -> impl Strategy<Value = Vec<Candidate>> {
        let kind = prop_oneof![
            5 => Just(SeatKind::Ordinary),
            1 => Just(SeatKind::Companion),
            1 => Just(SeatKind::Accessible),
        ];
        let seat = (0..3i32, kind, prop::bool::weighted(0.7));
        (prop::collection::vec(seat, 0..24), 1..9i32).prop_map(|(seats, row_length)| {
            let candidate = |(number, (rank, kind, is_free)): (i32, (i32, SeatKind, bool))| {
                let row = u32::try_from(number / row_length).unwrap_or_default();
                is_free.then_some(Candidate { number, rank, row, kind })
            };
            (0..).zip(seats).filter_map(candidate).collect()
        })
    }

    /// Every group that fits, found without cleverness.
    fn groups(seats: &[Candidate], wanted: &BestSeats) -> Vec<Vec<Candidate>> {
        let count = usize::try_from(wanted.count).unwrap();
        let is_group = |group: &&[Candidate]| {
            let apart =
                group.windows(2).any(|two| two[0].row != two[1].row || two[0].number + 1 != two[1].number);
            let accessible = group.iter().any(|seat| seat.kind == SeatKind::Accessible);
            !apart && (accessible || !wanted.accessible)
        };
        seats.windows(count).filter(is_group).map(<[_]>::to_vec).collect()
    }

    /// How bad a group is.
    fn badness(group: &[Candidate], wanted: &BestSeats) -> (bool, (i32, i32)) {
        let is_first_choice = |seat: &Candidate| (seat.kind == SeatKind::Ordinary) != wanted.accessible;
        let last = group.iter().map(|seat| (seat.rank, seat.number)).max().unwrap();
        (!group.iter().all(is_first_choice), last)
    }

    fn numbers(group: &[Candidate]) -> Vec<i32> {
        group.iter().map(|seat| seat.number).collect()
    }

    proptest! {
        /// A group is refused only if there is none, and no group is better than the chosen one.
        #[test]
        fn chosen_group_is_the_best(seats in hall(), count in 1..6i32, accessible: bool) {
            let wanted = BestSeats { accessible, ..wanted(count) };
            let fitting = groups(&seats, &wanted);
            match all_open(&seats, &wanted) {
                Choice::Seats(chosen) => {
                    let group = fitting.iter().find(|group| numbers(group) == chosen).unwrap();
                    prop_assert!(fitting.iter().all(|other| badness(group, &wanted) <= badness(other, &wanted)));
                }
                Choice::None { largest_group } => {
                    prop_assert!(fitting.is_empty() && largest_group < usize::try_from(count).unwrap());
                    let smaller = |count| groups(&seats, &BestSeats { count, ..wanted.clone() }).is_empty();
                    let largest = i32::try_from(largest_group).unwrap();
                    prop_assert!(largest == 0 || !smaller(largest));
                    prop_assert!(smaller(largest + 1));
                }
                Choice::CutOff => prop_assert!(false, "the list is whole"),
            }
        }

        /// A list that was cut off behind its best seats leads to the same choice, or says that it was cut off.
        #[test]
        fn cut_off_list_chooses_the_same(
            seats in hall(), count in 1..6i32, together: bool, accessible: bool, kept in 0..24usize,
        ) {
            let wanted = BestSeats { count, section: None, together, accessible };
            let mut best: Vec<&Candidate> = seats.iter().collect();
            best.sort_by_key(|seat| (seat.rank, seat.number));
            best.truncate(kept);
            let cut: Vec<Candidate> = seats.iter().filter(|seat| best.contains(seat)).cloned().collect();
            let choice = choose(&cut, |_| true, &wanted, cut.len() == seats.len());
            prop_assert!(choice == Choice::CutOff && cut.len() < seats.len() || choice == all_open(&seats, &wanted));
        }

        /// Seats apart are refused only if there are too few.
        #[test]
        fn seats_apart_are_refused_for_their_number(seats in hall(), count in 1..6i32) {
            let wanted = BestSeats { together: false, ..wanted(count) };
            match all_open(&seats, &wanted) {
                Choice::Seats(chosen) => {
                    prop_assert_eq!(chosen.len(), usize::try_from(count).unwrap());
                    prop_assert!(chosen.iter().all(|number| seats.iter().any(|seat| seat.number == *number)));
                }
                other => prop_assert_eq!(other, Choice::None { largest_group: seats.len() }),
            }
        }
    }
}
