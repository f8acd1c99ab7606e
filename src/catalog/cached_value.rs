//! A value that is read from the database, cached for all callers, and refreshed before it is too old.
//!
//! Concurrent callers share one read. A notice of a change leads to the next read: at once, or a short while after the
//! read before started, so that a thousand changes a second cost a few reads; callers get the cached copy meanwhile. A
//! copy that no caller wants is dropped instead. Even if notices are lost, no copy is returned whose read started longer
//! ago than [`RefreshPolicy::max_age`].

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::FutureExt;
use futures::future::{BoxFuture, Shared};
use tokio::time::{Instant, sleep_until};

use super::CatalogError;

/// The pause after a read is at least this many times its duration, so that one value takes at most a fifth of the
/// database's time.
const PAUSE_PER_READ: u32 = 4;

#[derive(Clone, Copy, Debug)]
pub(super) struct RefreshPolicy {
    /// The shortest time from the start of one read to the next.
    pub min_interval: Duration,
    /// A copy of this age is returned, and read again in the background.
    pub refresh_after: Duration,
    /// A copy of this age is not returned any more.
    pub max_age: Duration,
}

pub(super) type Reader<V> = Box<dyn Fn() -> BoxFuture<'static, Result<V, CatalogError>> + Send + Sync>;
/// A read under way. All callers that wait for it share its result.
type Read<V> = Shared<BoxFuture<'static, Result<Arc<V>, CatalogError>>>;

/// Clones share the value.
pub(super) struct CachedValue<V>(Arc<Inner<V>>);

struct Inner<V> {
    reader: Reader<V>,
    policy: RefreshPolicy,
    state: Mutex<State<V>>,
}

struct State<V> {
    copy: Option<Copied<V>>,
    activity: Activity<V>,
    /// How long the last read took.
    read_took: Duration,
    last_request: Option<Instant>,
    last_change: Option<Instant>,
    /// Reads that started before this time must not be returned.
    invalidated: Option<Instant>,
}

/// What happens in the background.
enum Activity<V> {
    Idle,
    /// The next read starts at `due`, unless a caller starts it earlier.
    Scheduled {
        due: Instant,
    },
    Reading {
        started: Instant,
        read: Read<V>,
    },
}

struct Copied<V> {
    value: Arc<V>,
    read_started: Instant,
}

