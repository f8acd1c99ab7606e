//! Requests whose `Idempotency-Key` is claimed by the statement that begins their effect, so that the key costs no commit of its own.
//!
//! A request with a new key is begun without asking for the key first. Whatever it comes to, the key has the last word: if the statement
//! finds the key taken it begins nothing, and before a refusal goes out the key is looked up. So a key that is known decides
//! before the queue gate does, though the gate was asked first.
//!
//! The answer is written afterwards, see [`super::answer_writer`]. A claim without an answer belongs to a request that is at work, or
//! whose process died. Either way the rows of its effect say what the answer is once the effect is over; until then, and for five
//! seconds from the claim, a repeat gets 409, and after that it goes on with the same effect.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::response::{IntoResponse, Response};
use sqlx::PgConnection;
use uuid::Uuid;

use super::answer::Answer;
use super::idempotency::{Repeats, end, known_answer, replayed};
use super::open_keys::{AtWork, Begun, in_progress, reused};
use super::problem::Result;
use crate::booking::BookingError;
use crate::ids;
use crate::store::claims::{Key, claim_ended};
use crate::store::idempotency::{self, Asked, Claim, End, Ended};

/// A key may be given up while a request looks at it; then the request tries again.
const ATTEMPTS: u32 = 4;
/// How often a repeat looks for an answer that is being written elsewhere, before it builds the answer itself.
const ANSWER_LOOKS: u32 = 3;
const ANSWER_LOOK_INTERVAL: Duration = Duration::from_millis(150);

/// A request that has its effect once under its key.
pub(super) trait Request: Sync {
    /// Does it, or goes on with what an earlier request under the key began.
    fn work(&self, effect: &Effect) -> impl Future<Output = Result<Answer>> + Send;

    /// The final answer to an earlier request under the key, from the rows of its effect; none while there is none.
    fn earlier_answer(&self, earlier: Earlier) -> impl Future<Output = Result<Option<Answer>>> + Send;
}

/// What an earlier request has begun.
#[derive(Clone, Copy, Debug)]
pub(super) struct Earlier {
    pub effect: Uuid,
    /// Whether it has begun itself what its answer is about.
    pub began: bool,
}

/// The id that a request's effect must have, and the key that is to be claimed with it.
#[derive(Debug)]
pub(super) struct Effect {
    /// Becomes the primary key of what the request makes.
    pub id: Uuid,
    claim: Option<Arc<Claim>>,
    /// The key, unless an earlier request under it has claimed it.
    key: Option<Key>,
    /// What an earlier request under the key had begun.
    pub began: bool,
    is_saved: AtomicBool,
}

impl Effect {
    fn without_key() -> Self {
        Self { id: ids::new(), claim: None, key: None, began: false, is_saved: AtomicBool::new(false) }
    }

    fn fresh(claim: &Arc<Claim>) -> Self {
        let id = ids::new();
        let key = Key::new(Asked { claim: Arc::clone(claim), fresh: id });
        Self { id, key: Some(key), ..Self::held(claim, Earlier { effect: id, began: false }) }
    }

    fn held(claim: &Arc<Claim>, earlier: Earlier) -> Self {
        let Earlier { effect, began } = earlier;
        Self { id: effect, claim: Some(Arc::clone(claim)), key: None, began, ..Self::without_key() }
    }

    /// The key that the effect's statement has to claim, if there is one.
    pub(super) fn key(&self) -> Option<&Key> {
        self.key.as_ref()
    }

    /// Whether an earlier request under the key may have begun this effect.
    pub(super) fn may_be_begun(&self) -> bool {
        self.claim.is_some() && self.key.is_none()
    }

    /// Whether this request has its key: claimed with its effect, or taken over.
    fn has_key(&self) -> bool {
        match &self.key {
            Some(key) => key.is_claimed() == Some(true),
            None => self.claim.is_some(),
        }
    }

    fn has_lost_key(&self) -> bool {
        self.key.as_ref().and_then(Key::is_claimed) == Some(false)
    }

    /// Claims the key together with its final answer, in the transaction of the effect.
    pub(super) async fn save(&self, db: &mut PgConnection, answer: &Answer) -> Result<()> {
        let Some(claim) = &self.claim else {
            return Ok(());
        };
        let end = End::Save(answer.status.as_u16(), answer.body.clone());
        let ended = Ended { claim: Arc::clone(claim), effect: self.id, end };
        match &self.key {
            None => idempotency::end(db, &[ended]).await?,
            Some(key) => {
                let is_claimed = claim_ended(db, &ended, true).await?;
                key.decide(is_claimed);
                if !is_claimed {
                    return Err(BookingError::KeyTaken.into());
                }
            }
        }
        self.is_saved.store(true, Ordering::Relaxed);
        Ok(())
    }
}

