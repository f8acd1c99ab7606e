//! The changes that this instance has granted and not yet written to the bucket.
//!
//! A request never waits for the bucket. The first booking request begins the session, a hold extends it, a payment ends
//! it, all at once in memory. [`crate::waiting_room::tasks::write_pending`] writes the changes in the background, and
//! retries until it succeeds.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::super::place::{Claims, Place};
use super::pending_write::{PendingWrite, RestorePlace};

pub use super::super::line::Key;

/// A change that could not be written for this long is dropped: its session is over by then.
const MAX_AGE: Duration = Duration::from_secs(600);

/// All pending writes of this instance, at most one for each concert and user.
#[derive(Debug)]
pub struct PendingWrites {
    open: Mutex<HashMap<Key, PendingWrite>>,
    /// Limit of a session from its admission on, whatever is held.
    session_max: TimeDelta,
    /// Wakes the writer.
    pub wake: Notify,
    finished: watch::Sender<u64>,
}

impl PendingWrites {
    pub fn new(session_max: Duration) -> Self {
        let session_max = TimeDelta::from_std(session_max).unwrap_or(TimeDelta::MAX);
        Self { open: Mutex::default(), session_max, wake: Notify::new(), finished: watch::Sender::new(0) }
    }

    /// The session of this place has begun and lasts until `until`.
    pub fn begin_session(&self, claims: &Claims, until: DateTime<Utc>) {
        self.change((claims.concert, claims.user), claims.place, |write| {
            write.changes.session.used_until.get_or_insert(until);
        });
    }

    /// The user holds a seat until `until`. The place is the one that passed the gate just now, or else `known`.
    pub fn hold(&self, key: Key, known: Option<Place>, until: DateTime<Utc>) {
        let passed = self.open().get(&key).map(|write| write.place);
        let Some(place) = passed.max(known) else { return };
        self.change(key, place, |write| {
            let session = &mut write.changes.session;
            session.held_until = session.held_until.max(Some(until));
        });
    }

    /// The owner of this place was silent and has sent a heartbeat: the place is in line again.
    pub fn end_silence(&self, key: Key, place: Place, heartbeat_at: DateTime<Utc>) {
        self.change(key, place, |write| {
            write.changes.heartbeat_at.get_or_insert(heartbeat_at);
        });
    }

    /// Whether the end of this place's silence is pending.
    pub fn is_silence_ending(&self, key: Key, place: Place) -> bool {
        let open = self.open();
        let write = open.get(&key).filter(|write| write.place == place && !write.changes.is_ended);
        write.is_some_and(|write| write.changes.heartbeat_at.is_some())
    }

    /// NATS has lost this place, and its owner presents the token.
    pub fn restore_place(&self, claims: &Claims) {
        let key = (claims.concert, claims.user);
        let is_known = |write: &PendingWrite| write.place == claims.place && write.changes.restore.is_some();
        if self.open().get(&key).is_some_and(is_known) {
            return;
        }
        self.change(key, claims.place, |write| write.changes.restore = Some(RestorePlace::of(claims)));
    }

    /// This place has ended.
    pub fn end(&self, claims: &Claims) {
        self.change((claims.concert, claims.user), claims.place, |write| write.changes.is_ended = true);
    }

    /// When the session of this place ends by a pending change; `None` if there is none.
    pub fn session_end(&self, claims: &Claims, admitted_at: Option<DateTime<Utc>>) -> Option<DateTime<Utc>> {
        let open = self.open();
        let write = open.get(&(claims.concert, claims.user))?;
        let is_current = write.place == claims.place && !write.changes.is_ended;
        is_current.then(|| write.session_end(admitted_at)).flatten()
    }

    /// Waits until every change of this place is written. Returns false after `timeout`; the changes stay pending then.
    pub async fn written(&self, claims: &Claims, timeout: Duration) -> bool {
        let mut finished = self.finished.subscribe();
        let key = (claims.concert, claims.user);
        let is_written = |_: &u64| {
            let open = self.open();
            open.get(&key).is_none_or(|write| write.place != claims.place)
        };
        matches!(tokio::time::timeout(timeout, finished.wait_for(is_written)).await, Ok(Ok(_)))
    }

