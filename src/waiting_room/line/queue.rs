//! One concert's line as this instance knows it: who waits at which rank, who is active, whose place is over.
//!
//! It mirrors the bucket: a change is applied in the order of its revision, and one that is older than what is
//! known of its key is ignored, because a watch that starts again tells everything once more.

use std::collections::{BTreeSet, HashSet};
use std::time::Duration;

use chrono::{DateTime, Utc};

use super::super::place::{Entry, LONGEST_WAIT, Place, Standing};
use super::changes::Change;
use super::deadlines::Deadlines;
use super::ends::Ends;
use super::entries::{Entries, Handle};
use super::lot::Lot;
use super::order::Order;
use super::pause::{longest_patience, seconds};
use super::tally::Tally;
use crate::clock::plus;
use crate::ids::UserId;

pub use super::view::View;

/// One concert's line.
#[derive(Debug, Default)]
pub struct Queue {
    /// The shortest silence that means anything.
    shortest: Duration,
    line: Order<Handle>,
    entries: Entries,
    /// Everybody admitted whose key has not been deleted, by the end of the session: what counts for the cap.
    active: Deadlines,
    /// Everybody in line who went silent, by the end of the grace.
    silent: Deadlines,
    ends: Ends,
    /// Keys that still hold a place which is over: to be deleted.
    leftovers: HashSet<UserId>,
    /// What happened here lately.
    pub tally: Tally,
}

impl Queue {
    /// Nobody is here yet. A silence of less than `shortest` means nothing.
    pub fn new(shortest: Duration) -> Self {
        Self { shortest, ..Self::default() }
    }

    /// Applies a written place. `since_start` is given for news, and not for what a first replay tells.
    pub fn put(&mut self, user: UserId, entry: Entry, replay: u32, since_start: Option<Duration>) {
        let known = self.entries.find(user);
        let before = match known.map(|handle| (handle, self.entries.at(handle).1)) {
            Some((handle, before)) if before.revision >= entry.revision => {
                self.entries.retell(handle, replay);
                return;
            }
            Some((_, before)) => Some(before),
            None => None,
        };
        if self.ends.is_deleted_since(user, entry.revision) {
            return;
        }
        if let Some(before) = before {
            let is_same = before.place == entry.place && before.issued_at == entry.issued_at;
            let stays = is_same && entry.standing.is_in_line();
            self.unlist(user, &before, stays);
        }
        if let Some(since_start) = since_start {
            let was = before.filter(|before| before.place == entry.place).map(|before| before.standing);
            self.tally.note(was, entry.standing, since_start);
        }
        let handle = self.entries.put(user, entry, replay);
        if self.ends.covers(user, entry.place) {
            self.leftovers.insert(user);
        }
        self.list(user, handle, &entry);
        if let Some(since_start) = since_start
            && entry.standing == Standing::Waiting
        {
            // Written by an instance that has just heard of its owner.
            self.trust(user, seconds(since_start) + self.longest_patience());
        }
    }

    /// Applies the deletion of a key: every place of this user so far is over.
    pub fn delete(&mut self, user: UserId, marker: u64, at: DateTime<Utc>) {
        if self.entries.get(user).is_some_and(|entry| entry.revision > marker) {
            return;
        }
        self.drop_entry(user);
        self.ends.delete(user, marker, at);
    }

    /// Ends a place for this instance before the end is written down. A waiter leaves the line at once; a session
    /// keeps counting for the cap until its deletion has been seen.
    pub fn bar(&mut self, user: UserId, place: Place, at: DateTime<Utc>) {
        self.ends.bar(user, place, at);
        let Some(entry) = self.entries.get(user) else {
            return;
        };
        if self.ends.covers(user, entry.place) {
            self.unlist(user, &entry, false);
            self.leftovers.insert(user);
            if let Standing::Active { expires_at, .. } = entry.standing {
                self.active.insert(expires_at, user);
            }
        }
    }

    /// After a complete replay: keys that it did not tell of are gone; answers whose they were.
    pub fn forget_untold(&mut self, replay: u32) -> Vec<UserId> {
        let gone = self.entries.untold(replay);
        for user in &gone {
            self.drop_entry(*user);
        }
        gone
    }