/// What is known of a key.
enum Found {
    Nothing,
    Answer(Answer),
    /// This request goes on with what an earlier one began.
    Open(Earlier),
}

/// Does a request, or gives the answer it got before. Without a key it is simply done.
pub(super) async fn once(
    repeats: &Repeats,
    claim: Option<Claim>,
    request: &impl Request,
) -> Result<Response> {
    let Some(claim) = claim.map(Arc::new) else {
        return Ok(request.work(&Effect::without_key()).await?.into_response());
    };
    let at_work = match repeats.open_keys.begin(&claim)? {
        Begun::First(at_work) => at_work,
        Begun::Answered(answer) => return Ok(replayed(answer)),
        Begun::Contended(refused) => {
            return match find(repeats, &claim, None, request).await? {
                Found::Answer(answer) => Ok(replayed(answer)),
                Found::Nothing | Found::Open(_) => Err(refused),
            };
        }
    };
    let mut looks = at_work.is_used;
    for _ in 0..ATTEMPTS {
        let found =
            if looks { find(repeats, &claim, Some(&at_work), request).await? } else { Found::Nothing };
        let effect = match found {
            Found::Nothing => Effect::fresh(&claim),
            Found::Answer(answer) => return Ok(replayed(answer)),
            Found::Open(earlier) => Effect::held(&claim, earlier),
        };
        let result = request.work(&effect).await;
        if concludes(repeats, &at_work, &claim, &effect, &result, looks).await? {
            return Ok(result?.into_response());
        }
        looks = true;
    }
    Err(in_progress())
}

/// Looks a key up. A claim whose request seems to be dead is taken over by who is at work under the key in this process.
async fn find(
    repeats: &Repeats,
    claim: &Arc<Claim>,
    at_work: Option<&AtWork>,
    request: &impl Request,
) -> Result<Found> {
    let mut looks = 0;
    let (earlier, is_locked) = loop {
        let Some(known) = repeats.find(claim).await? else {
            return Ok(Found::Nothing);
        };
        if known.fingerprint != claim.fingerprint {
            return Err(reused());
        }
        let earlier = Earlier { effect: known.effect_id, began: known.began };
        let is_locked = known.is_locked;
        if let Some(answer) = known_answer(known) {
            return Ok(Found::Answer(answer));
        }
        let Some(at_work) = at_work else {
            return Err(in_progress());
        };
        let Some(answer) = request.earlier_answer(earlier).await? else {
            break (earlier, is_locked);
        };
        looks += 1;
        if is_locked && looks < ANSWER_LOOKS {
            // Another instance is about to write the answer that it gave. One that is built again has other remaining seconds.
            tokio::time::sleep(ANSWER_LOOK_INTERVAL).await;
            continue;
        }
        let end = End::Save(answer.status.as_u16(), answer.body.clone());
        at_work.answered(answer.clone());
        repeats.answers.write_soon(Ended { claim: Arc::clone(claim), effect: earlier.effect, end });
        return Ok(Found::Answer(answer));
    };
    if is_locked {
        return Err(in_progress());
    }
    // Of several repeats one takes it over.
    match repeats.claim(claim).await? {
        Some(effect) => Ok(Found::Open(Earlier { effect, ..earlier })),
        None => Err(in_progress()),
    }
}

/// Ends the claim as the result demands. False if another request has the key: then the result counts for nothing.
async fn concludes(
    repeats: &Repeats,
    at_work: &AtWork,
    claim: &Arc<Claim>,
    effect: &Effect,
    result: &Result<Answer>,
    has_looked: bool,
) -> Result<bool> {
    if effect.has_lost_key() {
        return Ok(false);
    }
    if result.is_ok() && effect.is_saved.load(Ordering::Relaxed) {
        return Ok(true);
    }
    let ended = Ended { claim: Arc::clone(claim), effect: effect.id, end: end(result) };
    match (&ended.end, effect.has_key()) {
        (End::Save(..), true) => {
            at_work.answered(match result {
                Ok(answer) => answer.clone(),
                Err(problem) => Answer::new(problem.status(), &problem.body()),
            });
            repeats.answers.write_soon(ended);
        }
        (_, true) => repeats.end(claim, effect.id, result).await,
        // The statement may have been committed even so.
        (End::Unlock, false) if result.is_err() => repeats.answers.write_soon(ended),
        (End::Release, false) => {
            return Ok(has_looked || repeats.find(claim).await?.is_none());
        }
        // Nothing had to be begun for this answer.
        (End::Save(..) | End::Unlock, false) => return Ok(claim_ended(&repeats.pool, &ended, false).await?),
    }
    Ok(true)
}
