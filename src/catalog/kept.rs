//! Something that is read from the database, kept for everybody, and kept true.
//!
//! It is read once at a time, whoever asks. A word that it has changed leads to the next reading: at once, or a short
//! while after the one before began, so that a thousand changes a second cost a few readings; who asks meanwhile gets
//! the copy there is. What nobody asked for lately is let go of instead. Whatever words are lost, no copy is given out
//! whose reading began longer ago than the bound.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::FutureExt;
use futures::future::{BoxFuture, Shared};
use tokio::time::{Instant, sleep_until};

use super::CatalogError;

/// After a reading there is a pause of so many times what it took, if that is longer than the floor: one thing never
/// keeps the database busy for more than a fifth of the time.
const REST: u32 = 4;

/// How often something is read at most and at least.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    /// From the beginning of one reading to the next, at least.
    pub floor: Duration,
    /// A copy of this age is read anew while it is still given out.
    pub ahead: Duration,
    /// A copy of this age is not given out any more.
    pub bound: Duration,
}

/// What reads it.
pub(super) type Reader<V> = Box<dyn Fn() -> BoxFuture<'static, Result<V, CatalogError>> + Send + Sync>;
/// A reading under way; all who wait share its outcome.
type Reading<V> = Shared<BoxFuture<'static, Result<Arc<V>, CatalogError>>>;

/// The one that is kept. Clones are the same.
pub(super) struct Kept<V>(Arc<Inner<V>>);

struct Inner<V> {
    reader: Reader<V>,
    pace: Pace,
    state: Mutex<State<V>>,
}

struct State<V> {
    copy: Option<Copied<V>>,
    /// When it began, and the reading.
    reading: Option<(Instant, Reading<V>)>,
    /// How long the last reading took.
    took: Duration,
    /// Somebody asked.
    asked: Option<Instant>,
    /// The last word of a change.
    changed: Option<Instant>,
    /// What began to be read before is not to be given out.
    forgotten: Option<Instant>,
    /// A reading is to come.
    planned: bool,
}

struct Copied<V> {
    value: Arc<V>,
    begun: Instant,
}

