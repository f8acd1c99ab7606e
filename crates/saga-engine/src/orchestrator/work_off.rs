//! The work that messages bring, done in batches until it is done or known to be impossible. What fails for a reason that
//! passes is tried again, with the messages in hand, for as long as the reason lasts.

use async_nats::jetstream::Message;
use tokio::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

use super::{BatchBisector, Engine, batcher};
use crate::bus::deliveries::{self, InHand};
use crate::bus::{Deliveries, retry};
use crate::store;

/// The pause before work is tried again that failed although the database can be written.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// The work of one kind of message.
pub trait Work<T>: Sync {
    /// What its batches are called in the metrics.
    fn name(&self) -> &'static str {
        "commands"
    }

    /// The message that brought an item.
    fn message<'a>(&self, item: &'a T) -> &'a Message;

    /// Does all of it, or nothing; acknowledges what is done.
    fn attempt(&self, items: &[T]) -> impl Future<Output = store::Result<()>> + Send;

    /// Gives up an item that fails whenever it is tried.
    fn give_up(&self, item: &T, error: sqlx::Error) -> impl Future<Output = ()> + Send;

    /// Puts off an item that fails alone, for a reason that passes.
    fn put_off(&self, item: &T) -> impl Future<Output = ()> + Send {
        deliveries::put_off(self.message(item))
    }
}

impl Engine {
    /// Works off items whose messages are in hand, until all are done, given up or put off, or the service stops. While work
    /// fails for a passing reason nothing more is taken from `incoming`.
    pub async fn work_off<T: Send + Sync>(
        &self,
        items: Vec<T>,
        work: &impl Work<T>,
        in_hand: &InHand,
        incoming: &mut Deliveries,
        stop: &CancellationToken,
    ) {
        let mut halves = BatchBisector::of(items);
        while let Err(error) = in_hand.during(attempt_all(&mut halves, work)).await {
            tracing::warn!(%error, "what messages ask for could not be written; it is tried again");
            incoming.rest();
            let asked = Instant::now();
            in_hand.during(self.wait_for_database(stop)).await;
            if stop.is_cancelled() {
                return;
            }
            // It could be written all the time, so the reason lies with some of these items.
            if asked.elapsed() < RETRY_INTERVAL {
                if let Some(item) = halves.set_apart() {
                    work.put_off(item).await;
                }
                let pause = tokio::time::sleep(RETRY_INTERVAL);
                in_hand.during(stop.run_until_cancelled(pause)).await;
            }
        }
    }

    /// Waits until Postgres can be written, or `stop`. No further messages are asked for meanwhile: each delivery counts, and
    /// after the last one a message is given up.
    pub async fn wait_for_database(&self, stop: &CancellationToken) {
        let answers = retry::retry("writing to Postgres", None, || self.writes());
        // When it stops, the answer does not matter.
        let _answered = stop.run_until_cancelled(answers).await;
    }

    /// Whether the database can be written, as far as this role may find out.
    pub(super) async fn writes(&self) -> store::Result<()> {
        let written = store::can_write(&self.pool).await;
        let unknown = |error: &sqlx::Error| {
            let code = error.as_database_error().and_then(|error| error.code());
            code.is_some_and(|code| code == "42501" || code == "42P01")
        };
        written.or_else(|error| if unknown(&error) { Ok(()) } else { Err(error) })
    }
}

async fn attempt_all<T: Send + Sync>(
    halves: &mut BatchBisector<T>,
    work: &impl Work<T>,
) -> store::Result<()> {
    while let Some(items) = halves.next() {
        // On the heap: the futures of whole batches are large, and are moved whenever a loop is spawned.
        let (count, begun) = (items.len(), Instant::now());
        let result = Box::pin(work.attempt(items)).await;
        batcher::record(work.name(), count, begun.elapsed());
        if let Some((item, error)) = halves.record(result).await? {
            Box::pin(work.give_up(item, error)).await;
        }
    }
    Ok(())
}
