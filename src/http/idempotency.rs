//! `Idempotency-Key`: a request that is sent again does its work once, and gets the answer it got before.
//!
//! Here the key is claimed before anything is done, and the claim carries the id that the effect will have. So
//! even when the process dies between the effect and the saving of the answer, the next request under the
//! key comes with the same id and finds the effect by its primary key. Final answers are saved. A refusal
//! gives the claim up, because the same request may succeed later. When the outcome is not known (202, or
//! an error of ours) the claim stays, unlocked, so that the next request looks at the same effect again.
//!
//! Keys are claimed, and claims ended, for all requests of a moment in one statement. What buyers ask for most goes by
//! [`super::keyed`], which claims the key together with the effect.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::http::{HeaderName, StatusCode};
use axum::response::{IntoResponse, Response};
use sqlx::{PgExecutor, PgPool};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::answer::Answer;
use super::answer_writer::AnswerWriter;
use super::error::Code;
use super::open_keys::{OpenKeys, in_progress, reused};
use super::problem::Result;
use super::request::Command;
use crate::background::Tasks;
use crate::booking::BookingError;
use crate::ids;
use crate::orchestrator::{Batcher, Engine, batcher};
use crate::store;
use crate::store::idempotency::{self, Asked, Claim, End, Ended, Known};

const REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");

/// Where requests that may come again claim their keys, and their claims end.
#[derive(Clone, Debug)]
pub struct Repeats {
    pub(super) pool: PgPool,
    claims: Batcher<Asked, Option<Uuid>>,
    ends: Batcher<Ended, ()>,
    finds: Batcher<Arc<Claim>, Option<Known>>,
    pub(super) open_keys: OpenKeys,
    pub(super) answers: AnswerWriter,
}

impl Repeats {
    /// Starts the tasks that claim and end on the engine's connections, in its turns, until the stop.
    pub fn open(engine: &Engine, tasks: &Tasks, stop: &CancellationToken) -> Self {
        let Engine { pool, steps, limit, .. } = engine;
        let (claims, asked) = batcher("claims of keys", |asked: &Asked| asked.fresh);
        let (finds, sought) = batcher("keys that are looked up", |_: &Arc<Claim>| Uuid::nil());
        let finding = sought.work(steps.clone(), limit.clone(), stop.clone(), |steps, sought| {
            Box::pin(find_all(steps, sought))
        });
        tasks.supervise("keys that are looked up", finding);
        let (ends, ended) = batcher("ends of claims", |ended: &Ended| ended.effect);
        let claiming = asked.work(steps.clone(), limit.clone(), stop.clone(), |steps, asked| {
            Box::pin(idempotency::claim(steps, asked))
        });
        let ending = ended
            .work(steps.clone(), limit.clone(), stop.clone(), |steps, ended| Box::pin(end_all(steps, ended)));
        tasks.supervise("claims of keys", claiming);
        tasks.supervise("ends of claims", ending);
        let open_keys = OpenKeys::new();
        let answers = AnswerWriter::new(pool.clone(), open_keys.clone(), tasks, stop);
        Self { pool: pool.clone(), claims, ends, finds, open_keys, answers }
    }

    /// What is known under a key: all that are looked up at a moment are read together, so that a crowd of repeats does not queue for
    /// connections.
    pub(super) async fn find(&self, claim: &Arc<Claim>) -> Result<Option<Known>> {
        match self.finds.ask(Arc::clone(claim)).await {
            Some(known) => Ok(known),
            // The service is stopping, or its batch failed.
            None => Ok(idempotency::find(&self.pool, &[claim]).await?.pop().flatten()),
        }
    }

    /// Claims a key that has no answer and is not locked; the effect that it has.
    pub(super) async fn claim(&self, claim: &Arc<Claim>) -> Result<Option<Uuid>> {
        let asked = Asked { claim: Arc::clone(claim), fresh: ids::new() };
        Ok(self.claims.ask(asked).await.ok_or(BookingError::Unavailable)?)
    }

    /// Claims an id that may be used once, for a caller and a route. Answers whether this is its first use, on any instance.
    pub async fn use_once(&self, caller: String, route: &str, id: Uuid) -> Result<bool> {
        let claim = Claim { caller, route: route.to_owned(), key: id.to_string(), fingerprint: Vec::new() };
        let asked = Asked { claim: Arc::new(claim), fresh: ids::new() };
        let fresh = asked.fresh;
        let effect = self.claims.ask(asked).await.ok_or(BookingError::Unavailable)?;
        // A claim whose lock has run out is taken over with the id of its first use.
        Ok(effect == Some(fresh))
    }

