//! Draws the lot when a sale opens. Every instance does so by itself, and all come to the same order.
//!
//! A line that begins in the middle of a sale, because this process has just started, is drawn in the same way.

use std::time::Duration;

use super::super::hall::Hall;
use super::super::line::Lot;
use crate::ids::ConcertId;

/// Runs until the process stops.
pub async fn run(hall: &Hall) {
    loop {
        let next = draw_what_is_due(hall);
        let pause = async {
            match next {
                Some(pause) => tokio::time::sleep(pause).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = hall.stop.cancelled() => return,
            () = hall.openings.notified() => (),
            // Whoever came later waits for this moment too.
            () = pause => hall.turn.notify_one(),
        }
    }
}

/// Orders every line whose opening has come; answers how long until the next one.
fn draw_what_is_due(hall: &Hall) -> Option<Duration> {
    // In the middle of a replay, or of a restoration, each further place would be put in its order one by one.
    if !hall.memory.is_settled() {
        return None;
    }
    let now = hall.clock.now();
    let mut next = None;
    for (concert, lot, is_in_order) in openings(hall) {
        if !lot.is_drawn(now) {
            let pause = (lot.draws_at() - now).to_std().unwrap_or_default();
            next = Some(next.map_or(pause, |next: Duration| next.min(pause)));
        } else if !is_in_order {
            hall.memory.draw(concert, lot);
            tracing::info!(%concert, opened = %lot.opens_at, "the sale is open; those who came before are drawn by lot");
            hall.turn.notify_one();
        }
    }
    next
}

/// Every line's opening, and whether the line is in its order.
fn openings(hall: &Hall) -> Vec<(ConcertId, Lot, bool)> {
    let lines = hall.memory.lines();
    let lots = lines.queues().filter_map(|(concert, queue)| {
        let lot = hall.sales.lot(concert)?;
        Some((concert, lot, queue.is_in_order(&lot)))
    });
    lots.collect()
}
