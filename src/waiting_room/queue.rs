//! One concert's line as this instance knows it: who waits at which rank, who is active, whose place is over.
//!
//! It mirrors the bucket: a change is applied in the order of its revision, and one that is older than what is
//! known of its key is ignored, because a watch that starts again tells everything once more.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::time::Duration;

use chrono::{DateTime, Utc};

use super::ends::{End, Ends};
use super::line::Line;
use super::place::{Entry, LONGEST_WAIT, Standing};
use super::rate::LastMinute;
use super::token::Place;
use crate::ids::UserId;

/// Everything known of one user in this line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct View {
    /// The place as last written, unless its key was deleted.
    pub entry: Option<Entry>,
    /// Which places are over.
    pub end: Option<End>,
    /// 1 is next; nothing unless waiting.
    pub rank: Option<usize>,
}

/// One concert's line.
#[derive(Debug, Default)]
pub struct Queue {
    line: Line<UserId>,
    entries: HashMap<UserId, Kept>,
    /// Everybody admitted whose key has not been deleted, by the end of the session: what counts for the cap.
    active: BTreeSet<(DateTime<Utc>, UserId)>,
    ends: Ends,
    /// Keys that still hold a place which is over: to be deleted.
    leftovers: HashSet<UserId>,
    /// Joins, as far as this instance has been watching.
    pub joined: LastMinute,
    /// Admissions, as far as this instance has been watching.
    pub admitted: LastMinute,
}

#[derive(Clone, Copy, Debug)]
struct Kept {
    entry: Entry,
    /// The replay that last told of this key.
    replay: u32,
}

impl View {
    /// Whether this place is known to be over.
    pub fn is_over(&self, place: Place) -> bool {
        self.end.is_some_and(|end| end.up_to >= place)
    }
}

impl Queue {
    /// Applies a written place. `since_start` is given for news, and not for what a first replay tells.
    pub fn put(&mut self, user: UserId, entry: Entry, replay: u32, since_start: Option<Duration>) {
        let before = match self.entries.get_mut(&user) {
            Some(kept) if kept.entry.revision >= entry.revision => {
                kept.replay = replay;
                return;
            }
            Some(kept) => Some(kept.entry),
            None => None,
        };
        if self.ends.is_deleted_since(user, entry.revision) {
            return;
        }
        if let Some(before) = before {
            self.unlist(user, &before);
        }
        if let Some(since_start) = since_start {
            self.count(before.as_ref(), &entry, since_start);
        }
        self.entries.insert(user, Kept { entry, replay });
        if self.ends.covers(user, entry.place) {
            self.leftovers.insert(user);
        }
        self.list(user, &entry);
    }

    /// Applies the deletion of a key: every place of this user so far is over.
    pub fn delete(&mut self, user: UserId, marker: u64, at: DateTime<Utc>) {
        if self.entries.get(&user).is_some_and(|kept| kept.entry.revision > marker) {
            return;
        }
        self.drop_entry(user);
        self.ends.delete(user, marker, at);
    }

    /// Ends a place for this instance before the end is written down. A waiter leaves the line at once; a session
    /// keeps counting for the cap until its deletion has been seen.
    pub fn bar(&mut self, user: UserId, place: Place, at: DateTime<Utc>) {
        self.ends.bar(user, place, at);
        let Some(entry) = self.entries.get(&user).map(|kept| kept.entry) else {
            return;
        };
        if self.ends.covers(user, entry.place) {
            self.line.remove(entry.place);
            self.leftovers.insert(user);
        }
    }

    /// After a complete replay: keys that it did not tell of are gone.
    pub fn forget_untold(&mut self, replay: u32) {
        let gone: Vec<UserId> =
            self.entries.iter().filter(|(_, kept)| kept.replay != replay).map(|(user, _)| *user).collect();
        for user in gone {
            self.drop_entry(user);
        }
    }

    /// Drops what is known of ends before `before`: tokens of that time have run out by themselves.
    pub fn forget_ends(&mut self, before: DateTime<Utc>) {
        self.ends.forget(before);
    }

    /// Deletions seen before `before`, whose traces in the bucket can be cleared away: users and revisions.
    pub fn old_markers(&self, before: DateTime<Utc>, most: usize) -> Vec<(UserId, u64)> {
        let gone = self.ends.markers(before).filter(|(user, _)| !self.entries.contains_key(user));
        gone.take(most).collect()
    }

