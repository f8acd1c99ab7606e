//! Finding the bad item of a failing batch: try all, then halves, down to the one, which is given up alone.

use std::ops::Range;
use std::time::Duration;

use tokio::time::Instant;

use crate::store;

/// Tries of a batch that fails for a passing reason before its owner is asked what to do.
const PASSING_TRIES: u32 = 5;
/// The longest that these tries may take: each may wait for a lock, or for a server that does not answer.
const PASSING_TIME: Duration = Duration::from_secs(3);

/// Items on their way through attempts: all at once, then in halves where an attempt failed for a reason of its own.
#[derive(Debug)]
pub struct BatchBisector<T> {
    items: Vec<T>,
    left: Vec<Range<usize>>,
    /// When the first try failed for a passing reason, and how many have.
    passing: Option<(Instant, u32)>,
    /// The item that has failed alone once, for a reason of its own.
    suspect: Option<usize>,
}

impl<T> BatchBisector<T> {
    /// All items, to be attempted together first.
    pub fn of(items: Vec<T>) -> Self {
        let left = std::iter::once(0..items.len()).filter(|all| !all.is_empty()).collect();
        Self { items, left, passing: None, suspect: None }
    }

    /// What to attempt next; none when every item is done or given up.
    pub fn next(&self) -> Option<&[T]> {
        self.left.last().map(|range| &self.items[range.clone()])
    }

    /// Takes the result of attempting [`Self::next`]. An item that failed alone, twice, is handed back with its error: what
    /// came of two writers who met does not come again. Passing errors are tried again after a pause, a few times; then the
    /// error is returned, and what is not yet done stays as it was, to be attempted again.
    pub async fn record(
        &mut self,
        result: Result<(), sqlx::Error>,
    ) -> Result<Option<(&T, sqlx::Error)>, sqlx::Error> {
        let (Some(range), Err(error)) = (self.left.pop(), result) else {
            return Ok(None);
        };
        // It says nothing about the items: a deadlock, a lost connection, a full pool.
        if store::is_unavailable(&error) {
            self.left.push(range);
            return self.pause(error).await.map(|()| None);
        }
        if range.len() == 1 {
            if self.suspect.replace(range.start) == Some(range.start) {
                return Ok(Some((&self.items[range.start], error)));
            }
            self.left.push(range);
            return Ok(None);
        }
        tracing::warn!(%error, items = range.len(), "a batch failed and is split");
        self.split(range);
        Ok(None)
    }

    /// Pauses after a passing error; the error itself once there were too many.
    async fn pause(&mut self, error: sqlx::Error) -> Result<(), sqlx::Error> {
        let (since, tries) = self.passing.get_or_insert_with(|| (Instant::now(), 0));
        *tries += 1;
        if *tries >= PASSING_TRIES || since.elapsed() >= PASSING_TIME {
            return Err(error);
        }
        tracing::debug!(%error, "a batch is tried again");
        let pause = Duration::from_millis(20 << *tries);
        tokio::time::sleep(pause).await;
        Ok(())
    }

    /// What fails for a passing reason although the database can be written is attempted in halves from now on. An item that
    /// is alone already is handed back, to be tried again much later; it is no longer among these.
    pub fn set_apart(&mut self) -> Option<&T> {
        let range = self.left.pop()?;
        if range.len() == 1 {
            return self.items.get(range.start);
        }
        self.split(range);
        None
    }

    fn split(&mut self, range: Range<usize>) {
        let middle = range.start + range.len() / 2;
        self.left.push(middle..range.end);
        self.left.push(range.start..middle);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn bad_items_are_found_others_done_in_order() {
        let (mut done, mut bad) = (Vec::new(), Vec::new());
        let mut halves = BatchBisector::of((0..100).collect());
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
    async fn passing_error_is_retried_then_returned() {
        let mut halves = BatchBisector::of(vec![1, 2]);
        for _ in 1..PASSING_TRIES {
            assert!(halves.record(Err(sqlx::Error::PoolTimedOut)).await.unwrap().is_none());
            assert_eq!(halves.next(), Some(&[1, 2][..]));
        }
        assert!(halves.record(Err(sqlx::Error::PoolTimedOut)).await.is_err());
        assert_eq!(halves.next(), Some(&[1, 2][..]), "nothing is lost");
    }

    #[tokio::test(start_paused = true)]
    async fn tries_that_wait_long_are_few() {
        let mut halves = BatchBisector::of(vec![1, 2]);
        assert!(halves.record(Err(sqlx::Error::PoolTimedOut)).await.unwrap().is_none());
        tokio::time::advance(PASSING_TIME).await;
        assert!(halves.record(Err(sqlx::Error::PoolTimedOut)).await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn item_that_fails_once_is_done() {
        let mut halves = BatchBisector::of(vec![1]);
        assert!(halves.record(Err(sqlx::Error::RowNotFound)).await.unwrap().is_none());
        assert_eq!(halves.next(), Some(&[1][..]));
        assert!(halves.record(Ok(())).await.unwrap().is_none());
        assert_eq!(halves.next(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn one_item_with_a_passing_failure_is_isolated() {
        let mut halves = BatchBisector::of((0..8).collect());
        let (mut done, mut apart) = (Vec::new(), Vec::new());
        while let Some(batch) = halves.next() {
            let result = match batch.contains(&5) {
                true => Err(sqlx::Error::PoolTimedOut),
                false => {
                    done.extend_from_slice(batch);
                    Ok(())
                }
            };
            if halves.record(result).await.is_err()
                && let Some(item) = halves.set_apart()
            {
                apart.push(*item);
            }
        }
        assert_eq!((done, apart), (vec![0, 1, 2, 3, 4, 6, 7], vec![5]));
    }
}
