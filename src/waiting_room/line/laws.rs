//! Property tests of a line for every history of a bucket: watched once or several times, with gaps or without, the
//! line equals one computed from the last write of each key, and the rank of a waiting user never gets worse.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use chrono::{DateTime, Utc};
use proptest::prelude::*;

use super::super::place::{Entry, Place, PlaceStatus};
use super::queue::{Queue, View};
use crate::ids::UserId;

/// A write to a user's key. Its revision is its position in the history, from 1.
#[derive(Clone, Copy, Debug)]
pub enum Write {
    Join,
    Admit { seconds: i64 },
    Miss { seconds: i64 },
    Hear,
    Delete,
}

/// A message of the bucket; `None` is a deletion.
pub type Message = (UserId, u64, Option<Entry>);

pub const USERS: usize = 6;

pub fn at(seconds: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(1_900_000_000 + seconds, 0).unwrap_or_default()
}

pub fn person(number: u128) -> UserId {
    UserId::from_u128(number)
}

fn waiting(place: Place) -> Entry {
    Entry { revision: place, place, issued_at: at(0), status: PlaceStatus::Waiting }
}

fn active(place: Place, revision: u64, until: i64) -> Entry {
    let status = PlaceStatus::Active { activated_at: at(0), expires_at: at(until), used: false };
    Entry { revision, status, ..waiting(place) }
}

/// Any history, including impossible ones.
pub fn history() -> impl Strategy<Value = Vec<(usize, Write)>> {
    let write = prop_oneof![
        3 => Just(Write::Join),
        3 => (1i64..100).prop_map(|seconds| Write::Admit { seconds }),
        2 => (1i64..100).prop_map(|seconds| Write::Miss { seconds }),
        1 => Just(Write::Hear),
        2 => Just(Write::Delete),
    ];
    prop::collection::vec((0..USERS, write), 1..60)
}

/// Removes impossible writes: to a place that was admitted, does not exist, or exists already.
fn lawful(history: Vec<(usize, Write)>) -> Vec<(usize, Write)> {
    let mut stands: BTreeMap<usize, Write> = BTreeMap::new();
    let allowed = history.into_iter().filter(|(user, write)| {
        let allowed = matches!(
            (stands.get(user), write),
            (None, Write::Join)
                | (Some(_), Write::Delete)
                | (Some(Write::Join | Write::Hear), Write::Admit { .. } | Write::Miss { .. })
                | (Some(Write::Miss { .. }), Write::Hear)
        );
        if allowed {
            stands.insert(*user, *write);
        }
        if allowed && matches!(write, Write::Delete) {
            stands.remove(user);
        }
        allowed
    });
    allowed.collect()
}

/// The messages of a history.
pub fn messages_of(history: &[(usize, Write)]) -> Vec<Message> {
    let mut places: BTreeMap<usize, Place> = BTreeMap::new();
    let mut messages = Vec::new();
    for (index, (user, write)) in history.iter().enumerate() {
        let revision = index as u64 + 1;
        let known = *places.entry(*user).or_insert(revision);
        let (place, status) = match write {
            Write::Join => (revision, PlaceStatus::Waiting),
            Write::Admit { seconds } => (known, active(known, revision, *seconds).status),
            Write::Miss { seconds } => (known, PlaceStatus::Silent { grace_until: at(*seconds) }),
            Write::Hear => (known, PlaceStatus::Waiting),
            Write::Delete => {
                places.remove(user);
                messages.push((person(*user as u128), revision, None));
                continue;
            }
        };
        places.insert(*user, place);
        let entry = Entry { revision, status, ..waiting(place) };
        messages.push((person(*user as u128), revision, Some(entry)));
    }
    messages
}

fn deliver(queue: &mut Queue, messages: &[Message], replay: u32) {
    for (user, revision, entry) in messages {
        match entry {
            Some(entry) => queue.put(*user, *entry, replay, None),
            None => queue.delete(*user, *revision, at(0)),
        }
    }
}

/// The last message of each key, as a new watch shows them.
pub fn last_of_each(messages: &[Message]) -> Vec<Message> {
    let last: BTreeMap<UserId, u64> = messages.iter().map(|(user, revision, _)| (*user, *revision)).collect();
    messages.iter().filter(|(user, revision, _)| last[user] == *revision).copied().collect()
}

