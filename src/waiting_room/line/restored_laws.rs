//! A property test for every history of a lost bucket: the restored line equals the line before, followed by the users
//! who joined meanwhile, and the rank of a waiting user never gets worse.

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;

use super::super::place::{Entry, PlaceStatus};
use super::laws::{Message, USERS, at, history, last_of_each, messages_of, person};
use super::memory::{BucketChange, Memory};
use crate::bus::incarnation;
use crate::ids::{ConcertId, UserId};

/// The message in a bucket with this first revision.
fn of_bucket(first: u64, (user, revision, entry): Message) -> Message {
    let entry = entry.map(|entry| Entry {
        revision: entry.revision - 1 + first,
        place: entry.place - 1 + first,
        ..entry
    });
    (user, revision - 1 + first, entry)
}

fn news((user, revision, entry): Message) -> BucketChange {
    let concert = ConcertId::nil();
    match entry {
        Some(entry) => BucketChange::Put { concert, user, entry },
        None => BucketChange::Deleted { concert, user, revision, at: at(0) },
    }
}

fn rank(memory: &Memory, user: UserId) -> Option<usize> {
    memory.view(ConcertId::nil(), user).rank
}

proptest! {
    #[test]
    fn restored_line_keeps_its_order_before_newcomers(
        history in history(),
        is_fresh in any::<bool>(),
        newcomers in prop::collection::vec(any::<bool>(), USERS),
        left_out in 0..USERS,
    ) {
        let [lost, present] = [7, 8].map(incarnation::first_revision);
        let before: Vec<_> = messages_of(&history).into_iter().map(|message| of_bucket(lost, message)).collect();
        let memory = Memory::new(Duration::ZERO);
        if !is_fresh {
            memory.begin_replay(7);
            memory.apply(&before.iter().copied().map(news).collect::<Vec<_>>());
            memory.end_replay();
        }
        memory.begin_replay(8);
        memory.end_replay();

        let living = |(user, _, entry): Message| Some((user, entry?));
        let mut survivors: Vec<_> = last_of_each(&before).into_iter().filter_map(living).collect();
        survivors.sort_by_key(|(_, entry)| entry.place);
        let spent = person(left_out as u128);
        let waiting = survivors.iter().filter(|(user, _)| *user != spent);
        let mut ranks: BTreeMap<UserId, usize> =
            waiting.filter_map(|(user, _)| Some((*user, rank(&memory, *user)?))).collect();
        let (mut expected, mut arrived, mut revision) = (Vec::new(), Vec::new(), present);
        for ((user, entry), comes) in survivors.into_iter().zip(newcomers) {
            if comes {
                let newcomer = person(1_000 + u128::from(revision));
                let place = Entry { revision, place: revision, status: PlaceStatus::Waiting, ..entry };
                memory.apply(&[news((newcomer, revision, Some(place)))]);
                arrived.push(newcomer);
                revision += 1;
            }
            let restored = (user != spent).then_some(Entry { revision, ..entry });
            memory.apply(&[news((user, revision, restored))]);
            let is_next = restored.is_some_and(|entry| entry.status == PlaceStatus::Waiting);
            expected.extend(is_next.then_some(user));
            revision += 1;
            for (user, before) in &mut ranks {
                let now = rank(&memory, *user).unwrap_or(usize::MAX);
                prop_assert!(now <= *before, "a shown rank never gets worse");
                *before = now;
            }
        }
        memory.apply(&[BucketChange::Restored { revision, journalled: present - 1 }]);
        expected.extend(arrived);
        let lines = memory.lines();
        let front: Option<Vec<UserId>> = lines.queue(ConcertId::nil()).map(|queue| queue.front().map(|(user, _)| user).collect());
        prop_assert_eq!(front.unwrap_or_default(), expected);
        prop_assert!(lines.epoch().is_restored());
    }
}