impl<V> Clone for Kept<V> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<V: Send + Sync + 'static> Kept<V> {
    /// Nothing is read yet.
    pub(super) fn new(reader: Reader<V>, pace: Pace) -> Self {
        let state = State {
            copy: None,
            reading: None,
            took: Duration::ZERO,
            asked: None,
            changed: None,
            forgotten: None,
            planned: false,
        };
        Self(Arc::new(Inner { reader, pace, state: Mutex::new(state) }))
    }

    /// The copy, or what the reading brings that is under way or begins now.
    pub(super) async fn get(&self) -> Result<Arc<V>, CatalogError> {
        let reading = {
            let mut state = self.locked();
            let now = Instant::now();
            state.asked = Some(now);
            let copy = state.copy.as_ref().map(|copy| (Arc::clone(&copy.value), now - copy.begun));
            match copy.filter(|(_, age)| *age < self.0.pace.bound) {
                Some((value, age)) => {
                    if age >= self.0.pace.ahead && state.reading.is_none() {
                        // It goes on by itself.
                        let _ahead = self.begin(&mut state, now);
                    }
                    return Ok(value);
                }
                None => self.begin(&mut state, now),
            }
        };
        reading.await
    }

    /// It has changed somewhere: it is read anew soon, if anybody wants it.
    pub(super) fn changed(&self) {
        let mut state = self.locked();
        let now = Instant::now();
        state.changed = Some(now);
        self.follow(&mut state, now);
    }

    /// Whoever asks from now on gets nothing that was read before.
    pub(super) fn forget(&self) {
        let mut state = self.locked();
        state.forgotten = Some(Instant::now());
        state.copy = None;
    }

    /// Joins the reading under way, or begins one. It goes on when those who wait for it go away.
    fn begin(&self, state: &mut State<V>, now: Instant) -> Reading<V> {
        if let Some((begun, reading)) = &state.reading
            && state.forgotten.is_none_or(|forgotten| forgotten < *begun)
        {
            return reading.clone();
        }
        let kept = self.clone();
        let reading = async move {
            let result = (kept.0.reader)().await.map(Arc::new);
            kept.ended(now, result.as_ref().ok());
            result
        };
        let reading = reading.boxed().shared();
        state.reading = Some((now, reading.clone()));
        tokio::spawn(reading.clone());
        reading
    }

    fn ended(&self, begun: Instant, value: Option<&Arc<V>>) {
        let mut state = self.locked();
        let now = Instant::now();
        state.reading.take_if(|(of, _)| *of == begun);
        state.took = now - begun;
        let is_newer = state.copy.as_ref().is_none_or(|copy| copy.begun < begun)
            && state.forgotten.is_none_or(|forgotten| forgotten < begun);
        if let (Some(value), true) = (value, is_newer) {
            state.copy = Some(Copied { value: Arc::clone(value), begun });
        }
        self.follow(&mut state, now);
    }

    /// What follows if the copy is older than the last word of a change.
    fn follow(&self, state: &mut State<V>, now: Instant) {
        let Some(begun) = state.outdated().filter(|_| !state.planned && state.reading.is_none()) else {
            return;
        };
        let pace = self.0.pace;
        if state.asked.is_none_or(|asked| now - asked >= pace.bound) {
            state.copy = None;
            return;
        }
        let due = begun + pace.floor.max(state.took * REST).min(pace.bound);
        if due <= now {
            // It goes on by itself.
            let _reading = self.begin(state, now);
            return;
        }
        state.planned = true;
        let kept = self.clone();
        tokio::spawn(async move {
            sleep_until(due).await;
            let mut state = kept.locked();
            state.planned = false;
            kept.follow(&mut state, Instant::now());
        });
    }

    fn locked(&self) -> MutexGuard<'_, State<V>> {
        // A panic elsewhere leaves it usable: each change to it is a single step.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<V> State<V> {
    /// When the copy began to be read, if something has changed since.
    fn outdated(&self) -> Option<Instant> {
        let begun = self.copy.as_ref()?.begun;
        self.changed.filter(|changed| *changed >= begun).map(|_| begun)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use futures::future::join_all;
    use tokio::time::sleep;

    use super::*;

    const TOOK: Duration = Duration::from_millis(20);
    const PACE: Pace = Pace {
        floor: Duration::from_millis(200),
        ahead: Duration::from_millis(600),
        bound: Duration::from_millis(900),
    };

    /// Counts its readings and gives their number out; the first `failures` fail.
    fn counted(failures: u64) -> (Kept<u64>, Arc<AtomicU64>) {
        let count = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&count);
        let reader = move || {
            let number = counter.fetch_add(1, Ordering::SeqCst) + 1;
            let reading = async move {
                sleep(TOOK).await;
                if number <= failures { Err(CatalogError::NotFound) } else { Ok(number) }
            };
            reading.boxed()
        };
        (Kept::new(Box::new(reader), PACE), count)
    }

    #[tokio::test]
    async fn two_hundred_who_ask_at_once_cost_one_reading_and_share_its_error() {
        let (kept, count) = counted(1);
        let answers = join_all((0..200).map(|_| kept.get())).await;
        assert!(answers.iter().all(Result::is_err));
        assert_eq!(count.load(Ordering::SeqCst), 1);
        let answers = join_all((0..200).map(|_| kept.get())).await;
        assert!(answers.iter().all(|answer| answer.as_deref().ok() == Some(&2)));
        assert_eq!(count.load(Ordering::SeqCst), 2);
    }

    #[tokio::test]
    async fn a_thousand_changes_cost_a_reading_per_floor_and_nobody_waits_for_it() {
        let (kept, count) = counted(0);
        let begun = Instant::now();
        assert_eq!(*kept.get().await.unwrap(), 1);
        while begun.elapsed() < Duration::from_millis(1_000) {
            kept.changed();
            let asked = Instant::now();
            kept.get().await.unwrap();
            assert!(asked.elapsed() < TOOK, "an answer waited for a reading");
            sleep(Duration::from_millis(1)).await;
        }
        let readings = count.load(Ordering::SeqCst);
        assert!((2..=6).contains(&readings), "{readings} readings in a second");
        sleep(PACE.floor + 4 * TOOK).await;
        let last = count.load(Ordering::SeqCst);
        assert_eq!(*kept.get().await.unwrap(), last, "the last change is not seen");
    }

    #[tokio::test]
    async fn a_change_after_a_quiet_while_is_seen_as_soon_as_it_is_read() {
        let (kept, _) = counted(0);
        kept.get().await.unwrap();
        sleep(PACE.floor).await;
        kept.changed();
        assert_eq!(*kept.get().await.unwrap(), 1, "the copy there is, meanwhile");
        sleep(3 * TOOK).await;
        assert_eq!(*kept.get().await.unwrap(), 2);
    }

    #[tokio::test]
    async fn without_a_word_it_is_read_ahead_while_it_is_wanted_and_never_older_than_the_bound() {
        let (kept, count) = counted(0);
        kept.get().await.unwrap();
        sleep(PACE.bound + TOOK).await;
        assert_eq!(count.load(Ordering::SeqCst), 1, "nobody asked");
        assert_eq!(*kept.get().await.unwrap(), 2, "too old to be given out");
        sleep(PACE.ahead + TOOK).await;
        assert_eq!(*kept.get().await.unwrap(), 2, "given out once more, and read ahead");
        sleep(3 * TOOK).await;
        assert_eq!(*kept.get().await.unwrap(), 3);
    }

    #[tokio::test]
    async fn what_is_forgotten_is_given_to_nobody_even_if_it_is_being_read() {
        let (kept, count) = counted(0);
        let before = tokio::spawn({
            let kept = kept.clone();
            async move { kept.get().await }
        });
        sleep(TOOK / 4).await;
        kept.forget();
        assert_eq!(*kept.get().await.unwrap(), 2);
        assert_eq!(*before.await.unwrap().unwrap(), 1, "asked before");
        assert_eq!(*kept.get().await.unwrap(), 2);
        assert_eq!(count.load(Ordering::SeqCst), 2);
    }

    #[tokio::test]
    async fn what_nobody_wants_is_not_read_when_it_changes() {
        let (kept, count) = counted(0);
        kept.get().await.unwrap();
        sleep(PACE.bound + TOOK).await;
        kept.changed();
        sleep(PACE.floor + TOOK).await;
        assert_eq!(count.load(Ordering::SeqCst), 1);
    }
}