fn check(queue: &Queue, messages: &[Message]) {
    let last = last_of_each(messages);
    let status = |of: fn(&PlaceStatus) -> bool| {
        let entries = last.iter().filter_map(|(_, _, entry)| *entry);
        let mut entries: Vec<Entry> = entries.filter(|entry| of(&entry.status)).collect();
        entries.sort_by_key(|entry| entry.place);
        entries
    };
    let in_line = status(PlaceStatus::is_in_line);
    let ready = status(|status| *status == PlaceStatus::Waiting);
    assert_eq!(queue.active(), status(|status| !status.is_in_line()).len());
    assert_eq!((queue.waiting(), queue.silent()), (in_line.len(), in_line.len() - ready.len()));
    assert_eq!(queue.front().map(|(_, entry)| entry).collect::<Vec<_>>(), ready);
    for (user, revision, entry) in &last {
        let view = queue.view(*user);
        assert_eq!(view.entry, *entry);
        let rank = in_line.iter().position(|one| Some(*one) == *entry);
        assert_eq!(view.rank, rank.map(|rank| rank + 1));
        assert!(entry.is_some() || view.is_over(*revision));
    }
}

/// Checks that no rank is worse than the rank that was shown before.
fn look(queue: &Queue, shown: &mut HashMap<(UserId, Place), usize>) {
    for number in 0..USERS as u128 {
        let view = queue.view(person(number));
        if let (Some(entry), Some(rank)) = (view.entry, view.rank) {
            let before = shown.insert((person(number), entry.place), rank);
            assert!(before.is_none_or(|before| rank <= before), "{before:?} and then {rank}");
        }
    }
}

proptest! {
    #[test]
    fn a_line_is_what_its_bucket_says(history in history(), cut in 0usize..60, again in 0usize..60) {
        let messages = messages_of(&history);
        let cut = cut.min(messages.len());

        let mut live = Queue::default();
        deliver(&mut live, &messages, 1);
        check(&live, &messages);

        // An interruption: some messages come twice, and overwritten ones of the gap are missing.
        let mut resumed = Queue::default();
        deliver(&mut resumed, &messages[..cut], 1);
        let from = again.min(cut);
        deliver(&mut resumed, &messages[from..cut], 1);
        deliver(&mut resumed, &last_of_each(&messages), 2);
        resumed.remove_unconfirmed(2);
        check(&resumed, &messages);
    }

    #[test]
    fn a_shown_rank_never_gets_worse(
        history in history(),
        // After each message: is everything repeated, and does its owner give up the place here?
        also in prop::collection::vec((prop::bool::weighted(0.1), prop::bool::weighted(0.1)), 60),
    ) {
        let messages = messages_of(&lawful(history));
        let (mut queue, mut shown, mut replay) = (Queue::default(), HashMap::new(), 1);
        for (index, ((is_repeated, given_up), message)) in also.into_iter().zip(&messages).enumerate() {
            deliver(&mut queue, &[*message], replay);
            look(&queue, &mut shown);
            if let (true, (user, _, Some(entry))) = (given_up, message) {
                queue.end_locally(*user, entry.place, at(0));
                look(&queue, &mut shown);
            }
            if is_repeated {
                replay += 1;
                for one in last_of_each(&messages[..=index]) {
                    deliver(&mut queue, &[one], replay);
                    look(&queue, &mut shown);
                }
                queue.remove_unconfirmed(replay);
                look(&queue, &mut shown);
            }
        }
    }
}

#[test]
fn silent_place_is_skipped_and_expires_after_grace() {
    let mut queue = Queue::default();
    let silent = |revision| {
        let status = PlaceStatus::Silent { grace_until: at(30) };
        Entry { revision, status, ..waiting(1) }
    };
    queue.put(person(1), waiting(1), 0, None);
    queue.put(person(2), waiting(2), 0, None);
    queue.put(person(1), silent(3), 0, None);
    assert_eq!((queue.view(person(1)).rank, queue.view(person(2)).rank), (Some(1), Some(2)));
    assert_eq!(queue.front().map(|(user, _)| user).collect::<Vec<_>>(), [person(2)]);
    assert_eq!((queue.waiting(), queue.silent(), queue.next_end()), (2, 1, Some(at(30))));
    assert_eq!((queue.overdue(at(29), 10).len(), queue.overdue(at(30), 10).len()), (0, 1));
    queue.put(person(1), Entry { revision: 4, ..waiting(1) }, 0, None);
    assert_eq!((queue.silent(), queue.overdue(at(30), 10).len()), (0, 0));
    assert_eq!(queue.front().map(|(user, _)| user).collect::<Vec<_>>(), [person(1), person(2)]);
    queue.put(person(1), silent(5), 0, None);
    queue.end_locally(person(1), 1, at(1));
    assert_eq!((queue.waiting(), queue.silent()), (1, 0), "given up while silent");
    assert_eq!(queue.view(person(2)).rank, Some(1));
}

