//! Limits the open event streams of places in line, per instance and per user.
//!
//! A user at the limit gets the new stream, and the oldest one ends: a reloaded page, or a browser that lost its connection
//! silently, must not lock out its user.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio_util::sync::CancellationToken;

use super::error::Code;
use super::problem::{Problem, Result};
use crate::ids::UserId;

/// Clones share the streams of this instance.
#[derive(Clone, Debug)]
pub struct StreamLimit(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    most: usize,
    most_per_user: usize,
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    count: usize,
    last_id: u64,
    /// The oldest first.
    users: HashMap<UserId, VecDeque<(u64, CancellationToken)>>,
}

/// An open stream. Dropping it frees its slot.
#[derive(Debug)]
pub struct OpenStream {
    id: u64,
    user: UserId,
    ended: CancellationToken,
    all: StreamLimit,
}

impl StreamLimit {
    /// `most` streams in all, and `most_per_user` of one user.
    pub fn new(most: u32, most_per_user: u32) -> Self {
        let (most, most_per_user) = (most as usize, most_per_user as usize);
        Self(Arc::new(Inner { most, most_per_user, open: Mutex::default() }))
    }

    /// Opens a stream. At the user's limit the user's oldest stream ends; at the limit of all streams it is refused.
    pub fn admit(&self, user: UserId) -> Result<OpenStream> {
        let mut open = self.locked();
        let oldest = open.users.get_mut(&user).filter(|own| own.len() >= self.0.most_per_user);
        if let Some((_, oldest)) = oldest.and_then(VecDeque::pop_front) {
            oldest.cancel();
            open.count -= 1;
        }
        if open.count >= self.0.most {
            metrics::counter!("boxoffice_queue_streams_refused_total").increment(1);
            let detail = format!(
                "{} streams of places in line are open on this instance, and no more are allowed \
                 (BOXOFFICE_QUEUE_STREAMS). Ask for the place itself, as often as poll_after_ms says.",
                self.0.most
            );
            return Err(Problem::new(Code::Unavailable, detail));
        }
        open.count += 1;
        open.last_id += 1;
        let (id, ended) = (open.last_id, CancellationToken::new());
        open.users.entry(user).or_default().push_back((id, ended.clone()));
        metrics::gauge!("boxoffice_queue_streams").increment(1.0);
        Ok(OpenStream { id, user, ended, all: self.clone() })
    }

    pub fn open(&self) -> usize {
        self.locked().count
    }

    fn locked(&self) -> MutexGuard<'_, Open> {
        self.0.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl OpenStream {
    /// Cancelled when a newer stream of the same user replaces this one.
    pub fn ended(&self) -> CancellationToken {
        self.ended.clone()
    }
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        metrics::gauge!("boxoffice_queue_streams").decrement(1.0);
        let mut open = self.all.locked();
        let Some(own) = open.users.get_mut(&self.user) else { return };
        let before = own.len();
        own.retain(|(id, _)| *id != self.id);
        let removed = before - own.len();
        if own.is_empty() {
            open.users.remove(&self.user);
        }
        // A replaced stream has been subtracted already.
        open.count -= removed;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids;

    #[test]
    fn place_is_free_after_its_stream_ended() {
        let listeners = StreamLimit::new(1, 5);
        let first = listeners.admit(ids::new()).unwrap();
        let refused = listeners.admit(ids::new()).unwrap_err();
        assert_eq!(refused.code(), Code::Unavailable);
        assert!(refused.body()["detail"].as_str().unwrap().starts_with("1 streams"), "it names the limit");
        assert_eq!(listeners.open(), 1);
        drop(first);
        assert_eq!(listeners.open(), 0);
        assert!(listeners.admit(ids::new()).is_ok());
    }

    #[test]
    fn stream_over_the_user_limit_ends_the_oldest() {
        let listeners = StreamLimit::new(3, 2);
        let (user, other) = (ids::new(), ids::new());
        let of_other = listeners.admit(other).unwrap();
        let own: Vec<OpenStream> = (0..4).map(|_| listeners.admit(user).unwrap()).collect();
        let ended: Vec<bool> = own.iter().map(|one| one.ended.is_cancelled()).collect();
        assert_eq!((ended, listeners.open()), (vec![true, true, false, false], 3));
        assert!(!of_other.ended.is_cancelled());
        drop(own);
        assert_eq!(listeners.open(), 1);
        drop(of_other);
        assert!(listeners.locked().users.is_empty());
    }
}
