//! What this instance has granted or ended and not yet written to the bucket.
//!
//! A request never waits for the bucket: the first booking request begins the session, a hold makes it longer, a payment
//! ends it, all in memory at once; [`crate::waiting_room::following::writer`] writes it behind the request's back, as
//! often as it takes.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::super::line::View;
use super::super::place::{Claims, Entry, Event, If, Outcome, Place, Standing, next};
use super::returning::Returning;

use crate::clock::plus;

pub use super::super::line::Key;

/// What cannot be written for this long is dropped: the session it was about is over by then, or the leader has ended it.
const PATIENCE: Duration = Duration::from_secs(600);

/// What is still to be written about one place.
#[derive(Clone, Copy, Debug)]
pub struct Promise {
    place: Place,
    /// The session began, and lasts until then.
    used_until: Option<DateTime<Utc>>,
    /// A seat is held until then.
    held_until: Option<DateTime<Utc>>,
    session_max: TimeDelta,
    /// Its owner was heard of then, who had been silent.
    heard_at: Option<DateTime<Utc>>,
    /// NATS has lost the place, and it is to be written again.
    returning: Option<Returning>,
    ended: bool,
    since: Instant,
    not_before: Instant,
    /// Rises with every change, so that a promise that grew while it was written is not forgotten.
    version: u32,
}

/// What a promise needs now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Nothing any more.
    Nothing,
    /// This instance has not seen the place yet, or not its admission: look again soon.
    Patience,
    /// The place must be written, if it is still at that revision.
    Write(Entry, Standing),
    /// The lost place must be written again under that condition, unless there was a payment since then.
    Return(If, Entry, DateTime<Utc>),
    /// The key must be deleted under that condition; whether its place was still in line.
    Delete(If, bool),
}

/// All promises of this instance.
#[derive(Debug)]
pub struct Promises {
    open: Mutex<HashMap<Key, Promise>>,
    /// For how long after its admission a session lasts at most, whatever is held.
    session_max: TimeDelta,
    /// There is something new to write.
    pub wake: Notify,
    kept: watch::Sender<u64>,
}

impl Promises {
    /// None yet. No session lasts longer than `session_max` after its admission.
    pub fn new(session_max: Duration) -> Self {
        let session_max = TimeDelta::from_std(session_max).unwrap_or(TimeDelta::MAX);
        Self { open: Mutex::default(), session_max, wake: Notify::new(), kept: watch::Sender::new(0) }
    }

    /// The session of this place has begun and lasts until then.
    pub fn begin_session(&self, claims: &Claims, until: DateTime<Utc>) {
        self.change((claims.concert, claims.user), claims.place, |promise| {
            promise.used_until.get_or_insert(until);
        });
    }

    /// The owner of this place holds a seat until then. The place is the one that passed the gate just now, or else `known`.
    pub fn hold(&self, key: Key, known: Option<Place>, until: DateTime<Utc>) {
        let passed = self.open().get(&key).map(|promise| promise.place);
        let Some(place) = passed.max(known) else { return };
        self.change(key, place, |promise| promise.held_until = promise.held_until.max(Some(until)));
    }

    /// The owner of this place, who had been silent, was heard of at that time: the place is in line again.
    pub fn come_back(&self, key: Key, place: Place, heard_at: DateTime<Utc>) {
        self.change(key, place, |promise| {
            promise.heard_at.get_or_insert(heard_at);
        });
    }

    /// Whether this place has been promised to be in line again.
    pub fn is_coming_back(&self, key: Key, place: Place) -> bool {
        let open = self.open();
        let promise = open.get(&key).filter(|promise| promise.place == place && !promise.ended);
        promise.is_some_and(|promise| promise.heard_at.is_some())
    }

    /// NATS has lost this place, and its owner presents it again.
    pub fn bring_back(&self, claims: &Claims) {
        let key = (claims.concert, claims.user);
        let is_known = |open: &Promise| open.place == claims.place && open.returning.is_some();
        if self.open().get(&key).is_some_and(is_known) {
            return;
        }
        self.change(key, claims.place, |promise| promise.returning = Some(Returning::of(claims)));
    }

    /// This place is over.
    pub fn end(&self, claims: &Claims) {
        self.change((claims.concert, claims.user), claims.place, |promise| promise.ended = true);
    }

    /// Until when this place, admitted at that time, has been promised to be active.
    pub fn until(&self, claims: &Claims, admitted_at: Option<DateTime<Utc>>) -> Option<DateTime<Utc>> {
        let open = self.open();
        let promise = open.get(&(claims.concert, claims.user))?;
        (promise.place == claims.place && !promise.ended).then(|| promise.until(admitted_at)).flatten()
    }

    /// Waits until what was promised for this place has been written, at most `patience`; answers whether it was.
    pub async fn written(&self, claims: &Claims, patience: Duration) -> bool {
        let mut kept = self.kept.subscribe();
        let key = (claims.concert, claims.user);
        let is_written = |_: &u64| {
            let open = self.open();
            open.get(&key).is_none_or(|promise| promise.place != claims.place)
        };
        // Giving up is fine: the promise stays and is kept later.
        matches!(tokio::time::timeout(patience, kept.wait_for(is_written)).await, Ok(Ok(_)))
    }