    /// The writes that are due, and when the next one is.
    pub fn due(&self, now: Instant) -> (Vec<(Key, PendingWrite)>, Option<Instant>) {
        let mut open = self.open();
        open.retain(|_, write| write.age() < MAX_AGE);
        let (due, later): (Vec<_>, Vec<_>) =
            open.iter().map(|(key, write)| (*key, *write)).partition(|(_, write)| write.not_before <= now);
        (due, later.into_iter().map(|(_, write)| write.not_before).min())
    }

    /// Removes a write that is done. If changes were added meanwhile, it stays and is due.
    pub fn finish(&self, key: Key, done: &PendingWrite) {
        let mut open = self.open();
        if open.get(&key).is_some_and(|current| current.is_same_as(done)) {
            open.remove(&key);
        }
        drop(open);
        self.finished.send_modify(|count| *count += 1);
    }

    /// Retries a write after a pause. If changes were added meanwhile, it is due at once.
    pub fn postpone(&self, key: Key, tried: &PendingWrite, pause: Duration) {
        if let Some(current) = self.open().get_mut(&key).filter(|current| current.is_same_as(tried)) {
            current.not_before = Instant::now() + pause;
        }
    }

    /// Adds a change. Changes of an older place of the user are dropped, and a change of an older place is ignored.
    fn change(&self, key: Key, place: Place, change: impl FnOnce(&mut PendingWrite)) {
        {
            let mut open = self.open();
            let fresh = PendingWrite::new(place, self.session_max);
            let write = open.entry(key).or_insert(fresh);
            if write.place > place {
                return;
            }
            if write.place < place {
                *write = fresh.replacing(write);
            }
            change(write);
            write.note_change();
        }
        self.wake.notify_one();
    }

    fn open(&self) -> MutexGuard<'_, HashMap<Key, PendingWrite>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::line::{Tombstones, View};
    use super::super::super::place::{Condition, Entry, PlaceStatus};
    use super::super::pending_write::NextWrite;
    use super::*;
    use crate::ids::{ConcertId, UserId};

    const HOUR: Duration = Duration::from_secs(3_600);

    fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_900_000_000 + seconds, 0).unwrap()
    }

    fn view(place: Place, revision: u64, status: PlaceStatus) -> View {
        View { entry: Some(Entry { revision, place, issued_at: at(0), status }), ..View::default() }
    }

    fn active(until: i64, used: bool) -> PlaceStatus {
        PlaceStatus::Active { activated_at: at(0), expires_at: at(until), used }
    }

    fn claims(place: Place) -> Claims {
        Claims {
            user: UserId::from_u128(1),
            concert: ConcertId::from_u128(2),
            place,
            issued_at: at(0),
            activated_at: None,
            expires_at: None,
            bucket: 0,
        }
    }

    fn only(writes: &PendingWrites) -> PendingWrite {
        writes.due(Instant::now()).0[0].1
    }

    fn delete(revision: u64, in_line: bool) -> NextWrite {
        NextWrite::Delete { condition: Condition::Revision(revision), in_line }
    }

    #[tokio::test]
    async fn use_and_hold_become_one_write() {
        let writes = PendingWrites::new(HOUR);
        writes.begin_session(&claims(5), at(600));
        writes.hold((claims(5).concert, claims(5).user), None, at(900));
        let end = |place| writes.session_end(&claims(place), None);
        assert_eq!((end(5), end(6)), (Some(at(900)), None));
        let write = only(&writes);
        let before = view(5, 9, active(60, false));
        let expected = NextWrite::Status(before.entry.unwrap(), active(900, true));
        assert_eq!(write.next_write(&before, 9), expected);
        assert_eq!(write.next_write(&view(5, 10, active(900, true)), 10), NextWrite::Nothing);
        assert_eq!(
            write.next_write(&view(5, 5, PlaceStatus::Waiting), 5),
            NextWrite::NotSeenYet,
            "the admission was not seen yet"
        );
        let joined_again = view(12, 12, PlaceStatus::Waiting);
        assert_eq!(write.next_write(&joined_again, 12), NextWrite::Nothing, "the user joined again");
        assert_eq!(write.next_write(&View::default(), 4), NextWrite::NotSeenYet);
        assert_eq!(write.next_write(&View::default(), 9), NextWrite::Nothing);
    }

    #[tokio::test]
    async fn heartbeat_during_the_grace_ends_the_silence() {
        let writes = PendingWrites::new(HOUR);
        let key = (claims(5).concert, claims(5).user);
        writes.end_silence(key, 5, at(50));
        assert!(writes.is_silence_ending(key, 5) && !writes.is_silence_ending(key, 6));
        let write = only(&writes);
        let silent = |until| view(5, 9, PlaceStatus::Silent { grace_until: at(until) });
        let entry = silent(60).entry.unwrap();
        assert_eq!(write.next_write(&silent(60), 9), NextWrite::Status(entry, PlaceStatus::Waiting));
        assert_eq!(write.next_write(&silent(50), 9), NextWrite::Nothing, "too late");
        assert_eq!(write.next_write(&view(5, 10, PlaceStatus::Waiting), 10), NextWrite::Nothing, "done");
        assert_eq!(write.next_write(&view(5, 10, active(60, false)), 10), NextWrite::Nothing);
        let newer = view(12, 12, PlaceStatus::Silent { grace_until: at(60) });
        assert_eq!(write.next_write(&newer, 12), NextWrite::Nothing);
        writes.end(&claims(5));
        assert!(!writes.is_silence_ending(key, 5));
        assert_eq!(only(&writes).next_write(&silent(60), 9), delete(9, true));
    }

    #[tokio::test]
    async fn end_deletes_its_own_place_only() {
        let writes = PendingWrites::new(HOUR);
        writes.begin_session(&claims(5), at(600));
        writes.end(&claims(5));
        assert_eq!(writes.session_end(&claims(5), None), None, "an ended session has no end to come");
        let write = only(&writes);
        assert_eq!(write.next_write(&view(5, 9, active(60, true)), 9), delete(9, false));
        assert_eq!(write.next_write(&view(5, 5, PlaceStatus::Waiting), 5), delete(5, true));
        assert_eq!(write.next_write(&view(8, 8, PlaceStatus::Waiting), 8), NextWrite::Nothing);
    }

    #[tokio::test]
    async fn change_during_a_write_stays_pending() {
        let writes = PendingWrites::new(HOUR);
        writes.begin_session(&claims(5), at(600));
        let write = only(&writes);
        writes.end(&claims(5));
        let key = (claims(5).concert, claims(5).user);
        writes.finish(key, &write);
        let write = only(&writes);
        writes.finish(key, &write);
        assert!(writes.due(Instant::now()).0.is_empty());
    }

    #[tokio::test]
    async fn later_place_replaces_changes_of_an_earlier_one() {
        let writes = PendingWrites::new(HOUR);
        writes.end(&claims(5));
        writes.begin_session(&claims(8), at(600));
        writes.end(&claims(5));
        assert_eq!(writes.session_end(&claims(8), None), Some(at(600)));
    }

    #[tokio::test]
    async fn postponed_write_is_due_later() {
        let writes = PendingWrites::new(HOUR);
        writes.begin_session(&claims(5), at(600));
        let (key, write) = writes.due(Instant::now()).0[0];
        writes.postpone(key, &write, Duration::from_secs(5));
        let (due, later) = writes.due(Instant::now());
        assert!(due.is_empty() && later.is_some());
        writes.end(&claims(5));
        writes.postpone(key, &write, Duration::from_secs(5));
        assert_eq!(writes.due(Instant::now()).0.len(), 1, "a new change is due at once");
    }

    #[tokio::test]
    async fn lost_place_replaces_a_newer_one_in_line() {
        let writes = PendingWrites::new(HOUR);
        let lost = Claims { activated_at: Some(at(5)), ..claims(5) };
        writes.restore_place(&lost);
        let condition = |view: &View| match only(&writes).next_write(view, 20) {
            NextWrite::Restore(condition, entry, since) => {
                assert_eq!((entry.place, entry.status, since), (5, PlaceStatus::Waiting, at(5)));
                Some(condition)
            }
            _ => None,
        };
        assert_eq!(condition(&View::default()), Some(Condition::Revision(0)));
        let waiting = |place, revision| view(place, revision, PlaceStatus::Waiting);
        assert_eq!(condition(&waiting(12, 14)), Some(Condition::Revision(14)), "joined again");
        assert_eq!(condition(&view(12, 14, active(60, false))), None, "joined again and was admitted");
        assert_eq!(condition(&waiting(5, 15)), None, "done");
        let mut tombstones = Tombstones::default();
        tombstones.end_locally(claims(5).user, 5, at(0));
        let over = View { end: tombstones.of(claims(5).user), ..View::default() };
        assert_eq!(condition(&over), None);
    }
}
