//! Lines end with their sale: once every seat is sold, or the last window has closed, nobody waits for nothing.
//!
//! Those in line are told at once, by the state of the sale; their places end a little later, from the back on, so that a
//! cancellation meanwhile still finds those in front. Whoever is admitted keeps the session.

use std::time::Duration;

use futures::StreamExt;

use super::super::hall::Hall;
use super::super::place::{Entry, If};
use crate::bus::subjects;
use crate::ids::{ConcertId, UserId};

/// For how long nothing must have been for sale before places end.
const GRACE: Duration = Duration::from_secs(3);
/// Places of all lines that end in one round, so that renewing the lease is never late.
const ROUND: usize = 256;
/// Deletions in flight at once.
const WIDTH: usize = 64;
/// How long the watch may take to show what has been written.
const SIGHT: Duration = Duration::from_millis(1_500);

/// Ends places in lines whose sale is over; answers how many it were, and whether there are more.
pub async fn close_lines(hall: &Hall) -> (u32, bool) {
    let chosen = choose(hall);
    let is_full = chosen.len() == ROUND;
    if chosen.is_empty() {
        return (0, false);
    }
    let deleted: Vec<u64> = futures::stream::iter(chosen)
        .map(|(concert, user, entry)| async move {
            let key = subjects::queue_place(concert, user);
            hall.bucket.delete(&key, If::At(entry.revision), true).await
        })
        .buffer_unordered(WIDTH)
        .filter_map(|deleted| async { deleted.ok() })
        .collect()
        .await;
    hall.memory.wait_for(deleted.iter().copied().max().unwrap_or(0), SIGHT).await;
    (u32::try_from(deleted.len()).unwrap_or(u32::MAX), is_full && !deleted.is_empty())
}

/// The last in lines whose sale has been over for a while.
fn choose(hall: &Hall) -> Vec<(ConcertId, UserId, Entry)> {
    let lines = hall.memory.lines();
    lines
        .queues()
        .filter(|(concert, queue)| {
            queue.waiting() > 0 && hall.sales.over_for(*concert).is_some_and(|over| over >= GRACE)
        })
        .flat_map(|(concert, queue)| queue.back().map(move |(user, entry)| (concert, user, entry)))
        .take(ROUND)
        .collect()
}
