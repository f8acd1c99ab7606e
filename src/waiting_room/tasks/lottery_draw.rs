//! Draws the lottery when a sale opens. Every instance draws by itself, and all get the same order. An instance that starts
//! during a sale draws in the same way.

use std::time::Duration;

use super::super::line::Lottery;
use super::super::room_state::RoomState;
use crate::ids::ConcertId;

/// Runs until the process stops.
pub async fn run(room: &RoomState) {
    loop {
        let next = draw_due(room);
        let pause = async {
            match next {
                Some(pause) => tokio::time::sleep(pause).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = room.stop.cancelled() => return,
            () = room.wakeups.sales_changed.notified() => (),
            // Users who joined after the opening can also be admitted from now on.
            () = pause => room.wakeups.admit_now.notify_one(),
        }
    }
}

/// Draws every lottery that is due. Returns how long until the next one.
fn draw_due(room: &RoomState) -> Option<Duration> {
    // During a replay or a restoration the line would be sorted again for each further place.
    if !room.memory.is_settled() {
        return None;
    }
    let now = room.clock.now();
    let mut next = None;
    for (concert, lottery, is_in_order) in lotteries(room) {
        if !lottery.is_drawn(now) {
            let pause = (lottery.draws_at() - now).to_std().unwrap_or_default();
            next = Some(next.map_or(pause, |next: Duration| next.min(pause)));
        } else if !is_in_order {
            room.memory.draw(concert, lottery);
            tracing::info!(%concert, opened = %lottery.opens_at, "the sale is open; users who joined before were drawn by lot");
            room.wakeups.admit_now.notify_one();
        }
    }
    next
}

/// The lottery of every line, and whether the line has its order.
fn lotteries(room: &RoomState) -> Vec<(ConcertId, Lottery, bool)> {
    let lines = room.memory.lines();
    let found = lines.queues().filter_map(|(concert, queue)| {
        let lottery = room.sales.lottery(concert)?;
        Some((concert, lottery, queue.is_in_order(&lottery)))
    });
    found.collect()
}
