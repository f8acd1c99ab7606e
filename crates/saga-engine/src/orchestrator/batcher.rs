//! Requests of many callers done together: all that wait at a moment in one batch, and none waits for more to come.

use futures::future::BoxFuture;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::BatchBisector;
use crate::store;
use crate::store::concurrency_limit::ConcurrencyLimit;

/// Most requests of one batch.
const BATCH: usize = 256;

/// Most requests that wait for the next batch. One more is refused at once.
const WAITING: usize = 4_096;

type Request<Q, A> = (Q, oneshot::Sender<A>);

/// Does a batch, all of it or nothing, and answers each request in order.
pub type Work<S, Q, A> = for<'a> fn(&'a S, &'a [Q]) -> BoxFuture<'a, store::Result<Vec<A>>>;

/// Where callers bring what is done in batches. Clones lead to the same place.
#[derive(Clone, Debug)]
pub struct Batcher<Q, A> {
    requests: mpsc::Sender<Request<Q, A>>,
}

/// Where the batches are taken from.
#[derive(Debug)]
pub struct BatchQueue<Q, A> {
    what: &'static str,
    id: fn(&Q) -> Uuid,
    requests: mpsc::Receiver<Request<Q, A>>,
}

/// Both ends. What is asked for, and the id of one request, are for the log.
pub fn batcher<Q, A>(what: &'static str, id: fn(&Q) -> Uuid) -> (Batcher<Q, A>, BatchQueue<Q, A>) {
    let (sender, receiver) = mpsc::channel(WAITING);
    (Batcher { requests: sender }, BatchQueue { what, id, requests: receiver })
}

impl<Q, A> Batcher<Q, A> {
    /// The answer to a request. None if too many wait, if it could not be done, or if the service is stopping: it may
    /// have been done even so.
    pub async fn ask(&self, request: Q) -> Option<A> {
        let (caller, answer) = oneshot::channel();
        self.requests.try_send((request, caller)).ok()?;
        answer.await.ok()
    }
}

impl<Q, A> BatchQueue<Q, A> {
    /// Takes requests in batches, in its turns, until the service stops; `with` is what the work needs.
    pub async fn work<S>(
        mut self,
        with: S,
        limit: ConcurrencyLimit,
        stop: CancellationToken,
        work: Work<S, Q, A>,
    ) {
        let mut batch = Vec::with_capacity(BATCH);
        while stop.run_until_cancelled(self.requests.recv_many(&mut batch, BATCH)).await.unwrap_or(0) > 0 {
            let _permit = limit.take_with(&mut batch, BATCH, &mut self.requests).await;
            // Who was answered otherwise meanwhile must not find it done later.
            batch.retain(|(_, caller)| !caller.is_closed());
            let (requests, callers): (Vec<Q>, Vec<oneshot::Sender<A>>) = batch.drain(..).unzip();
            if let Err(error) = self.answer(BatchBisector::of(requests), callers, &with, work).await {
                // Dropped senders are an answer to the callers.
                tracing::warn!(%error, "{} could not be done", self.what);
            }
        }
    }

    /// Halves are done from the first request to the last, so the callers are answered in their order.
    async fn answer<S>(
        &self,
        mut halves: BatchBisector<Q>,
        callers: Vec<oneshot::Sender<A>>,
        with: &S,
        work: Work<S, Q, A>,
    ) -> store::Result<()> {
        let mut callers = callers.into_iter();
        while let Some(requests) = halves.next() {
            let (count, begun) = (requests.len(), Instant::now());
            let done = store::bounded(work(with, requests)).await;
            record(self.what, count, begun.elapsed());
            let result = match done {
                Ok(answers) => {
                    for (answer, caller) in answers.into_iter().zip(callers.by_ref()) {
                        // A caller that has gone away does not want to know.
                        let _told = caller.send(answer);
                    }
                    Ok(())
                }
                // That took seconds already, and callers wait for each answer.
                Err(error) if store::ended_a_wait(&error) => return Err(error),
                Err(error) => Err(error),
            };
            if let Some((request, error)) = halves.record(result).await? {
                tracing::error!(id = %(self.id)(request), %error, "one of the {} could not be done", self.what);
                drop(callers.next());
            }
        }
        Ok(())
    }
}

