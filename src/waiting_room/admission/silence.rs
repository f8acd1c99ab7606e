//! Who has gone silent: the leader goes through all lines every few seconds, a slice at a time, by what it has in memory.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::task::yield_now;
use tokio::time::Instant;

use super::super::hall::Hall;
use super::super::line::seconds;
use super::super::place::{Entry, Standing};
use crate::ids::{ConcertId, UserId};

/// How often all lines are gone through.
const EVERY: Duration = Duration::from_secs(2);
/// A pause this long between two looks means that this process did not run, and heard nobody meanwhile.
const ABSENCE: Duration = Duration::from_secs(10);
/// Places looked at under one lock.
const SLICE: usize = 16_384;
/// At most so many are found before they are dealt with.
const FOUND: usize = 8_192;

/// Where the leader is on its way through the lines.
#[derive(Debug)]
pub struct Patrol {
    looked: Instant,
    began: Instant,
    found: VecDeque<(ConcertId, UserId)>,
}

impl Patrol {
    /// Begins with the first look.
    pub fn new() -> Self {
        let now = Instant::now();
        Self { looked: now, began: now, found: VecDeque::new() }
    }

    /// Up to `most` of one concert who are silent at this moment.
    pub async fn next(&mut self, hall: &Hall, most: usize) -> Option<(ConcertId, Vec<(UserId, Entry)>)> {
        if self.looked.elapsed() > ABSENCE {
            hall.hear_anew();
            self.found.clear();
        }
        self.looked = Instant::now();
        if self.found.is_empty() && self.began.elapsed() >= EVERY {
            self.began = Instant::now();
            self.look(hall).await;
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

    async fn look(&mut self, hall: &Hall) {
        let anew = hall.hearing.anew();
        // Before that nobody can have been silent for long enough.
        if hall.memory.now() <= anew.saturating_add(seconds(hall.sessions.silence)) {
            return;
        }
        let concerts: Vec<ConcertId> = hall.memory.lines().queues().map(|(concert, _)| concert).collect();
        for concert in concerts {
            let mut from = Some(0);
            while let Some(first) = from.filter(|_| self.found.len() < FOUND) {
                let slice = {
                    let lines = hall.memory.lines();
                    let now = hall.memory.now();
                    lines.queue(concert).map(|queue| queue.gone_silent(first, SLICE, now, anew))
                };
                let Some((silent, next)) = slice else { break };
                self.found.extend(silent.into_iter().map(|(user, _)| (concert, user)));
                from = next;
                yield_now().await;
            }
        }
    }
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