    /// Everything known of one user.
    pub fn view(&self, user: UserId) -> View {
        let entry = self.entries.get(&user).map(|kept| kept.entry);
        let rank = entry.and_then(|entry| self.line.rank(entry.place));
        View { entry, end: self.ends.of(user), rank }
    }

    /// Who is in line, from the front on.
    pub fn front(&self) -> impl Iterator<Item = (UserId, Entry)> + '_ {
        self.line.iter().filter_map(|(_, user)| Some((user, self.entries.get(&user)?.entry)))
    }

    /// Places whose key must be deleted: sessions that ran out, waits that took a day, ended places that lie there still.
    pub fn overdue(&self, now: DateTime<Utc>) -> Vec<(UserId, Entry)> {
        let sessions = self.active.iter().take_while(|(end, _)| *end <= now).map(|(_, user)| *user);
        let waits =
            self.front().take_while(|(_, entry)| entry.issued_at + LONGEST_WAIT <= now).map(|(user, _)| user);
        let users: BTreeSet<UserId> = sessions.chain(waits).chain(self.leftovers.iter().copied()).collect();
        users.into_iter().filter_map(|user| Some((user, self.entries.get(&user)?.entry))).collect()
    }

    /// When the next session runs out.
    pub fn next_end(&self) -> Option<DateTime<Utc>> {
        self.active.first().map(|(end, _)| *end)
    }

    /// How many wait.
    pub fn waiting(&self) -> usize {
        self.line.len()
    }

    /// How many count for the cap.
    pub fn active(&self) -> usize {
        self.active.len()
    }

    /// Whether nobody has a place here, and nobody's end is remembered.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.ends.is_empty()
    }

    fn count(&mut self, before: Option<&Entry>, entry: &Entry, since_start: Duration) {
        let was = before.filter(|before| before.place == entry.place).map(|before| before.standing);
        match (was, entry.standing) {
            (None, Standing::Waiting) => self.joined.count(since_start),
            (None | Some(Standing::Waiting), Standing::Active { .. }) => self.admitted.count(since_start),
            (Some(_), _) => (),
        }
    }

    fn list(&mut self, user: UserId, entry: &Entry) {
        match entry.standing {
            Standing::Waiting if self.leftovers.contains(&user) => (),
            Standing::Waiting => {
                self.line.insert(entry.place, user);
            }
            Standing::Active { expires_at, .. } => {
                self.active.insert((expires_at, user));
            }
        }
    }

    fn unlist(&mut self, user: UserId, entry: &Entry) {
        self.leftovers.remove(&user);
        match entry.standing {
            Standing::Waiting => {
                self.line.remove(entry.place);
            }
            Standing::Active { expires_at, .. } => {
                self.active.remove(&(expires_at, user));
            }
        }
    }

    fn drop_entry(&mut self, user: UserId) {
        if let Some(kept) = self.entries.remove(&user) {
            self.unlist(user, &kept.entry);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_900_000_000 + seconds, 0).unwrap()
    }

    fn waiting(place: Place) -> Entry {
        Entry { revision: place, place, issued_at: at(0), standing: Standing::Waiting }
    }

    fn active(place: Place, revision: u64, until: i64) -> Entry {
        let standing = Standing::Active { activated_at: at(0), expires_at: at(until), used: false };
        Entry { revision, place, issued_at: at(0), standing }
    }

    fn user(number: u128) -> UserId {
        UserId::from_u128(number)
    }

    #[test]
    fn ranks_follow_places_and_close_up() {
        let mut queue = Queue::default();
        for number in 1..=4u64 {
            queue.put(user(u128::from(number)), waiting(number * 10), 0, None);
        }
        assert_eq!(queue.view(user(3)).rank, Some(3));
        queue.put(user(1), active(10, 50, 60), 0, None);
        queue.delete(user(2), 51, at(1));
        assert_eq!(queue.view(user(3)).rank, Some(1));
        assert_eq!((queue.waiting(), queue.active()), (2, 1));
        assert_eq!(queue.front().map(|(user, _)| user).collect::<Vec<_>>(), [user(3), user(4)]);
    }

    #[test]
    fn what_is_older_than_what_is_known_changes_nothing() {
        let mut queue = Queue::default();
        queue.put(user(1), active(5, 9, 60), 0, None);
        queue.put(user(1), waiting(5), 0, None);
        assert_eq!((queue.waiting(), queue.active()), (0, 1));
        queue.delete(user(1), 8, at(1));
        assert_eq!(queue.active(), 1, "a deletion from before the last write");
        queue.delete(user(1), 12, at(1));
        queue.put(user(1), active(5, 9, 60), 0, None);
        assert_eq!(queue.active(), 0, "a write from before the deletion");
        assert!(queue.view(user(1)).is_over(12));
    }

    #[test]
    fn a_place_that_ended_never_comes_back_but_a_new_one_does() {
        let mut queue = Queue::default();
        queue.put(user(1), waiting(5), 0, None);
        queue.delete(user(1), 8, at(1));
        // An admission that was on its way when its owner left: it counts for the cap until it is deleted again.
        queue.put(user(1), active(5, 9, 60), 0, None);
        assert_eq!(queue.active(), 1);
        assert_eq!(queue.overdue(at(1)).len(), 1);
        queue.delete(user(1), 10, at(1));
        assert_eq!((queue.active(), queue.overdue(at(1)).len()), (0, 0));
        queue.put(user(1), waiting(11), 0, None);
        assert_eq!(queue.view(user(1)).rank, Some(1));
        assert!(queue.overdue(at(1)).is_empty());
    }

    #[test]
    fn a_barred_waiter_leaves_the_line_and_a_barred_session_keeps_its_place_taken() {
        let mut queue = Queue::default();
        queue.put(user(1), waiting(5), 0, None);
        queue.put(user(2), waiting(6), 0, None);
        queue.put(user(3), active(1, 7, 60), 0, None);
        queue.bar(user(1), 5, at(1));
        queue.bar(user(3), 1, at(1));
        assert_eq!((queue.waiting(), queue.active()), (1, 1));
        assert_eq!(queue.view(user(2)).rank, Some(1));
        assert_eq!(queue.overdue(at(1)).len(), 2, "both are to be deleted");
        // The place of a join that the watch has not told of yet.
        queue.bar(user(4), 9, at(1));
        queue.put(user(4), waiting(9), 0, None);
        assert_eq!((queue.waiting(), queue.overdue(at(1)).len()), (1, 3));
    }

    #[test]
    fn sessions_run_out_in_order_of_their_end() {
        let mut queue = Queue::default();
        queue.put(user(1), active(1, 11, 60), 0, None);
        queue.put(user(2), active(2, 12, 30), 0, None);
        assert_eq!(queue.next_end(), Some(at(30)));
        assert_eq!(queue.overdue(at(29)).len(), 0);
        assert_eq!(queue.overdue(at(30)).iter().map(|(user, _)| *user).collect::<Vec<_>>(), [user(2)]);
        queue.put(user(2), active(2, 13, 90), 0, None);
        assert_eq!(queue.next_end(), Some(at(60)), "a longer session replaces the shorter");
        assert_eq!(queue.active(), 2);
    }

    #[test]
    fn a_replay_drops_what_it_does_not_tell_of() {
        let mut queue = Queue::default();
        queue.put(user(1), waiting(1), 1, None);
        queue.put(user(2), waiting(2), 1, None);
        queue.put(user(2), waiting(2), 2, None);
        queue.put(user(3), waiting(3), 2, None);
        queue.forget_untold(2);
        assert_eq!(queue.front().map(|(user, _)| user).collect::<Vec<_>>(), [user(2), user(3)]);
        assert_eq!(queue.view(user(1)), View::default());
    }

    #[test]
    fn only_news_are_counted_and_each_admission_once() {
        let mut queue = Queue::default();
        let second = Duration::from_secs(1);
        queue.put(user(1), waiting(1), 0, None);
        queue.put(user(2), waiting(2), 0, Some(second));
        queue.put(user(2), active(2, 3, 60), 0, Some(second));
        queue.put(user(2), active(2, 4, 90), 0, Some(second));
        assert_eq!((queue.joined.total(second), queue.admitted.total(second)), (1, 1));
    }

    #[test]
    fn old_ends_are_cleared_away() {
        let mut queue = Queue::default();
        queue.delete(user(1), 5, at(0));
        queue.delete(user(2), 6, at(100));
        assert_eq!(queue.old_markers(at(50), 10), [(user(1), 5)]);
        queue.forget_ends(at(50));
        assert!(!queue.view(user(1)).is_over(5) && queue.view(user(2)).is_over(6));
    }
}
