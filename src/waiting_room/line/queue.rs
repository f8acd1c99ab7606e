//! One concert's line in memory: the rank of each waiting user, the active users, the places that have ended.
//!
//! It mirrors the bucket. Changes are applied in the order of their revisions. A change that is older than what is
//! known of its key is ignored, because a watch that starts again repeats everything.

use std::collections::{BTreeSet, HashSet};
use std::time::Duration;

use chrono::{DateTime, Utc};

use super::super::place::{Entry, LONGEST_WAIT, Place, PlaceStatus};
use super::changes::Change;
use super::counts::LineCounts;
use super::deadlines::Deadlines;
use super::entries::{Entries, Handle};
use super::lottery::Lottery;
use super::order::Order;
use super::poll_interval::{longest_trust, seconds};
use super::tombstones::Tombstones;
use crate::clock::plus;
use crate::ids::UserId;

pub use super::changes::View;

#[derive(Debug, Default)]
pub struct Queue {
    /// The shortest silence that counts.
    shortest: Duration,
    line: Order<Handle>,
    entries: Entries,
    /// Admitted users whose key has not been deleted, by the end of the session. They count for the cap.
    active: Deadlines,
    /// Silent users in line, by the end of their grace.
    silent: Deadlines,
    ends: Tombstones,
    /// Users whose key still holds a place that has ended. The key has to be deleted.
    leftovers: HashSet<UserId>,
    pub counts: LineCounts,
}

impl Queue {
    /// `shortest` is the shortest silence that counts.
    pub fn new(shortest: Duration) -> Self {
        Self { shortest, ..Self::default() }
    }

    /// Applies a written place. `since_start` is `None` for messages of a replay, which are not counted.
    pub fn put(&mut self, user: UserId, entry: Entry, replay: u32, since_start: Option<Duration>) {
        let known = self.entries.find(user);
        let before = match known.map(|handle| (handle, self.entries.at(handle).1)) {
            Some((handle, before)) if before.revision >= entry.revision => {
                self.entries.confirm(handle, replay);
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
            let stays = is_same && entry.status.is_in_line();
            self.unlist(user, &before, stays);
        }
        if let Some(since_start) = since_start {
            let was = before.filter(|before| before.place == entry.place).map(|before| before.status);
            self.counts.note(was, entry.status, since_start);
        }
        let handle = self.entries.put(user, entry, replay);
        if self.ends.covers(user, entry.place) {
            self.leftovers.insert(user);
        }
        self.list(user, handle, &entry);
        if let Some(since_start) = since_start
            && entry.status == PlaceStatus::Waiting
        {
            // The instance that wrote it has just received a heartbeat.
            self.trust(user, seconds(since_start) + self.longest_trust());
        }
    }

    /// Applies the deletion of a key: every place of this user up to it has ended.
    pub fn delete(&mut self, user: UserId, marker: u64, at: DateTime<Utc>) {
        if self.entries.get(user).is_some_and(|entry| entry.revision > marker) {
            return;
        }
        self.drop_entry(user);
        self.ends.delete(user, marker, at);
    }

    /// Ends a place on this instance before the bucket shows it. A waiting user leaves the line at once; a session
    /// counts for the cap until its deletion has been seen.
    pub fn end_locally(&mut self, user: UserId, place: Place, at: DateTime<Utc>) {
        self.ends.end_locally(user, place, at);
        let Some(entry) = self.entries.get(user) else {
            return;
        };
        if self.ends.covers(user, entry.place) {
            self.unlist(user, &entry, false);
            self.leftovers.insert(user);
            if let PlaceStatus::Active { expires_at, .. } = entry.status {
                self.active.insert(expires_at, user);
            }
        }
    }

    /// Removes the places that a complete replay did not show. Returns their users.
    pub fn remove_unconfirmed(&mut self, replay: u32) -> Vec<UserId> {
        let gone = self.entries.unconfirmed(replay);
        for user in &gone {
            self.drop_entry(*user);
        }
        gone
    }

    /// Removes tombstones older than `before`, among `most` in front of `last`. All tokens for them have expired.
    /// Returns where to continue.
    pub fn purge_tombstones(&mut self, before: DateTime<Utc>, last: usize, most: usize) -> Option<usize> {
        self.ends.forget(before, last, most)
    }

    /// Delete markers older than `before` that can be removed from the bucket, among `most` in front of `last`: users
    /// and revisions, and where to continue.
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

    /// The marker has been removed from the bucket.
    pub fn clear_marker(&mut self, user: UserId, marker: u64) {
        self.ends.clear(user, marker);
    }

    /// The users whose places were written after `revision`, among `most` slots from `first` on, and where to
    /// continue.
    pub fn written_since(&self, revision: u64, first: Handle, most: usize) -> (Vec<UserId>, Option<Handle>) {
        self.entries.written_since(revision, first, most)
    }

    /// The users whose places were deleted after `revision`, among `most` in front of `last`, and where to continue.
    pub fn deleted_since(&self, revision: u64, last: usize, most: usize) -> (Vec<UserId>, Option<usize>) {
        self.ends.since(revision, last, most)
    }

    /// The current state of a user's key, for the journal.
    pub fn place_of(&self, user: UserId) -> Change {
        Change { entry: self.entries.get(user), end: self.ends.of(user) }
    }

    pub fn view(&self, user: UserId) -> View {
        let entry = self.entries.get(user);
        let listed = entry.filter(|_| !self.leftovers.contains(&user));
        let rank = listed.and_then(|entry| self.line.rank(user, &entry));
        View { entry, end: self.ends.of(user), rank }
    }

    /// Trusts a user until this second since the start. Returns whether that is longer than before; false for a user
    /// without a place.
    pub fn trust(&self, user: UserId, until: u32) -> bool {
        self.entries.find(user).is_some_and(|handle| self.entries.trust(handle, until))
    }

    /// For how many more seconds a user is trusted.
    pub fn trusted_for(&self, user: UserId, now: u32) -> u32 {
        let until = self.entries.find(user).map_or(0, |handle| self.entries.trusted_until(handle));
        until.saturating_sub(now)
    }

    /// The number of slots; every handle is below it.
    pub fn slot_count(&self) -> usize {
        self.entries.slot_count()
    }

    /// The waiting users among `most` slots from `first` on who are no longer trusted. Silence counts only from the
    /// second `anew` on, because earlier heartbeats may have been missed.
    pub fn gone_silent(&self, first: Handle, most: usize, now: u32, anew: u32) -> Vec<(UserId, Entry)> {
        if anew.saturating_add(self.longest_trust()) >= now {
            return Vec::new();
        }
        let possibly_silent =
            self.entries.possibly_silent(first, most, now).map(|handle| self.entries.at(handle));
        possibly_silent.filter(|(user, _)| !self.leftovers.contains(user)).collect()
    }

    /// The users who can be admitted, from the front.
    pub fn front(&self) -> impl Iterator<Item = (UserId, Entry)> + '_ {
        self.line.ready().map(|handle| self.entries.at(handle))
    }

