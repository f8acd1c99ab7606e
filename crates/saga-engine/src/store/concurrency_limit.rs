//! Turns: how many batches are at work in the database at a time.
//!
//! The more loops are at work beside each other, the less each of them finds to do at once, and the more everything costs. With a
//! turn for each processor none is idle, and what comes while a loop waits for its turn is done together with the rest of its
//! batch. A system with nothing to do waits for nothing.

use std::sync::Arc;
use std::thread::available_parallelism;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::timeout;

/// Longest wait for a turn: those who have one may be waiting for another transaction's lock, or for NATS.
const PATIENCE: Duration = Duration::from_millis(100);

/// The turns of a process. Clones share them.
#[derive(Clone, Debug)]
pub struct ConcurrencyLimit(Arc<Semaphore>);

/// Being at work, until it is dropped.
#[derive(Debug)]
pub struct Permit {
    _one: Option<OwnedSemaphorePermit>,
}

impl Default for ConcurrencyLimit {
    /// As many as this machine has processors for this process.
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(available_parallelism().map_or(1, usize::from))))
    }
}

impl ConcurrencyLimit {
    /// Waits for a turn.
    pub async fn take(&self) -> Permit {
        let turn = timeout(PATIENCE, Arc::clone(&self.0).acquire_owned()).await;
        Permit { _one: turn.ok().and_then(Result::ok) }
    }

    /// Waits for a turn, and adds what has come meanwhile to the batch, up to so many in all.
    pub async fn take_with<T>(
        &self,
        batch: &mut Vec<T>,
        most: usize,
        from: &mut mpsc::Receiver<T>,
    ) -> Permit {
        let turn = self.take().await;
        while batch.len() < most
            && let Ok(one) = from.try_recv()
        {
            batch.push(one);
        }
        turn
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn wait_for_a_permit_is_bounded() {
        let limit = ConcurrencyLimit(Arc::new(Semaphore::new(1)));
        let (sender, mut from) = mpsc::channel(10);
        let first = limit.take().await;
        let mut batch = vec![0];
        let mut waiting = Box::pin(limit.take_with(&mut batch, 3, &mut from));
        assert!((&mut waiting).now_or_never().is_none(), "there is one turn");
        for number in 1..=4 {
            sender.try_send(number).unwrap();
        }
        drop(first);
        let second = waiting.await;
        assert_eq!((batch, from.try_recv()), (vec![0, 1, 2], Ok(3)), "no more than asked for");
        let begun = tokio::time::Instant::now();
        drop(limit.take().await);
        assert_eq!(begun.elapsed(), PATIENCE, "beside the one who has it");
        drop(second);
        assert!(limit.take().now_or_never().is_some());
    }
}
