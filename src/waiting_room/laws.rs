//! A law for every history of a bucket: told once or several times, with gaps or without, the line in memory is the
//! same as one worked out naively from the last write of each key.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use proptest::prelude::*;

use super::place::{Entry, Standing};
use super::queue::Queue;
use super::token::Place;
use crate::ids::UserId;

/// What happened to a user's key; the position in the history, counted from 1, is the revision.
#[derive(Clone, Copy, Debug)]
enum Write {
    Join,
    Admit { seconds: i64 },
    Delete,
}

const USERS: usize = 6;

fn at(seconds: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(1_900_000_000 + seconds, 0).unwrap_or_default()
}

fn history() -> impl Strategy<Value = Vec<(usize, Write)>> {
    let write = prop_oneof![
        3 => Just(Write::Join),
        3 => (1i64..100).prop_map(|seconds| Write::Admit { seconds }),
        2 => Just(Write::Delete),
    ];
    prop::collection::vec((0..USERS, write), 1..60)
}

/// The messages of a history, as the bucket tells them: `None` is a deletion.
fn told(history: &[(usize, Write)]) -> Vec<(UserId, u64, Option<Entry>)> {
    let mut places: BTreeMap<usize, Place> = BTreeMap::new();
    let mut messages = Vec::new();
    for (index, (user, write)) in history.iter().enumerate() {
        let revision = index as u64 + 1;
        let place = *places.entry(*user).or_insert(revision);
        let (place, standing) = match write {
            Write::Join => (revision, Standing::Waiting),
            Write::Admit { seconds } => {
                let standing =
                    Standing::Active { activated_at: at(0), expires_at: at(*seconds), used: false };
                (place, standing)
            }
            Write::Delete => {
                places.remove(user);
                messages.push((UserId::from_u128(*user as u128), revision, None));
                continue;
            }
        };
        places.insert(*user, place);
        let entry = Entry { revision, place, issued_at: at(0), standing };
        messages.push((UserId::from_u128(*user as u128), revision, Some(entry)));
    }
    messages
}

fn tell(queue: &mut Queue, messages: &[(UserId, u64, Option<Entry>)], replay: u32) {
    for (user, revision, entry) in messages {
        match entry {
            Some(entry) => queue.put(*user, *entry, replay, None),
            None => queue.delete(*user, *revision, at(0)),
        }
    }
}

/// The last message of each key, in order: what a fresh watch tells.
fn last_of_each(messages: &[(UserId, u64, Option<Entry>)]) -> Vec<(UserId, u64, Option<Entry>)> {
    let last: BTreeMap<UserId, u64> = messages.iter().map(|(user, revision, _)| (*user, *revision)).collect();
    messages.iter().filter(|(user, revision, _)| last[user] == *revision).copied().collect()
}

fn check(queue: &Queue, messages: &[(UserId, u64, Option<Entry>)]) {
    let last = last_of_each(messages);
    let mut waiting: Vec<Entry> = last
        .iter()
        .filter_map(|(_, _, entry)| entry.filter(|entry| entry.standing == Standing::Waiting))
        .collect();
    waiting.sort_by_key(|entry| entry.place);
    let active = last.iter().filter(|(_, _, entry)| entry.is_some_and(|e| e.standing != Standing::Waiting));
    assert_eq!(queue.active(), active.count());
    assert_eq!(queue.front().map(|(_, entry)| entry).collect::<Vec<_>>(), waiting);
    for (user, revision, entry) in &last {
        let view = queue.view(*user);
        assert_eq!(view.entry, *entry);
        let rank = waiting.iter().position(|one| Some(*one) == *entry);
        assert_eq!(view.rank, rank.map(|rank| rank + 1));
        assert!(entry.is_some() || view.is_over(*revision));
    }
}

proptest! {
    #[test]
    fn a_line_is_what_its_bucket_says(history in history(), cut in 0usize..60, again in 0usize..60) {
        let messages = told(&history);
        let cut = cut.min(messages.len());

        let mut live = Queue::default();
        tell(&mut live, &messages, 1);
        check(&live, &messages);

        // An interruption: some messages twice, the overwritten ones of the gap never.
        let mut resumed = Queue::default();
        tell(&mut resumed, &messages[..cut], 1);
        let from = again.min(cut);
        tell(&mut resumed, &messages[from..cut], 1);
        tell(&mut resumed, &last_of_each(&messages), 2);
        resumed.forget_untold(2);
        check(&resumed, &messages);
    }
}