    /// All users in line, from the back.
    pub fn back(&self) -> impl Iterator<Item = (UserId, Entry)> + '_ {
        self.line.iter().rev().map(|handle| self.entries.at(handle))
    }

    /// See [`Order::is_of`].
    pub fn is_in_order(&self, lottery: &Lottery) -> bool {
        self.line.is_of(lottery)
    }

    pub fn draw(&mut self, lottery: Lottery) {
        let kept: Vec<_> = self.line.iter().map(|handle| (self.entries.at(handle), handle)).collect();
        self.line.draw(lottery, kept.into_iter().map(|((user, entry), handle)| (user, entry, handle)));
    }

    /// Places whose key has to be deleted: expired sessions and graces, waits of a day, ended places whose key still
    /// exists. At most `most`.
    pub fn overdue(&self, now: DateTime<Utc>, most: usize) -> Vec<(UserId, Entry)> {
        let line = self.line.by_arrival().map(|handle| self.entries.at(handle));
        let is_over = |entry: &Entry| plus(entry.issued_at, LONGEST_WAIT) <= now;
        // A place that claims to be from the future must not hide the places behind it.
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

    /// When the next session or grace expires.
    pub fn next_end(&self) -> Option<DateTime<Utc>> {
        [self.active.next(), self.silent.next()].into_iter().flatten().min()
    }

    /// How many users are in line, silent ones included.
    pub fn waiting(&self) -> usize {
        self.line.len()
    }

    pub fn silent(&self) -> usize {
        self.silent.len()
    }

    /// When the first of the waiting users joined.
    pub fn oldest(&self) -> Option<DateTime<Utc>> {
        self.line.by_arrival().next().map(|handle| self.entries.at(handle).1.issued_at)
    }

    /// See [`Entries::since`].
    pub fn since(&self, then: DateTime<Utc>) -> (u64, u64) {
        self.entries.since(then)
    }

    /// How many users count for the cap.
    pub fn active(&self) -> usize {
        self.active.len()
    }

    /// Whether no user has a place and no tombstone is left.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.ends.is_empty()
    }

    /// Advances the release rate of this line; `is_open` says whether users can be admitted.
    pub fn pass_time(&mut self, since_start: Duration, is_open: bool) {
        self.counts.release_rate.pass(since_start, is_open && !self.line.is_empty());
    }

    /// Counts an end before it is applied.
    pub fn count_end(&mut self, user: UserId, at: DateTime<Utc>, since_start: Duration) {
        if let Some(entry) = self.entries.get(user) {
            self.counts.note_end(entry.status, at, since_start);
        }
    }

    fn longest_trust(&self) -> u32 {
        longest_trust(self.line.len(), self.shortest)
    }

    fn list(&mut self, user: UserId, handle: Handle, entry: &Entry) {
        match entry.status {
            PlaceStatus::Active { expires_at, .. } => {
                self.active.insert(expires_at, user);
            }
            PlaceStatus::Waiting | PlaceStatus::Silent { .. } => {
                if self.leftovers.contains(&user) {
                    return;
                }
                if !self.line.insert(user, entry, handle) {
                    // The record names another user's place. Its key has to be deleted.
                    self.leftovers.insert(user);
                    return;
                }
                self.line.set_skipped(user, entry, entry.status != PlaceStatus::Waiting);
                if let PlaceStatus::Silent { grace_until } = entry.status {
                    self.silent.insert(grace_until, user);
                }
            }
        }
    }

    fn unlist(&mut self, user: UserId, entry: &Entry, stays_in_line: bool) {
        let was_in_line = !self.leftovers.remove(&user);
        match entry.status {
            PlaceStatus::Active { expires_at, .. } => {
                self.active.remove(expires_at, user);
            }
            PlaceStatus::Waiting | PlaceStatus::Silent { .. } => {
                if let PlaceStatus::Silent { grace_until } = entry.status {
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
        Entry { revision: place, place, issued_at: at(0), status: PlaceStatus::Waiting }
    }

    fn active(place: Place, revision: u64, until: i64) -> Entry {
        let status = PlaceStatus::Active { activated_at: at(0), expires_at: at(until), used: false };
        Entry { revision, place, issued_at: at(0), status }
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
    fn older_writes_change_nothing() {
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
    fn ended_place_never_comes_back() {
        let mut queue = Queue::default();
        queue.put(user(1), waiting(5), 0, None);
        queue.delete(user(1), 8, at(1));
        // The admission was under way when its owner left. It counts for the cap until it is deleted.
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