    /// The promises that may be tried now, and when to look at the others.
    pub fn due(&self, now: Instant) -> (Vec<(Key, Promise)>, Option<Instant>) {
        let mut open = self.open();
        open.retain(|_, promise| now.saturating_duration_since(promise.since) < PATIENCE);
        let (due, later): (Vec<_>, Vec<_>) = open
            .iter()
            .map(|(key, promise)| (*key, *promise))
            .partition(|(_, promise)| promise.not_before <= now);
        (due, later.into_iter().map(|(_, promise)| promise.not_before).min())
    }

    /// Forgets a promise that was kept, unless it has grown since; then it is due again.
    pub fn keep(&self, key: Key, promise: &Promise) {
        let mut open = self.open();
        if open.get(&key).is_some_and(|current| current.is_still(promise)) {
            open.remove(&key);
        }
        drop(open);
        self.kept.send_modify(|count| *count += 1);
    }

    /// Tries a promise again later, unless it has grown since; then it is due as it is.
    pub fn postpone(&self, key: Key, promise: &Promise, pause: Duration) {
        if let Some(current) = self.open().get_mut(&key).filter(|current| current.is_still(promise)) {
            current.not_before = Instant::now() + pause;
        }
    }

    fn change(&self, key: Key, place: Place, change: impl FnOnce(&mut Promise)) {
        {
            let mut open = self.open();
            let fresh = Promise::new(place, self.session_max);
            let promise = open.entry(key).or_insert(fresh);
            if promise.place > place {
                return;
            }
            if promise.place < place {
                *promise = Promise { version: promise.version, ..fresh };
            }
            change(promise);
            promise.version += 1;
            promise.not_before = promise.since;
        }
        self.wake.notify_one();
    }

    fn open(&self) -> MutexGuard<'_, HashMap<Key, Promise>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Promise {
    fn new(place: Place, session_max: TimeDelta) -> Self {
        let now = Instant::now();
        Self {
            place,
            session_max,
            used_until: None,
            held_until: None,
            heard_at: None,
            returning: None,
            ended: false,
            since: now,
            not_before: now,
            version: 0,
        }
    }

    /// Whether nothing has been added since it was that one.
    fn is_still(&self, earlier: &Self) -> bool {
        self.version == earlier.version && self.place == earlier.place
    }

    /// Until when a session lasts that was admitted at that time.
    fn until(&self, admitted_at: Option<DateTime<Utc>>) -> Option<DateTime<Utc>> {
        self.used_until.max(self.held_until).map(|until| until.min(self.latest(admitted_at)))
    }

    fn latest(&self, admitted_at: Option<DateTime<Utc>>) -> DateTime<Utc> {
        admitted_at.map_or(DateTime::<Utc>::MAX_UTC, |at| plus(at, self.session_max))
    }

    /// For how long it has been waiting to be kept.
    pub fn age(&self) -> Duration {
        self.since.elapsed()
    }

    /// What has to be written, given what is known of the key and up to where the bucket has been seen.
    pub fn need(&self, view: &View, seen: u64) -> Need {
        if let Some(returning) = self.returning.filter(|_| !self.ended)
            && let Some((condition, entry)) = returning.wants(view)
        {
            return Need::Return(condition, entry, returning.since);
        }
        let Some(entry) = view.entry else {
            return if seen >= self.place { Need::Nothing } else { Need::Patience };
        };
        if entry.place > self.place {
            return Need::Nothing;
        }
        if self.ended {
            return match next(&entry, Event::End) {
                Some(Outcome::Delete) if entry.revision >= self.place => {
                    Need::Delete(If::At(entry.revision), entry.standing.is_in_line())
                }
                _ => Need::Patience,
            };
        }
        if view.is_over(self.place) {
            return Need::Nothing;
        }
        let back = self.heard_at.filter(|_| entry.place == self.place);
        let back = back.and_then(|now| next(&entry, Event::Hear { now }));
        if let Some(Outcome::Write(standing)) = back {
            return Need::Write(entry, standing);
        }
        if self.until(None).is_none() {
            return Need::Nothing;
        }
        let Standing::Active { activated_at, .. } = entry.standing else {
            return Need::Patience;
        };
        if entry.place < self.place {
            return Need::Patience;
        }
        let admitted_at = Some(activated_at);
        let until = self.until(admitted_at).filter(|_| self.used_until.is_some());
        let began = until.map(|until| Event::Use { until });
        let held = self.held_until.map(|until| Event::Hold { until: until.min(self.latest(admitted_at)) });
        let outcome = [began, held].into_iter().flatten().find_map(|event| next(&entry, event));
        match outcome {
            Some(Outcome::Write(standing)) => Need::Write(entry, standing),
            Some(Outcome::Delete) | None => Need::Nothing,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{ConcertId, UserId};

    const HOUR: Duration = Duration::from_secs(3_600);

    fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_900_000_000 + seconds, 0).unwrap()
    }

