//! `Idempotency-Key`: a request that is sent again does its work once, and gets the answer it got before.
//!
//! The key is claimed before anything is done, and the claim carries the id that the effect will have. So
//! even when the process dies between the effect and the saving of the answer, the next request under the
//! key comes with the same id and finds the effect by its primary key. Final answers are saved. A refusal
//! gives the claim up, because the same request may succeed later. When the outcome is not known (202, or
//! an error of ours) the claim stays, unlocked, so that the next request looks at the same effect again.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::http::{HeaderName, StatusCode};
use axum::response::{IntoResponse, Response};
use sqlx::{PgExecutor, PgPool};
use uuid::Uuid;

use super::answer::Answer;
use super::error::Code;
use super::problem::{Problem, Result};
use super::request::Command;
use crate::ids;
use crate::store::idempotency::{self, Claim};

const REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");

/// The id that a request's effect must have, and the claim it was given under.
#[derive(Clone, Debug)]
pub struct Effect {
    /// Becomes the primary key of what the request makes.
    pub id: Uuid,
    claim: Option<Claim>,
    /// Whether the answer is saved with the effect already.
    saved: Arc<AtomicBool>,
}

impl Effect {
    fn new(id: Uuid, claim: Option<Claim>) -> Self {
        Self { id, claim, saved: Arc::default() }
    }

    /// Saves the final answer in the transaction of the effect; without a key there is nothing to save.
    pub async fn save(&self, db: impl PgExecutor<'_>, answer: &Answer) -> Result<()> {
        if let Some(claim) = &self.claim {
            idempotency::save(db, claim, self.id, answer.status.as_u16(), &answer.body).await?;
            self.saved.store(true, Ordering::Relaxed);
        }
        Ok(())
    }
}

/// Does the work of a command, or gives the answer it got before. Without a key the work is simply done.
pub async fn once<T, Fut>(
    pool: &PgPool,
    caller: String,
    command: Command<T>,
    work: impl FnOnce(T, Effect) -> Fut,
) -> Result<Response>
where
    Fut: Future<Output = Result<Answer>>,
{
    let Command { body, key, route, fingerprint } = command;
    let Some(key) = key else {
        let effect = Effect::new(ids::new(), None);
        return Ok(work(body, effect).await?.into_response());
    };
    let claim = Claim { caller, route, key, fingerprint };
    let Some(id) = idempotency::claim(pool, &claim, ids::new()).await? else {
        return replay(pool, &claim).await;
    };
    let effect = Effect::new(id, Some(claim.clone()));
    let saved = Arc::clone(&effect.saved);
    let result = work(body, effect).await;
    if result.is_err() || !saved.load(Ordering::Relaxed) {
        settle(pool, &claim, id, &result).await;
    }
    Ok(result?.into_response())
}

/// Answers a request whose key is known already.
async fn replay(pool: &PgPool, claim: &Claim) -> Result<Response> {
    let known = idempotency::find(pool, claim).await?;
    if known.as_ref().is_some_and(|known| known.fingerprint != claim.fingerprint) {
        let detail = "This Idempotency-Key was used with another body. Make a new key for a new request.";
        return Err(Problem::new(Code::IdempotencyKeyReused, detail));
    }
    let saved = known.and_then(|known| Some((known.status?, known.body?)));
    let Some((status, body)) = saved else {
        let detail = "A request under this Idempotency-Key is being worked on. Send it again in a second.";
        return Err(Problem::new(Code::RequestInProgress, detail));
    };
    let status = u16::try_from(status).ok().and_then(|status| StatusCode::from_u16(status).ok());
    let answer = Answer::new(status.unwrap_or(StatusCode::OK), &body);
    Ok(answer.with(REPLAYED, "true").into_response())
}

/// What becomes of a claim once the work is over.
#[derive(Clone, Debug, PartialEq)]
enum Fate {
    Save(u16, serde_json::Value),
    Unlock,
    Release,
}

fn fate(result: &Result<Answer>) -> Fate {
    match result {
        Ok(answer) if answer.status == StatusCode::ACCEPTED => Fate::Unlock,
        Ok(answer) => Fate::Save(answer.status.as_u16(), answer.body.clone()),
        Err(problem) if problem.code() == Code::SeatTaken => {
            Fate::Save(problem.status().as_u16(), problem.body())
        }
        Err(problem) if problem.status().is_server_error() => Fate::Unlock,
        Err(_) => Fate::Release,
    }
}

/// The answer goes out whether or not this succeeds: a claim left behind is taken over after its lock has run out.
async fn settle(pool: &PgPool, claim: &Claim, effect: Uuid, result: &Result<Answer>) {
    let settled = match fate(result) {
        Fate::Save(status, body) => idempotency::save(pool, claim, effect, status, &body).await,
        Fate::Unlock => idempotency::unlock(pool, claim, effect).await,
        Fate::Release => idempotency::release(pool, claim, effect).await,
    };
    if let Err(error) = settled {
        tracing::warn!(%error, "the answer under an Idempotency-Key could not be saved");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_final_answers_are_saved() {
        let body = serde_json::json!({ "id": 1 });
        assert_eq!(fate(&Ok(Answer::created(&body))), Fate::Save(201, body.clone()));
        assert_eq!(fate(&Ok(Answer::ok(&body))), Fate::Save(200, body.clone()));
        assert_eq!(fate(&Ok(Answer::accepted("/v1/reservations/1", &body))), Fate::Unlock);
        for code in Code::ALL {
            let problem = Problem::new(code, "");
            let expected = match code {
                Code::SeatTaken => Fate::Save(409, problem.body()),
                Code::Unavailable | Code::Internal => Fate::Unlock,
                _ => Fate::Release,
            };
            assert_eq!(fate(&Err(problem)), expected, "{code:?}");
        }
    }
}