    /// Drops what is known of ends before `before`, among `most` in front of `last`: tokens of that time have run out by
    /// themselves. Answers where to go on.
    pub fn forget_ends(&mut self, before: DateTime<Utc>, last: usize, most: usize) -> Option<usize> {
        self.ends.forget(before, last, most)
    }

    /// Deletions seen before `before`, whose traces in the bucket can be cleared away, among `most` in front of `last`:
    /// users and revisions; and where to go on.
    pub fn old_markers(
        &self,
        before: DateTime<Utc>,
        last: usize,
        most: usize,
    ) -> (Vec<(UserId, u64)>, Option<usize>) {
        let (mut gone, next) = self.ends.markers(before, last, most);
        gone.retain(|(user, _)| self.entries.find(*user).is_none());
        (gone, next)
    }

    /// The trace of that deletion lies in the bucket no more.
    pub fn clear_marker(&mut self, user: UserId, marker: u64) {
        self.ends.clear(user, marker);
    }

    /// Whose places were written after that revision, among `most` from `first` on; and where to go on.
    pub fn written_since(&self, revision: u64, first: Handle, most: usize) -> (Vec<UserId>, Option<Handle>) {
        self.entries.written_since(revision, first, most)
    }

    /// Whose places were deleted after that revision, among `most` in front of `last`; and where to go on.
    pub fn deleted_since(&self, revision: u64, last: usize, most: usize) -> (Vec<UserId>, Option<usize>) {
        self.ends.since(revision, last, most)
    }

    /// One user's place, and the end of the places before.
    pub fn place_of(&self, user: UserId) -> Change {
        Change { entry: self.entries.get(user), end: self.ends.of(user) }
    }

    /// Everything known of one user.
    pub fn view(&self, user: UserId) -> View {
        let entry = self.entries.get(user);
        let listed = entry.filter(|_| !self.leftovers.contains(&user));
        let rank = listed.and_then(|entry| self.line.rank(user, &entry));
        View { entry, end: self.ends.of(user), rank }
    }

    /// Notes that nothing needs to be heard of this user until that second since the start; answers whether that was not
    /// known yet. Nothing is noted of somebody who has no place here.
    pub fn trust(&self, user: UserId, until: u32) -> bool {
        self.entries.find(user).is_some_and(|handle| self.entries.trust(handle, until))
    }

    /// For how many seconds more nothing needs to be heard of this user.
    pub fn trusted_for(&self, user: UserId, now: u32) -> u32 {
        let until = self.entries.find(user).map_or(0, |handle| self.entries.trusted_until(handle));
        until.saturating_sub(now)
    }

    /// How many places have room here, taken or vacant: handles are below that.
    pub fn rooms(&self) -> usize {
        self.entries.rooms()
    }

    /// Those among `most` places from `first` on who wait and went silent. Nobody had anything to listen with before
    /// `anew`, so nobody's silence is counted from before it.
    pub fn gone_silent(&self, first: Handle, most: usize, now: u32, anew: u32) -> Vec<(UserId, Entry)> {
        if anew.saturating_add(self.longest_patience()) >= now {
            return Vec::new();
        }
        let doubtful = self.entries.doubtful(first, most, now).map(|handle| self.entries.at(handle));
        doubtful.filter(|(user, _)| !self.leftovers.contains(user)).collect()
    }