impl<V> Clone for CachedValue<V> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<V: Send + Sync + 'static> CachedValue<V> {
    pub(super) fn new(reader: Reader<V>, policy: RefreshPolicy) -> Self {
        let state = State {
            copy: None,
            activity: Activity::Idle,
            read_took: Duration::ZERO,
            last_request: None,
            last_change: None,
            invalidated: None,
        };
        Self(Arc::new(Inner { reader, policy, state: Mutex::new(state) }))
    }

    /// The cached copy, or the result of a read that is under way or starts now.
    pub(super) async fn get(&self) -> Result<Arc<V>, CatalogError> {
        let read = {
            let mut state = self.locked();
            let now = Instant::now();
            state.last_request = Some(now);
            let copy = state.copy.as_ref().map(|copy| (Arc::clone(&copy.value), now - copy.read_started));
            match copy.filter(|(_, age)| *age < self.0.policy.max_age) {
                Some((value, age)) => {
                    let is_reading = matches!(state.activity, Activity::Reading { .. });
                    if age >= self.0.policy.refresh_after && !is_reading {
                        // The read runs in a task of its own.
                        let _read = self.read(&mut state, now);
                    }
                    return Ok(value);
                }
                None => self.read(&mut state, now),
            }
        };
        read.await
    }

    /// The value has changed in the database. It is read again soon, if callers want it.
    pub(super) fn notify_change(&self) {
        let mut state = self.locked();
        let now = Instant::now();
        state.last_change = Some(now);
        self.refresh_if_outdated(&mut state, now);
    }

    /// Drops the copy. Later callers get no result of a read that started before.
    pub(super) fn invalidate(&self) {
        let mut state = self.locked();
        state.invalidated = Some(Instant::now());
        state.copy = None;
    }

    /// Joins the read under way, or starts one in a task of its own.
    fn read(&self, state: &mut State<V>, now: Instant) -> Read<V> {
        if let Activity::Reading { started, read } = &state.activity
            && state.invalidated.is_none_or(|invalidated| invalidated < *started)
        {
            return read.clone();
        }
        let cached = self.clone();
        let read = async move {
            let result = (cached.0.reader)().await.map(Arc::new);
            cached.finish_read(now, result.as_ref().ok());
            result
        };
        let read = read.boxed().shared();
        state.activity = Activity::Reading { started: now, read: read.clone() };
        tokio::spawn(read.clone());
        read
    }

    fn finish_read(&self, started: Instant, value: Option<&Arc<V>>) {
        let mut state = self.locked();
        let now = Instant::now();
        // After an invalidation a newer read may have replaced this one.
        if matches!(state.activity, Activity::Reading { started: current, .. } if current == started) {
            state.activity = Activity::Idle;
        }
        state.read_took = now - started;
        let is_newer = state.copy.as_ref().is_none_or(|copy| copy.read_started < started)
            && state.invalidated.is_none_or(|invalidated| invalidated < started);
        if let (Some(value), true) = (value, is_newer) {
            state.copy = Some(Copied { value: Arc::clone(value), read_started: started });
        }
        self.refresh_if_outdated(&mut state, now);
    }

    /// If the value has changed since the copy was read: drops an unused copy, and reads or schedules a read otherwise.
    fn refresh_if_outdated(&self, state: &mut State<V>, now: Instant) {
        let is_idle = matches!(state.activity, Activity::Idle);
        let Some(read_started) = state.outdated().filter(|_| is_idle) else {
            return;
        };
        let policy = self.0.policy;
        if state.last_request.is_none_or(|request| now - request >= policy.max_age) {
            state.copy = None;
            return;
        }
        let pause = policy.min_interval.max(state.read_took * PAUSE_PER_READ).min(policy.max_age);
        let due = read_started + pause;
        if due <= now {
            // The read runs in a task of its own.
            let _read = self.read(state, now);
            return;
        }
        state.activity = Activity::Scheduled { due };
        let cached = self.clone();
        tokio::spawn(async move {
            sleep_until(due).await;
            let mut state = cached.locked();
            // A caller may have started a read meanwhile, and another one may be scheduled since.
            if matches!(state.activity, Activity::Scheduled { due: current } if current == due) {
                state.activity = Activity::Idle;
                cached.refresh_if_outdated(&mut state, Instant::now());
            }
        });
    }

    fn locked(&self) -> MutexGuard<'_, State<V>> {
        // The state stays valid after a panic, because each change of it is a single step.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<V> State<V> {
    /// When the copy was read, if the value has changed since.
    fn outdated(&self) -> Option<Instant> {
        let read_started = self.copy.as_ref()?.read_started;
        self.last_change.filter(|changed| *changed >= read_started).map(|_| read_started)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use futures::future::join_all;
    use tokio::time::sleep;

    use super::*;

    const READ_TIME: Duration = Duration::from_millis(20);
    const POLICY: RefreshPolicy = RefreshPolicy {
        min_interval: Duration::from_millis(200),
        refresh_after: Duration::from_millis(600),
        max_age: Duration::from_millis(900),
    };

    /// A value that counts its reads and returns their number. The first `failures` reads fail.
    fn counted(failures: u64) -> (CachedValue<u64>, Arc<AtomicU64>) {
        let count = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&count);
        let reader = move || {
            let number = counter.fetch_add(1, Ordering::SeqCst) + 1;
            let reading = async move {
                sleep(READ_TIME).await;
                if number <= failures { Err(CatalogError::NotFound) } else { Ok(number) }
            };
            reading.boxed()
        };
        (CachedValue::new(Box::new(reader), POLICY), count)
    }

    #[tokio::test]
    async fn simultaneous_requests_share_one_read() {
        let (cached, count) = counted(1);
        let answers = join_all((0..200).map(|_| cached.get())).await;
        assert!(answers.iter().all(Result::is_err));
        assert_eq!(count.load(Ordering::SeqCst), 1);
        let answers = join_all((0..200).map(|_| cached.get())).await;
        assert!(answers.iter().all(|answer| answer.as_deref().ok() == Some(&2)));
        assert_eq!(count.load(Ordering::SeqCst), 2);
    }

    #[tokio::test]
    async fn thousand_changes_cost_one_read_per_interval() {
        let (cached, count) = counted(0);
        let started = Instant::now();
        assert_eq!(*cached.get().await.unwrap(), 1);
        while started.elapsed() < Duration::from_millis(1_000) {
            cached.notify_change();
            let asked = Instant::now();
            cached.get().await.unwrap();
            assert!(asked.elapsed() < READ_TIME, "a caller waited for a read");
            sleep(Duration::from_millis(1)).await;
        }
        let readings = count.load(Ordering::SeqCst);
        assert!((2..=6).contains(&readings), "{readings} reads in a second");
        sleep(POLICY.min_interval + 4 * READ_TIME).await;
        let last = count.load(Ordering::SeqCst);
        assert_eq!(*cached.get().await.unwrap(), last, "the last change was not read");
    }

    #[tokio::test]
    async fn change_after_a_quiet_time_is_seen() {
        let (cached, _) = counted(0);
        cached.get().await.unwrap();
        sleep(POLICY.min_interval).await;
        cached.notify_change();
        assert_eq!(*cached.get().await.unwrap(), 1, "the cached copy meanwhile");
        sleep(3 * READ_TIME).await;
        assert_eq!(*cached.get().await.unwrap(), 2);
    }

    #[tokio::test]
    async fn used_value_is_refreshed_ahead_within_its_bound() {
        let (cached, count) = counted(0);
        cached.get().await.unwrap();
        sleep(POLICY.max_age + READ_TIME).await;
        assert_eq!(count.load(Ordering::SeqCst), 1, "no caller asked");
        assert_eq!(*cached.get().await.unwrap(), 2, "too old to be returned");
        sleep(POLICY.refresh_after + READ_TIME).await;
        assert_eq!(*cached.get().await.unwrap(), 2, "returned once more, and read in the background");
        sleep(3 * READ_TIME).await;
        assert_eq!(*cached.get().await.unwrap(), 3);
    }

    #[tokio::test]
    async fn removed_value_is_not_returned_during_a_read() {
        let (cached, count) = counted(0);
        let before = tokio::spawn({
            let cached = cached.clone();
            async move { cached.get().await }
        });
        sleep(READ_TIME / 4).await;
        cached.invalidate();
        assert_eq!(*cached.get().await.unwrap(), 2);
        assert_eq!(*before.await.unwrap().unwrap(), 1, "requested before");
        assert_eq!(*cached.get().await.unwrap(), 2);
        assert_eq!(count.load(Ordering::SeqCst), 2);
    }

    #[tokio::test]
    async fn unused_value_is_not_read_on_change() {
        let (cached, count) = counted(0);
        cached.get().await.unwrap();
        sleep(POLICY.max_age + READ_TIME).await;
        cached.notify_change();
        sleep(POLICY.min_interval + READ_TIME).await;
        assert_eq!(count.load(Ordering::SeqCst), 1);
    }
}