/// Measures a batch that was done, or tried.
pub(super) fn record(batch: &'static str, items: usize, took: Duration) {
    metrics::histogram!("boxoffice_batch_items", "batch" => batch).record(items as f64);
    metrics::histogram!("boxoffice_batch_duration_seconds", "batch" => batch).record(took.as_secs_f64());
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures::FutureExt;
    use futures::future::{join_all, ready};

    /// The answers that a thousand callers get from work that is given a batch and how many came before it.
    async fn answers(work: fn(&[i32], usize) -> store::Result<Vec<i32>>) -> (Vec<Option<i32>>, usize) {
        let (batched, requests) = batcher("numbers", |_| Uuid::nil());
        let (stop, batches) = (CancellationToken::new(), Arc::new(AtomicUsize::new(0)));
        let with = (work, Arc::clone(&batches));
        let working = tokio::spawn(requests.work(
            with,
            ConcurrencyLimit::default(),
            stop.clone(),
            |(work, batches), numbers| {
                Box::pin(ready(work(numbers, batches.fetch_add(1, Ordering::Relaxed))))
            },
        ));
        let answers = join_all((0..1_000).map(|number| batched.ask(number))).await;
        stop.cancel();
        working.await.unwrap();
        assert_eq!(batched.ask(1).await, None, "after the stop nobody answers");
        (answers, batches.load(Ordering::Relaxed))
    }

    fn doubled(numbers: &[i32]) -> store::Result<Vec<i32>> {
        Ok(numbers.iter().map(|number| number * 2).collect())
    }

    #[tokio::test]
    async fn each_caller_gets_its_answer_from_batches() {
        let (answers, batches) = answers(|numbers, _| doubled(numbers)).await;
        assert_eq!(answers, (0..1_000).map(|number| Some(number * 2)).collect::<Vec<_>>());
        assert_eq!(batches, 4);
    }

    #[tokio::test]
    async fn failing_request_is_isolated_from_its_batch() {
        let (answers, _) =
            answers(|numbers, _| match numbers.iter().any(|number| [0, 300, 301].contains(number)) {
                true => Err(sqlx::Error::RowNotFound),
                false => doubled(numbers),
            })
            .await;
        let bad = |number: &i32| [0, 300, 301].contains(number);
        let expected: Vec<_> = (0..1_000).map(|number| (!bad(&number)).then_some(number * 2)).collect();
        assert_eq!(answers, expected);
    }

    #[tokio::test]
    async fn passing_errors_are_retried_pool_timeouts_are_not() {
        let (answers, batches) = answers(|numbers, before| match before {
            0 => Err(sqlx::Error::WorkerCrashed),
            2 => Err(sqlx::Error::PoolTimedOut),
            _ => doubled(numbers),
        })
        .await;
        let unanswered: Vec<_> = (0..1_000).filter(|number| answers[*number].is_none()).collect();
        assert_eq!(unanswered, (BATCH..2 * BATCH).collect::<Vec<_>>(), "the second batch alone");
        assert_eq!(batches, 5);
    }

    #[test]
    fn one_too_many_is_told_at_once() {
        let (batched, requests) = batcher::<_, i32>("numbers", |_: &i32| Uuid::nil());
        for number in 0..WAITING {
            assert_eq!(batched.ask(number as i32).now_or_never(), None, "{number} waits");
        }
        assert_eq!(batched.ask(0).now_or_never(), Some(None));
        drop(requests);
        assert_eq!(batched.ask(0).now_or_never(), Some(None));
    }
}