    fn view(place: Place, revision: u64, standing: Standing) -> View {
        View { entry: Some(Entry { revision, place, issued_at: at(0), standing }), ..View::default() }
    }

    fn active(until: i64, used: bool) -> Standing {
        Standing::Active { activated_at: at(0), expires_at: at(until), used }
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

    fn only(promises: &Promises) -> Promise {
        promises.due(Instant::now()).0[0].1
    }

    #[tokio::test]
    async fn a_use_and_a_hold_become_one_write_and_then_nothing() {
        let promises = Promises::new(HOUR);
        promises.begin_session(&claims(5), at(600));
        promises.hold((claims(5).concert, claims(5).user), None, at(900));
        let until = |place| promises.until(&claims(place), None);
        assert_eq!((until(5), until(6)), (Some(at(900)), None));
        let promise = only(&promises);
        let before = view(5, 9, active(60, false));
        assert_eq!(promise.need(&before, 9), Need::Write(before.entry.unwrap(), active(900, true)));
        assert_eq!(promise.need(&view(5, 10, active(900, true)), 10), Need::Nothing);
        assert_eq!(
            promise.need(&view(5, 5, Standing::Waiting), 5),
            Need::Patience,
            "the admission was not seen yet"
        );
        assert_eq!(promise.need(&view(12, 12, Standing::Waiting), 12), Need::Nothing, "the user joined anew");
        assert_eq!(promise.need(&View::default(), 4), Need::Patience);
        assert_eq!(promise.need(&View::default(), 9), Need::Nothing);
    }

    #[tokio::test]
    async fn who_was_silent_and_is_heard_of_in_time_is_in_line_again_and_nothing_else_is_written() {
        let promises = Promises::new(HOUR);
        let key = (claims(5).concert, claims(5).user);
        promises.come_back(key, 5, at(50));
        assert!(promises.is_coming_back(key, 5) && !promises.is_coming_back(key, 6));
        let promise = only(&promises);
        let silent = |until| view(5, 9, Standing::Silent { grace_until: at(until) });
        let entry = silent(60).entry.unwrap();
        assert_eq!(promise.need(&silent(60), 9), Need::Write(entry, Standing::Waiting));
        assert_eq!(promise.need(&silent(50), 9), Need::Nothing, "too late");
        assert_eq!(promise.need(&view(5, 10, Standing::Waiting), 10), Need::Nothing, "done");
        assert_eq!(promise.need(&view(5, 10, active(60, false)), 10), Need::Nothing);
        assert_eq!(promise.need(&view(12, 12, Standing::Silent { grace_until: at(60) }), 12), Need::Nothing);
        promises.end(&claims(5));
        assert!(!promises.is_coming_back(key, 5));
        assert_eq!(only(&promises).need(&silent(60), 9), Need::Delete(If::At(9), true));
    }

    #[tokio::test]
    async fn an_end_deletes_its_own_place_and_no_later_one() {
        let promises = Promises::new(HOUR);
        promises.begin_session(&claims(5), at(600));
        promises.end(&claims(5));
        assert_eq!(promises.until(&claims(5), None), None, "what has ended is promised no more");
        let promise = only(&promises);
        assert_eq!(promise.need(&view(5, 9, active(60, true)), 9), Need::Delete(If::At(9), false));
        assert_eq!(promise.need(&view(5, 5, Standing::Waiting), 5), Need::Delete(If::At(5), true));
        assert_eq!(promise.need(&view(8, 8, Standing::Waiting), 8), Need::Nothing);
    }

    #[tokio::test]
    async fn a_promise_that_grew_while_it_was_written_stays() {
        let promises = Promises::new(HOUR);
        promises.begin_session(&claims(5), at(600));
        let promise = only(&promises);
        promises.end(&claims(5));
        let key = (claims(5).concert, claims(5).user);
        promises.keep(key, &promise);
        let promise = only(&promises);
        promises.keep(key, &promise);
        assert!(promises.due(Instant::now()).0.is_empty());
    }

    #[tokio::test]
    async fn a_later_place_replaces_what_was_promised_for_an_earlier_one() {
        let promises = Promises::new(HOUR);
        promises.end(&claims(5));
        promises.begin_session(&claims(8), at(600));
        promises.end(&claims(5));
        assert_eq!(promises.until(&claims(8), None), Some(at(600)));
    }

    #[tokio::test]
    async fn a_postponed_promise_is_not_due_and_says_when() {
        let promises = Promises::new(HOUR);
        promises.begin_session(&claims(5), at(600));
        let (key, promise) = promises.due(Instant::now()).0[0];
        promises.postpone(key, &promise, Duration::from_secs(5));
        let (due, later) = promises.due(Instant::now());
        assert!(due.is_empty() && later.is_some());
        promises.end(&claims(5));
        promises.postpone(key, &promise, Duration::from_secs(5));
        assert_eq!(promises.due(Instant::now()).0.len(), 1, "what was added meanwhile waits for nothing");
    }
}