    /// Returns when it is written. The answer goes out whether or not this succeeds: a claim left behind is taken over
    /// after its lock has run out.
    pub(super) async fn end(&self, claim: &Arc<Claim>, effect: Uuid, result: &Result<Answer>) {
        let ended = || Ended { claim: Arc::clone(claim), effect, end: end(result) };
        if self.ends.ask(ended()).await.is_some() {
            return;
        }
        // Its batch failed, or the service is stopping: this one is tried by itself.
        if let Err(error) = idempotency::end(&self.pool, &[ended()]).await {
            tracing::warn!(%error, "the answer under an Idempotency-Key could not be saved");
        }
    }
}

async fn find_all(steps: &PgPool, sought: &[Arc<Claim>]) -> store::Result<Vec<Option<Known>>> {
    let claims: Vec<&Claim> = sought.iter().map(|claim| &**claim).collect();
    idempotency::find(steps, &claims).await
}

async fn end_all(steps: &PgPool, ended: &[Ended]) -> store::Result<Vec<()>> {
    idempotency::end(steps, ended).await?;
    Ok(vec![(); ended.len()])
}

/// The id that a request's effect must have, and the claim it was given under.
#[derive(Clone, Debug)]
pub struct Effect {
    /// Becomes the primary key of what the request makes.
    pub id: Uuid,
    claim: Option<Arc<Claim>>,
    /// Whether the answer is saved with the effect already.
    saved: Arc<AtomicBool>,
}

impl Effect {
    fn new(id: Uuid, claim: Option<Arc<Claim>>) -> Self {
        Self { id, claim, saved: Arc::default() }
    }

    /// Saves the final answer in the transaction of the effect; without a key there is nothing to save.
    pub async fn save(&self, db: impl PgExecutor<'_>, answer: &Answer) -> Result<()> {
        if let Some(claim) = &self.claim {
            let end = End::Save(answer.status.as_u16(), answer.body.clone());
            let ended = Ended { claim: Arc::clone(claim), effect: self.id, end };
            idempotency::end(db, &[ended]).await?;
            self.saved.store(true, Ordering::Relaxed);
        }
        Ok(())
    }
}

/// Does the work of a command, or gives the answer it got before. Without a key the work is simply done.
pub async fn once<T, Fut>(
    repeats: &Repeats,
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
    let claim = Arc::new(Claim { caller, route, key, fingerprint });
    let Some(id) = repeats.claim(&claim).await? else {
        return replay(repeats, &claim).await;
    };
    let effect = Effect::new(id, Some(Arc::clone(&claim)));
    let saved = Arc::clone(&effect.saved);
    let result = work(body, effect).await;
    if result.is_err() || !saved.load(Ordering::Relaxed) {
        repeats.end(&claim, id, &result).await;
    }
    Ok(result?.into_response())
}

/// Answers a request whose key is known already.
async fn replay(repeats: &Repeats, claim: &Arc<Claim>) -> Result<Response> {
    let known = repeats.find(claim).await?;
    match known {
        Some(known) if known.fingerprint != claim.fingerprint => Err(reused()),
        known => known.and_then(known_answer).map(replayed).ok_or_else(in_progress),
    }
}

/// The final answer that is saved under a key.
pub(super) fn known_answer(known: Known) -> Option<Answer> {
    let status = u16::try_from(known.status?).ok().and_then(|status| StatusCode::from_u16(status).ok());
    Some(Answer::new(status.unwrap_or(StatusCode::OK), &known.body?))
}

/// An answer that was given before.
pub(super) fn replayed(answer: Answer) -> Response {
    answer.with(REPLAYED, "true").into_response()
}

/// What becomes of a claim once the work has come to this.
pub(super) fn end(result: &Result<Answer>) -> End {
    match result {
        Ok(answer) if answer.status == StatusCode::ACCEPTED => End::Unlock,
        Ok(answer) => End::Save(answer.status.as_u16(), answer.body.clone()),
        Err(problem) if problem.code() == Code::SeatTaken => {
            End::Save(problem.status().as_u16(), problem.body())
        }
        Err(problem) if problem.status().is_server_error() => End::Unlock,
        Err(_) => End::Release,
    }
}

#[cfg(test)]
mod tests {
    use super::super::problem::Problem;
    use super::*;

    #[test]
    fn only_final_answers_are_saved() {
        let body = serde_json::json!({ "id": 1 });
        assert_eq!(end(&Ok(Answer::created(&body))), End::Save(201, body.clone()));
        assert_eq!(end(&Ok(Answer::ok(&body))), End::Save(200, body.clone()));
        assert_eq!(end(&Ok(Answer::accepted("/v1/reservations/1", &body))), End::Unlock);
        for code in Code::ALL {
            let problem = Problem::new(code, "");
            let expected = match code {
                Code::SeatTaken => End::Save(409, problem.body()),
                Code::Unavailable | Code::Internal => End::Unlock,
                _ => End::Release,
            };
            assert_eq!(end(&Err(problem)), expected, "{code:?}");
        }
    }
}