#[test]
fn silence_counts_from_the_last_heartbeat() {
    let mut queue = Queue::new(Duration::from_secs(60));
    queue.put(person(1), waiting(1), 0, None);
    queue.put(person(2), waiting(2), 0, Some(Duration::from_secs(100)));
    let silent = |queue: &Queue, now, anew| {
        let silent = queue.gone_silent(0, 10, now, anew);
        silent.into_iter().map(|(user, _)| user).collect::<Vec<_>>()
    };
    assert_eq!(silent(&queue, 161, 0), [person(1)], "a join is a word");
    assert!(silent(&queue, 161, 100).is_empty());
    assert_eq!(silent(&queue, 162, 100), [person(1), person(2)]);
    assert!(queue.trust(person(1), 211) && !queue.trust(person(1), 211), "known already");
    assert!(queue.trust(person(2), 221) && !queue.trust(person(9), 211));
    assert!(silent(&queue, 211, 0).is_empty());
    assert_eq!(silent(&queue, 212, 0), [person(1)]);
    assert_eq!(queue.trusted_for(person(2), 200), 21);
}

#[test]
fn only_news_are_counted_and_each_admission_once() {
    let mut queue = Queue::default();
    let second = Duration::from_secs(1);
    queue.put(person(1), waiting(1), 0, None);
    queue.put(person(2), waiting(2), 0, Some(second));
    queue.put(person(2), active(2, 3, 60), 0, Some(second));
    queue.put(person(2), active(2, 4, 90), 0, Some(second));
    assert_eq!((queue.counts.joined.total(second), queue.counts.admitted.total(second)), (1, 1));
}

#[test]
fn ended_waiter_leaves_and_ended_session_still_counts() {
    let mut queue = Queue::default();
    queue.put(person(1), waiting(5), 0, None);
    queue.put(person(2), waiting(6), 0, None);
    queue.put(person(3), active(1, 7, 60), 0, None);
    queue.end_locally(person(1), 5, at(1));
    queue.end_locally(person(3), 1, at(1));
    assert_eq!((queue.waiting(), queue.active()), (1, 1));
    assert_eq!(queue.view(person(2)).rank, Some(1));
    assert_eq!(queue.overdue(at(1), 10).len(), 2, "both are to be deleted");
    // A place that the watch has not shown yet.
    queue.end_locally(person(4), 9, at(1));
    queue.put(person(4), waiting(9), 0, None);
    assert_eq!((queue.waiting(), queue.overdue(at(1), 10).len()), (1, 3));
}

#[test]
fn old_ends_are_cleared_away() {
    let mut queue = Queue::default();
    queue.delete(person(1), 5, at(0));
    queue.delete(person(2), 6, at(100));
    assert_eq!(queue.old_markers(at(50), usize::MAX, 10), (vec![(person(1), 5)], None));
    assert_eq!(queue.purge_tombstones(at(50), usize::MAX, 10), None);
    assert!(!queue.view(person(1)).is_over(5) && queue.view(person(2)).is_over(6));
}

#[test]
fn million_waiters_take_under_100_bytes_each() {
    // An eighth of them. All arrays grow by doubling, so each user takes as much.
    const WAITERS: u64 = 1_000_000 / 8;
    let mut queue = Queue::new(Duration::from_secs(60));
    let taken = allocation_counter::measure(|| {
        (1..=WAITERS).for_each(|place| queue.put(person(place.into()), waiting(place), 0, None));
    });
    let bytes = taken.bytes_current / WAITERS.cast_signed();
    assert!((50..100).contains(&bytes), "{bytes} bytes each");
    assert_eq!(queue.view(person(WAITERS.into())).rank, Some(WAITERS as usize));
}

#[test]
fn replay_removes_places_it_does_not_show() {
    let mut queue = Queue::default();
    queue.put(person(1), waiting(1), 1, None);
    queue.put(person(2), waiting(2), 1, None);
    queue.put(person(2), waiting(2), 2, None);
    queue.put(person(3), waiting(3), 2, None);
    queue.remove_unconfirmed(2);
    assert_eq!(queue.front().map(|(user, _)| user).collect::<Vec<_>>(), [person(2), person(3)]);
    assert_eq!(queue.view(person(1)), View::default());
}
