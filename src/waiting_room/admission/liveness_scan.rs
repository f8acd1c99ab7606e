//! Finds silent users: the leader scans all lines in memory every few seconds. It scans one chunk at a time, and spreads
//! the chunks over those seconds.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use super::super::heartbeats::Heartbeats;
use super::super::line::{Handle, Lines, Memory, seconds};
use super::super::place::{Entry, PlaceStatus};
use crate::ids::{ConcertId, UserId};

/// How long one scan of all lines takes.
const SCAN_INTERVAL: Duration = Duration::from_secs(2);
/// After a longer pause between two chunks this process was not running, and received no heartbeats.
const MAX_CHUNK_GAP: Duration = Duration::from_secs(10);
/// Places scanned under one lock. Scanning a place costs no more than reading it.
const CHUNK: usize = 16_384;

/// The state of the scan.
#[derive(Debug)]
pub struct LivenessScan {
    last_call: Instant,
    /// When the next chunk is due, and the pause after it.
    due: Instant,
    pause: Duration,
    /// The chunks that this scan has not reached yet, each with its line and its first place.
    ahead: VecDeque<(ConcertId, Handle)>,
    /// Silent users that were found. They are returned before the next chunk is scanned.
    found: VecDeque<(ConcertId, UserId)>,
}

impl LivenessScan {
    pub fn new() -> Self {
        let now = Instant::now();
        Self {
            last_call: now,
            due: now,
            pause: SCAN_INTERVAL,
            ahead: VecDeque::new(),
            found: VecDeque::new(),
        }
    }

    /// Up to `most` users of one concert who are silent now. Scans at most one chunk. `silence` is the shortest silence.
    pub fn next(
        &mut self,
        memory: &Memory,
        heartbeats: &Heartbeats,
        silence: Duration,
        most: usize,
    ) -> Option<(ConcertId, Vec<(UserId, Entry)>)> {
        if self.last_call.elapsed() > MAX_CHUNK_GAP {
            heartbeats.mark_gap(memory.now());
            self.found.clear();
        }
        self.last_call = Instant::now();
        if self.found.is_empty() && self.due <= self.last_call {
            self.scan(memory, heartbeats, silence);
            self.due = self.last_call + self.pause;
        }
        let (concert, _) = *self.found.front()?;
        let users: Vec<UserId> = std::iter::from_fn(|| self.found.pop_front_if(|(of, _)| *of == concert))
            .map(|(_, user)| user)
            .take(most)
            .collect();
        Some((concert, still_silent(memory, concert, users)))
    }

    /// Whether users were found that have not been returned yet.
    pub fn has_more(&self) -> bool {
        !self.found.is_empty()
    }

    /// When the next chunk is due.
    pub fn due(&self) -> Instant {
        self.due
    }

    fn scan(&mut self, memory: &Memory, heartbeats: &Heartbeats, silence: Duration) {
        let (now, since) = (memory.now(), heartbeats.continuous_since());
        // No user can have been silent for long enough yet.
        if now <= since.saturating_add(seconds(silence)) {
            (self.pause, self.ahead) = (SCAN_INTERVAL, VecDeque::new());
            return;
        }
        let lines = memory.lines();
        if self.ahead.is_empty() {
            (self.pause, self.ahead) = chunks(&lines);
        }
        if let Some((concert, first)) = self.ahead.pop_front()
            && let Some(queue) = lines.queue(concert)
        {
            let silent = queue.gone_silent(first, CHUNK, now, since);
            self.found.extend(silent.into_iter().map(|(user, _)| (concert, user)));
        }
    }
}

/// The pause between two chunks, and the line and first place of each.
fn chunks(lines: &Lines) -> (Duration, VecDeque<(ConcertId, Handle)>) {
    let chunks = lines.queues().flat_map(|(concert, queue)| {
        (0..queue.slot_count()).step_by(CHUNK).map(move |first| (concert, first as Handle))
    });
    let chunks: VecDeque<_> = chunks.collect();
    (SCAN_INTERVAL / u32::try_from(chunks.len().max(1)).unwrap_or(u32::MAX), chunks)
}

/// The users who have sent no heartbeat since they were found.
fn still_silent(memory: &Memory, concert: ConcertId, users: Vec<UserId>) -> Vec<(UserId, Entry)> {
    let now = memory.now();
    let lines = memory.lines();
    let Some(queue) = lines.queue(concert) else {
        return Vec::new();
    };
    let silent = users.into_iter().filter(|user| queue.trusted_for(*user, now) == 0);
    let silent = silent.filter_map(|user| Some((user, queue.view(user).entry?)));
    silent.filter(|(_, entry)| entry.status == PlaceStatus::Waiting).collect()
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;

    use super::super::super::line::BucketChange;
    use super::*;

    #[test]
    fn long_line_is_scanned_in_chunks() {
        let mut lines = Lines::new(Duration::from_secs(60));
        let (long, short) = (ConcertId::from_u128(1), ConcertId::from_u128(2));
        for (concert, people) in [(long, 5 * CHUNK as u64), (short, 3)] {
            for place in 1..=people {
                let status = PlaceStatus::Waiting;
                let entry = Entry { revision: place, place, issued_at: DateTime::UNIX_EPOCH, status };
                lines
                    .apply(BucketChange::Put { concert, user: UserId::from_u128(place.into()), entry }, None);
            }
        }
        let (pause, chunks) = chunks(&lines);
        assert_eq!((pause, chunks.len()), (SCAN_INTERVAL / 6, 6));
        let found = chunks.iter().map(|(concert, first)| {
            let silent = lines.queue(*concert).map(|queue| queue.gone_silent(*first, CHUNK, 1_000, 0));
            let silent = silent.unwrap_or_default().len();
            assert!(silent <= CHUNK, "{silent} under one lock");
            silent
        });
        assert_eq!(found.sum::<usize>(), 5 * CHUNK + 3);
        assert_eq!(super::chunks(&Lines::new(Duration::ZERO)), (SCAN_INTERVAL, VecDeque::new()));
    }
}
