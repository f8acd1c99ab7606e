//! Idempotency keys whose requests are at work in this process, or whose answers are still to be written.
//!
//! A repeat that comes meanwhile is answered from here, and asks the database nothing.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hashlink::LruCache;

use super::answer::Answer;
use super::error::Code;
use super::problem::{Problem, Result};
use crate::store::idempotency::Claim;

/// Keys that are known to have been used here, 16 bytes each: their repeats look into the database before anything else, so that they
/// do not make the statement of a whole batch fail.
const USED_MAX: usize = 16_384;

/// Clones share the keys.
#[derive(Clone, Debug)]
pub(super) struct OpenKeys(Arc<Mutex<Keys>>);

#[derive(Debug)]
struct Keys {
    hasher: RandomState,
    open: HashMap<u64, Vec<Open>>,
    used: LruCache<u64, ()>,
}

#[derive(Debug)]
struct Open {
    claim: Arc<Claim>,
    /// The final answer, once there is one; it is still to be written.
    answer: Option<Answer>,
}

/// What a request finds.
#[derive(Debug)]
pub(super) enum Begun {
    First(AtWork),
    Answered(Answer),
    /// Another request under the key is at work: why this one is refused, unless the database knows the key. If it does, it
    /// decides: the other request may be the one with the wrong body.
    Contended(Problem),
}

/// The right to work under a key in this process. It ends when it is dropped, unless there is an answer to be written.
#[derive(Debug)]
pub(super) struct AtWork {
    keys: OpenKeys,
    claim: Arc<Claim>,
    /// Whether the key was used here before.
    pub is_used: bool,
}

impl OpenKeys {
    pub(super) fn new() -> Self {
        let (hasher, open) = (RandomState::new(), HashMap::new());
        Self(Arc::new(Mutex::new(Keys { hasher, open, used: LruCache::new(USED_MAX) })))
    }

    fn locked(&self) -> MutexGuard<'_, Keys> {
        // Each change is a single step, so a panic elsewhere leaves the map good.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a request.
    ///
    /// # Errors
    /// 422 if the key has an answer that belongs to another body.
    pub(super) fn begin(&self, claim: &Arc<Claim>) -> Result<Begun> {
        let mut keys = self.locked();
        let hash = keys.hasher.hash_one(claim.name());
        let others = keys.open.entry(hash).or_default();
        if let Some(other) = others.iter().find(|other| other.claim.name() == claim.name()) {
            let is_same = other.claim.fingerprint == claim.fingerprint;
            return match &other.answer {
                Some(answer) if is_same => Ok(Begun::Answered(answer.clone())),
                Some(_) => Err(reused()),
                None => Ok(Begun::Contended(if is_same { in_progress() } else { reused() })),
            };
        }
        others.push(Open { claim: Arc::clone(claim), answer: None });
        let is_used = keys.used.insert(hash, ()).is_some();
        Ok(Begun::First(AtWork { keys: self.clone(), claim: Arc::clone(claim), is_used }))
    }

    /// The answers under these keys are written, or will not be. Who is still at work under one of them goes on.
    pub(super) fn close<'a>(&self, claims: impl Iterator<Item = &'a Claim>) {
        let mut keys = self.locked();
        claims.for_each(|claim| keys.remove(claim, |open| open.answer.is_some()));
    }
}

impl Keys {
    fn remove(&mut self, claim: &Claim, is_over: impl Fn(&Open) -> bool) {
        let hash = self.hasher.hash_one(claim.name());
        if let Some(others) = self.open.get_mut(&hash) {
            others.retain(|other| other.claim.name() != claim.name() || !is_over(other));
            if others.is_empty() {
                self.open.remove(&hash);
            }
        }
    }

    fn find(&mut self, claim: &Claim) -> Option<&mut Open> {
        let hash = self.hasher.hash_one(claim.name());
        self.open.get_mut(&hash)?.iter_mut().find(|other| other.claim.name() == claim.name())
    }
}

impl AtWork {
    /// Repeats get this answer until [`OpenKeys::close`].
    pub(super) fn answered(&self, answer: Answer) {
        if let Some(open) = self.keys.locked().find(&self.claim) {
            open.answer = Some(answer);
        }
    }
}

impl Drop for AtWork {
    fn drop(&mut self) {
        let mut keys = self.keys.locked();
        keys.remove(&self.claim, |open| open.answer.is_none());
    }
}

/// 422: the key belongs to another body.
pub(super) fn reused() -> Problem {
    let detail = "This Idempotency-Key was used with another body. Make a new key for a new request.";
    Problem::new(Code::IdempotencyKeyReused, detail)
}

/// 409: another request under the key is at work.
pub(super) fn in_progress() -> Problem {
    let detail = "A request under this Idempotency-Key is being worked on. Send it again in a second.";
    Problem::new(Code::RequestInProgress, detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(key: &str, body: u8) -> Arc<Claim> {
        let (caller, route) = ("user".to_owned(), "POST /v1/reservations".to_owned());
        Arc::new(Claim { caller, route, key: key.to_owned(), fingerprint: vec![body] })
    }

    fn first(keys: &OpenKeys, claim: &Arc<Claim>) -> AtWork {
        match keys.begin(claim) {
            Ok(Begun::First(at_work)) => at_work,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn repeats_are_refused_during_the_first_request() {
        let (keys, one) = (OpenKeys::new(), claim("one", 1));
        let at_work = first(&keys, &one);
        assert!(!at_work.is_used);
        for (body, code) in [(1, Code::RequestInProgress), (2, Code::IdempotencyKeyReused)] {
            let begun = keys.begin(&claim("one", body));
            assert!(matches!(begun, Ok(Begun::Contended(refused)) if refused.code() == code), "{body}");
        }
        drop(first(&keys, &claim("other", 1)));
        drop(at_work);
        assert!(first(&keys, &claim("one", 2)).is_used, "nothing came of the first");
        assert!(keys.locked().open.is_empty());
    }

    #[test]
    fn answer_is_repeated_until_it_is_written() {
        let (keys, one) = (OpenKeys::new(), claim("one", 1));
        let answer = Answer::created(&serde_json::json!({ "id": 1 }));
        let at_work = first(&keys, &one);
        at_work.answered(answer.clone());
        drop(at_work);
        assert!(matches!(keys.begin(&one), Ok(Begun::Answered(again)) if again == answer));
        assert_eq!(keys.begin(&claim("one", 2)).unwrap_err().code(), Code::IdempotencyKeyReused);
        keys.close(std::iter::once(&*one));
        assert!(first(&keys, &one).is_used);
    }
}
