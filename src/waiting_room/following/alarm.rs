//! The alarm for a line that stands still and should not: people wait, the sale is open, places are free, and nobody is
//! admitted. Every instance watches by itself, so that it rings also where nobody is left to admit.

use super::super::hall::Hall;
use super::super::status::Phase;
use crate::ids::ConcertId;

/// An admission within so many seconds counts as one of now.
const LATELY: u64 = 2;

/// Looks at all lines, and says so once of each that has stood still for too long.
pub fn look(hall: &Hall) {
    let lines = standing_still(hall);
    for concert in hall.stalls.note(&lines, hall.clock.now()) {
        tracing::error!(%concert, "people wait and places are free, but nobody is admitted; is a scheduler running?");
    }
}

/// Lines in which somebody could be admitted and nobody was just now, with their rates.
fn standing_still(hall: &Hall) -> Vec<(ConcertId, u32)> {
    let (lines, now, since_start) = (hall.memory.lines(), hall.clock.now(), hall.memory.since_start());
    let mut found = Vec::new();
    for (concert, queue) in lines.queues().filter(|(_, queue)| queue.waiting() > queue.silent()) {
        let Some(sale) = hall.sales.get(concert).filter(|sale| sale.phase == Phase::Open) else {
            continue;
        };
        let rate = hall.brakes.rate(&sale.settings);
        let cap = usize::try_from(sale.settings.max_active).unwrap_or(0);
        let is_drawn = sale.lot.is_some_and(|lot| lot.is_drawn(now));
        let has_moved = queue.tally.admitted.over(since_start, LATELY) > 0;
        if rate > 0 && queue.active() < cap && is_drawn && !has_moved {
            found.push((concert, rate));
        }
    }
    found
}
