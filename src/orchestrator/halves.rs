//! Finding the bad item of a failing batch: try all, then halves, down to the one, which is given up alone.

use std::ops::Range;
use std::time::Duration;

use crate::store;

/// Tries of a batch that fails for a passing reason before it is left to a redelivery.
const PASSING_TRIES: u32 = 5;

/// Items on their way through attempts: all at once, then in halves where an attempt failed for a reason of its own.
#[derive(Debug)]
pub struct Halves<T> {
    items: Vec<T>,
    left: Vec<Range<usize>>,
    passing: u32,
}

impl<T> Halves<T> {
    /// All items, to be attempted together first.
    pub fn of(items: Vec<T>) -> Self {
        let left = std::iter::once(0..items.len()).filter(|all| !all.is_empty()).collect();
        Self { items, left, passing: 0 }
    }

    /// What to attempt next; none when every item is done or given up.
    pub fn next(&self) -> Option<&[T]> {
        self.left.last().map(|range| &self.items[range.clone()])
    }

    /// Takes the result of attempting [`Self::next`]. An item that failed alone is handed back with its error.
    /// Passing errors are tried again after a pause, a few times; then the error is returned, and whatever is
    /// not yet done stays as it was.
    pub async fn record(
        &mut self,
        result: Result<(), sqlx::Error>,
    ) -> Result<Option<(&T, sqlx::Error)>, sqlx::Error> {
        let (Some(range), Err(error)) = (self.left.pop(), result) else {
            return Ok(None);
        };
        // It says nothing about the items: a deadlock, a lost connection, a full pool.
        if store::is_unavailable(&error) {
            self.passing += 1;
            if self.passing == PASSING_TRIES {
                return Err(error);
            }
            tracing::debug!(%error, "a batch is tried again");
            tokio::time::sleep(Duration::from_millis(20 << self.passing)).await;
            self.left.push(range);
            return Ok(None);
        }
        if range.len() == 1 {
            return Ok(Some((&self.items[range.start], error)));
        }
        tracing::warn!(%error, items = range.len(), "a batch failed and is split");
        let middle = range.start + range.len() / 2;
        self.left.push(middle..range.end);
        self.left.push(range.start..middle);
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_bad_items_are_found_and_the_others_are_done_in_order() {
        let (mut done, mut bad) = (Vec::new(), Vec::new());
        let mut halves = Halves::of((0..100).collect());
        while let Some(batch) = halves.next() {
            let result = if batch.contains(&37) || batch.contains(&38) {
                Err(sqlx::Error::RowNotFound)
            } else {
                done.extend_from_slice(batch);
                Ok(())
            };
            if let Some((item, _)) = halves.record(result).await.unwrap() {
                bad.push(*item);
            }
        }
        assert_eq!(bad, [37, 38]);
        assert_eq!(done, (0..100).filter(|n| ![37, 38].contains(n)).collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn a_passing_error_is_tried_again_and_then_returned() {
        let mut halves = Halves::of(vec![1, 2]);
        for _ in 1..PASSING_TRIES {
            assert!(halves.record(Err(sqlx::Error::PoolTimedOut)).await.unwrap().is_none());
            assert_eq!(halves.next(), Some(&[1, 2][..]));
        }
        assert!(halves.record(Err(sqlx::Error::PoolTimedOut)).await.is_err());
    }
}