    /// Who can be admitted, from the front on.
    pub fn front(&self) -> impl Iterator<Item = (UserId, Entry)> + '_ {
        self.line.ready().map(|handle| self.entries.at(handle))
    }

    /// Who is in line, silent or not, from the back on.
    pub fn back(&self) -> impl Iterator<Item = (UserId, Entry)> + '_ {
        self.line.iter().rev().map(|handle| self.entries.at(handle))
    }

    /// Whether the ranks are those of this opening, see [`Order::is_of`].
    pub fn is_in_order(&self, lot: &Lot) -> bool {
        self.line.is_of(lot)
    }

    /// Orders the line by lot, once an opening has come.
    pub fn draw(&mut self, lot: Lot) {
        let kept: Vec<_> = self.line.iter().map(|handle| (self.entries.at(handle), handle)).collect();
        self.line.draw(lot, kept.into_iter().map(|((user, entry), handle)| (user, entry, handle)));
    }

    /// Places whose key must be deleted: sessions and graces that ran out, waits that took a day, ended places that lie
    /// there still. At most so many.
    pub fn overdue(&self, now: DateTime<Utc>, most: usize) -> Vec<(UserId, Entry)> {
        let line = self.line.by_arrival().map(|handle| self.entries.at(handle));
        let is_over = |entry: &Entry| plus(entry.issued_at, LONGEST_WAIT) <= now;
        // A place that claims to have been taken in the future must not hide those behind it.
        let waits = line.take_while(|(_, entry)| is_over(entry) || entry.issued_at > now);
        let waits = waits.filter(|(_, entry)| is_over(entry)).map(|(user, _)| user);
        let users: BTreeSet<UserId> = self
            .active
            .over(now)
            .take(most)
            .chain(self.silent.over(now).take(most))
            .chain(waits.take(most))
            .chain(self.leftovers.iter().copied())
            .collect();
        users.into_iter().take(most).filter_map(|user| Some((user, self.entries.get(user)?))).collect()
    }

    /// When the next session or grace runs out.
    pub fn next_end(&self) -> Option<DateTime<Utc>> {
        [self.active.next(), self.silent.next()].into_iter().flatten().min()
    }

    /// How many are in line, silent or not.
    pub fn waiting(&self) -> usize {
        self.line.len()
    }

    /// How many of those in line are silent.
    pub fn silent(&self) -> usize {
        self.silent.len()
    }

    /// Since when the one who came first waits.
    pub fn oldest(&self) -> Option<DateTime<Utc>> {
        self.line.by_arrival().next().map(|handle| self.entries.at(handle).1.issued_at)
    }

    /// Joins and admissions since then, of those who are here, see [`Entries::since`].
    pub fn since(&self, then: DateTime<Utc>) -> (u64, u64) {
        self.entries.since(then)
    }

    /// How many count for the cap.
    pub fn active(&self) -> usize {
        self.active.len()
    }

    /// Whether nobody has a place here, and nobody's end is remembered.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.ends.is_empty()
    }

    /// Lets time pass for the pace of this line, in which somebody could be admitted if `is_open`.
    pub fn pass_time(&mut self, since_start: Duration, is_open: bool) {
        self.tally.pace.pass(since_start, is_open && !self.line.is_empty());
    }

    /// Counts an end that is news, before it is applied.
    pub fn count_end(&mut self, user: UserId, at: DateTime<Utc>, since_start: Duration) {
        if let Some(entry) = self.entries.get(user) {
            self.tally.note_end(entry.standing, at, since_start);
        }
    }

    fn longest_patience(&self) -> u32 {
        longest_patience(self.line.len(), self.shortest)
    }

    fn list(&mut self, user: UserId, handle: Handle, entry: &Entry) {
        match entry.standing {
            Standing::Active { expires_at, .. } => {
                self.active.insert(expires_at, user);
            }
            Standing::Waiting | Standing::Silent { .. } => {
                if self.leftovers.contains(&user) {
                    return;
                }
                if !self.line.insert(user, entry, handle) {
                    // A record that names another user's place: its key is to be deleted.
                    self.leftovers.insert(user);
                    return;
                }
                self.line.pass_over(user, entry, entry.standing != Standing::Waiting);
                if let Standing::Silent { grace_until } = entry.standing {
                    self.silent.insert(grace_until, user);
                }
            }
        }
    }

    fn unlist(&mut self, user: UserId, entry: &Entry, stays_in_line: bool) {
        let was_in_line = !self.leftovers.remove(&user);
        match entry.standing {
            Standing::Active { expires_at, .. } => {
                self.active.remove(expires_at, user);
            }
            Standing::Waiting | Standing::Silent { .. } => {
                if let Standing::Silent { grace_until } = entry.standing {
                    self.silent.remove(grace_until, user);
                }
                if !stays_in_line && was_in_line {
                    self.line.remove(user, entry);
                }
            }
        }
    }

    fn drop_entry(&mut self, user: UserId) {
        if let Some(entry) = self.entries.get(user) {
            self.unlist(user, &entry, false);
            self.entries.remove(user);
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
        assert_eq!(queue.overdue(at(1), 10).len(), 1);
        queue.delete(user(1), 10, at(1));
        assert_eq!((queue.active(), queue.overdue(at(1), 10).len()), (0, 0));
        queue.put(user(1), waiting(11), 0, None);
        assert_eq!(queue.view(user(1)).rank, Some(1));
        assert!(queue.overdue(at(1), 10).is_empty());
    }
}
