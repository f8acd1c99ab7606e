//! Who has gone silent: the leader goes through all lines every few seconds, by what it has in memory. It looks at one
//! slice each time, and the slices are spread over those seconds.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use super::super::hall::Hall;
use super::super::line::{Handle, Lines, seconds};
use super::super::place::{Entry, Standing};
use crate::ids::{ConcertId, UserId};

/// How often all lines are gone through.
const EVERY: Duration = Duration::from_secs(2);
/// A pause this long between two looks means that this process did not run, and heard nobody meanwhile.
const ABSENCE: Duration = Duration::from_secs(10);
/// Places looked at under one lock; a look at one costs no more than to read it.
const SLICE: usize = 16_384;

/// Where the leader is on its way through the lines.
#[derive(Debug)]
pub struct Patrol {
    asked: Instant,
    /// When the next slice is due, and how long after it the one behind it.
    due: Instant,
    pause: Duration,
    /// The slices that are still to be looked at on this way, each by its line and its first place.
    ahead: VecDeque<(ConcertId, Handle)>,
    /// Who was found silent, and is to be dealt with before the next slice.
    found: VecDeque<(ConcertId, UserId)>,
}

impl Patrol {
    /// Begins with the first look.
    pub fn new() -> Self {
        let now = Instant::now();
        Self { asked: now, due: now, pause: EVERY, ahead: VecDeque::new(), found: VecDeque::new() }
    }

    /// Up to `most` of one concert who are silent at this moment. Looks at one slice at most.
    pub fn next(&mut self, hall: &Hall, most: usize) -> Option<(ConcertId, Vec<(UserId, Entry)>)> {
        if self.asked.elapsed() > ABSENCE {
            hall.hear_anew();
            self.found.clear();
        }
        self.asked = Instant::now();
        if self.found.is_empty() && self.due <= self.asked {
            self.look(hall);
            self.due = self.asked + self.pause;
        }
        let (concert, _) = *self.found.front()?;
        let users: Vec<UserId> = std::iter::from_fn(|| self.found.pop_front_if(|(of, _)| *of == concert))
            .map(|(_, user)| user)
            .take(most)
            .collect();
        Some((concert, still_silent(hall, concert, users)))
    }

    /// Whether somebody has been found who was not told of yet.
    pub fn has_more(&self) -> bool {
        !self.found.is_empty()
    }

    /// When the next slice is due.
    pub fn due(&self) -> Instant {
        self.due
    }

    fn look(&mut self, hall: &Hall) {
        let (now, anew) = (hall.memory.now(), hall.hearing.anew());
        // Before that nobody can have been silent for long enough.
        if now <= anew.saturating_add(seconds(hall.sessions.silence)) {
            (self.pause, self.ahead) = (EVERY, VecDeque::new());
            return;
        }
        let lines = hall.memory.lines();
        if self.ahead.is_empty() {
            (self.pause, self.ahead) = way(&lines);
        }
        if let Some((concert, first)) = self.ahead.pop_front()
            && let Some(queue) = lines.queue(concert)
        {
            let silent = queue.gone_silent(first, SLICE, now, anew);
            self.found.extend(silent.into_iter().map(|(user, _)| (concert, user)));
        }
    }
}

/// A way through all lines: the pause between two slices, and where each begins.
fn way(lines: &Lines) -> (Duration, VecDeque<(ConcertId, Handle)>) {
    let slices = lines.queues().flat_map(|(concert, queue)| {
        (0..queue.rooms()).step_by(SLICE).map(move |first| (concert, first as Handle))
    });
    let slices: VecDeque<_> = slices.collect();
    (EVERY / u32::try_from(slices.len().max(1)).unwrap_or(u32::MAX), slices)
}

/// Some may have been heard of since they were found.
fn still_silent(hall: &Hall, concert: ConcertId, users: Vec<UserId>) -> Vec<(UserId, Entry)> {
    let now = hall.memory.now();
    let lines = hall.memory.lines();
    let Some(queue) = lines.queue(concert) else {
        return Vec::new();
    };
    let silent = users.into_iter().filter(|user| queue.trusted_for(*user, now) == 0);
    let silent = silent.filter_map(|user| Some((user, queue.view(user).entry?)));
    silent.filter(|(_, entry)| entry.standing == Standing::Waiting).collect()
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;

    use super::super::super::line::News;
    use super::*;

    #[test]
    fn a_long_line_is_gone_through_in_slices_that_are_spread_over_the_interval() {
        let mut lines = Lines::new(Duration::from_secs(60));
        let (long, short) = (ConcertId::from_u128(1), ConcertId::from_u128(2));
        for (concert, people) in [(long, 5 * SLICE as u64), (short, 3)] {
            for place in 1..=people {
                let standing = Standing::Waiting;
                let entry = Entry { revision: place, place, issued_at: DateTime::UNIX_EPOCH, standing };
                lines.apply(News::Put { concert, user: UserId::from_u128(place.into()), entry }, None);
            }
        }
        let (pause, slices) = way(&lines);
        assert_eq!((pause, slices.len()), (EVERY / 6, 6));
        let found = slices.iter().map(|(concert, first)| {
            let silent = lines.queue(*concert).map(|queue| queue.gone_silent(*first, SLICE, 1_000, 0));
            let silent = silent.unwrap_or_default().len();
            assert!(silent <= SLICE, "{silent} under one lock");
            silent
        });
        assert_eq!(found.sum::<usize>(), 5 * SLICE + 3);
        assert_eq!(way(&Lines::new(Duration::ZERO)), (EVERY, VecDeque::new()));
    }
}
