//! What somebody in line is told of the way ahead: the rank, an estimate, and when to ask again.

use super::super::hall::Hall;
use super::super::line::{poll_after, poll_early};
use super::super::place::Place;
use super::super::sale::Sale;
use super::super::status::{Outlook, Phase, QueueToken, estimate};

/// What the line looks like from one place in it.
#[derive(Clone, Copy, Debug, Default)]
struct Sight {
    rank: Option<usize>,
    /// Whether the ranks are those of the opening.
    is_in_order: bool,
    waiting: u64,
    active: u64,
    /// How often a place is given back, as far as was measured.
    freed_per_second: Option<f64>,
}

impl Hall {
    /// A waiting place with its prospects; `before` is the rank it had when it was found waiting. A rank is shown only if it is
    /// exact. Before the draw nobody has one: it could only get worse.
    pub fn with_prospects(
        &self,
        seen: QueueToken,
        place: Place,
        before: Option<usize>,
        sale: Option<Sale>,
    ) -> QueueToken {
        if sale.as_ref().is_some_and(|sale| !sale.is_read) {
            self.reread.notify_one();
        }
        let sight = self.sight(&seen, place, sale.as_ref());
        let (now, jitter) = (self.clock.now(), rand::random_range(-1.0..=1.0));
        let lot = sale.as_ref().and_then(|sale| sale.lot);
        let is_drawn = sight.is_in_order && lot.is_some_and(|lot| lot.is_drawn(now));
        let Some(sale) = sale.filter(|_| is_drawn) else {
            let until = lot.and_then(|lot| (lot.draws_at() - now).to_std().ok());
            return QueueToken { poll_after_ms: poll_early(sight.waiting, until, jitter), ..seen };
        };
        // One that has left the line since it was found there stands where it stood.
        let rank = sight.rank.or(before).filter(|_| self.is_exact());
        let Some(rank) = rank.map(|rank| rank as u64) else {
            // This instance has just started, or has not seen the place yet: it will know soon.
            return QueueToken { poll_after_ms: poll_after(1, None, jitter), ..seen };
        };
        let outlook = Outlook {
            moving: sale.phase == Phase::Open,
            free: u64::try_from(sale.settings.max_active).unwrap_or(0).saturating_sub(sight.active),
            per_minute: self.brakes.rate(&sale.settings),
            freed_per_second: sight.freed_per_second,
        };
        let eta_seconds = estimate(rank, &outlook);
        QueueToken {
            position: Some(rank),
            ahead: Some(rank - 1),
            eta_seconds,
            eta_known: eta_seconds.is_some(),
            poll_after_ms: poll_after(rank, eta_seconds, jitter),
            ..seen
        }
    }

    fn sight(&self, seen: &QueueToken, place: Place, sale: Option<&Sale>) -> Sight {
        let lines = self.memory.lines();
        let Some(queue) = lines.queue(seen.concert_id) else {
            return Sight { is_in_order: true, ..Sight::default() };
        };
        let view = queue.view(seen.user_id);
        // An older place that was given back after this one was taken is what counts.
        let is_it = view.entry.is_some_and(|entry| entry.place == place || entry.revision > place);
        Sight {
            rank: view.rank.filter(|_| is_it),
            is_in_order: sale.and_then(|sale| sale.lot).is_some_and(|lot| queue.is_in_order(&lot)),
            waiting: queue.waiting() as u64,
            active: queue.active() as u64,
            freed_per_second: queue.tally.pace.per_second(),
        }
    }
}
