//! What happens after NATS has lost the line: whoever admits writes it into the new bucket, from the journal.
//!
//! Until that is done nobody is admitted. Joins go on, and stand behind all that is restored, because a new bucket counts
//! on where the lost one ended. Every write is a compare-and-set on its own key: what happened in the new bucket is
//! never overwritten, except by the older place of the same user. At the end stands a marker, by which every instance
//! knows that what it was not told of is over.

use std::collections::HashSet;
use std::time::Duration;

use bytes::Bytes;
use futures::future::join_all;
use tokio::task::yield_now;
use tokio::time::Instant;

use super::super::following::watch::RestoredRecord;
use super::super::hall::Hall;
use super::super::journal;
use super::super::line::SLICE;
use super::super::pass::Key;
use super::super::place::{Entry, If, Record, Standing, Stored, WriteError, answer_to};
use super::leader::Leader;
use super::lease::Lost;
use crate::bus::{incarnation, subjects};
use crate::ids::{ConcertId, UserId};
use crate::store::queue_journal::{self, JournalRow};

/// Rows read at once.
const PAGE: i64 = 20_000;
/// Writes on their way at once.
const WIDTH: usize = 500;
/// How often one key is tried whose owner acts at the same time.
const TRIES: u32 = 20;
/// The pause before trying again after Postgres or NATS did not answer.
const PAUSE: Duration = Duration::from_millis(300);
/// How long the watch may take to show what has been written.
const SIGHT: Duration = Duration::from_secs(10);
/// How often an instance looks whether it may be given requests.
const LOOK: Duration = Duration::from_millis(250);

/// Why a restoration did not come to its end.
enum Failure {
    /// This instance leads no more.
    Lost(Lost),
    /// Postgres or NATS did not answer.
    Away(String),
}

impl From<sqlx::Error> for Failure {
    fn from(error: sqlx::Error) -> Self {
        Self::Away(error.to_string())
    }
}

impl From<Lost> for Failure {
    fn from(lost: Lost) -> Self {
        Self::Lost(lost)
    }
}

/// Brings a new bucket to where the lost one was, as the leader; tries as long as it leads.
pub async fn restore(hall: &Hall, leader: &mut Leader) -> Result<(), Lost> {
    while !hall.memory.era().is_restored() {
        leader.prepare(hall).await?;
        match restore_once(hall, leader).await {
            Ok(()) => (),
            Err(Failure::Lost(lost)) => return Err(lost),
            Err(Failure::Away(reason)) => {
                tracing::warn!(reason, "the line cannot be restored yet, nobody is admitted until then");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
    Ok(())
}

async fn restore_once(hall: &Hall, leader: &mut Leader) -> Result<(), Failure> {
    let began = Instant::now();
    let journalled = hall.journal.write(&hall.memory, hall.now()).await?;
    let first = incarnation::first_revision(hall.memory.era().incarnation);
    if journalled >= first {
        // Made by a process that did not know of the bucket before, within the same second or by a clock that is behind.
        let emptied = hall.bucket.begin_behind(journalled, hall.clock.now()).await;
        emptied.map_err(|error| Failure::Away(error.to_string()))?;
        hall.doubt.notify_one();
        return Err(Failure::Lost(Lost("the bucket was older than the journal".to_owned())));
    }
    // What was taken in this bucket lies here already.
    let first = first.cast_signed();
    let (mut after, mut places) = (0, 0);
    loop {
        let page = queue_journal::living(hall.journal.pool(), after, first, PAGE).await?;
        let Some(last) = page.last() else { break };
        after = last.place;
        places += restore_page(hall, leader, &page).await?;
    }
    mark(hall, leader, &RestoredRecord { journalled, places }).await?;
    metrics::counter!("boxoffice_queue_restorations_total").increment(1);
    tracing::info!(places, took_ms = began.elapsed().as_millis() as u64, "the line is restored");
    Ok(())
}

/// Writes some places; answers how many are in the bucket then.
async fn restore_page(hall: &Hall, leader: &mut Leader, page: &[JournalRow]) -> Result<u64, Failure> {
    let entries: Vec<(Key, Entry)> = page
        .iter()
        .filter_map(|row| Some(((row.concert_id, row.user_id), unsilenced(journal::entry(row)?))))
        .collect();
    let spent = spent(hall, &entries).await?;
    let all = entries.len();
    let missing: Vec<(Key, Entry)> =
        entries.into_iter().filter(|(key, entry)| !lies_there(hall, *key, entry)).collect();
    let (mut places, mut last) = ((all - missing.len()) as u64, 0);
    for some in missing.chunks(WIDTH) {
        leader.prepare(hall).await?;
        let written = write_in_a_row(hall, some, &spent).await?;
        places += written.iter().flatten().count() as u64;
        last = written.into_iter().flatten().max().unwrap_or(last);
    }
    if hall.memory.wait_for(last, SIGHT).await {
        Ok(places)
    } else {
        Err(Failure::Away("the watch does not show what was restored".to_owned()))
    }
}

/// Nobody could be heard of while NATS was away: whoever was silent before has a new chance.
fn unsilenced(entry: Entry) -> Entry {
    let standing = if entry.standing.is_in_line() { Standing::Waiting } else { entry.standing };
    Entry { standing, ..entry }
}

/// Sends all in the order of the line, then awaits the answers: the revisions of those that have a place.
async fn write_in_a_row(
    hall: &Hall,
    entries: &[(Key, Entry)],
    spent: &HashSet<Key>,
) -> Result<Vec<Option<u64>>, Failure> {
    let mut sent = Vec::with_capacity(entries.len());
    for (key, entry) in entries {
        let ((concert, user), entry) = (*key, *entry);
        let is_over = spent.contains(key);
        // What is known of the key already is looked at by itself, one by one.
        let is_new = hall.memory.view(concert, user).entry.is_none_or(|known| !is_of_now(hall, &known));
        let first = if is_new && !is_over {
            let record = Record::standing(user, concert, &entry, entry.standing);
            let life = record.key_life(hall.now());
            let at = subjects::queue_place(concert, user);
            hall.bucket.send(&at, If::At(0), record.to_bytes(), Some(life)).await
        } else {
            Err(WriteError::Conflict)
        };
        sent.push((concert, user, entry, is_over, first));
    }
    let answers = sent.into_iter().map(|(concert, user, entry, is_over, first)| async move {
        match answer_to(first).await {
            Ok(revision) => Ok(Some(revision)),
            Err(WriteError::Missing) => Err(Failure::Away("the bucket is missing".to_owned())),
            Err(_) if is_over => leave_out(hall, concert, user).await.map(|()| None),
            Err(_) => write_patiently(hall, concert, user, &entry).await,
        }
    });
    join_all(answers).await.into_iter().collect()
}

/// Writes a place whose key is not as it was thought to be.
async fn write_patiently(
    hall: &Hall,
    concert: ConcertId,
    user: UserId,
    entry: &Entry,
) -> Result<Option<u64>, Failure> {
    let key = subjects::queue_place(concert, user);
    let record = Record::standing(user, concert, entry, entry.standing);
    for _ in 0..TRIES {
        let lying = hall.bucket.read(&key).await.map_err(|error| Failure::Away(error.to_string()))?;
        let expected = match decide(entry, &lying) {
            Decision::Write(expected) => expected,
            Decision::IsThere(revision) => return Ok(Some(revision)),
            Decision::Leave => return Ok(None),
        };
        let life = record.key_life(hall.now());
        match hall.bucket.write(&key, If::At(expected), record.to_bytes(), Some(life)).await {
            Ok(revision) => return Ok(Some(revision)),
            Err(WriteError::Missing) => return Err(Failure::Away("the bucket is missing".to_owned())),
            Err(WriteError::Conflict | WriteError::Busy | WriteError::Unknown(_)) => (),
        }
    }
    Err(Failure::Away(format!("the place of {user} cannot be written")))
}

/// What is to be done about a journalled place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Decision {
    /// Write it, if the key is still at that revision.
    Write(u64),
    /// It lies there, since that revision.
    IsThere(u64),
    /// It ended in the new bucket, or something older lies there.
    Leave,
}

fn decide(entry: &Entry, lying: &Stored) -> Decision {
    match lying {
        Stored::Nothing => Decision::Write(0),
        Stored::Deleted { .. } => Decision::Leave,
        Stored::Value { revision, bytes } => match Record::read(bytes, *revision) {
            // Joined anew, by an instance that did not know the old place.
            Some(anew) if anew.place > entry.place => Decision::Write(*revision),
            Some(older) if older.place < entry.place => Decision::Leave,
            // Joined again, by one that knew it: as a waiter, whatever it was.
            Some(same) if same.standing.is_in_line() && !entry.standing.is_in_line() => {
                Decision::Write(*revision)
            }
            Some(_) => Decision::IsThere(*revision),
            None => Decision::Write(*revision),
        },
    }
}

/// Places that are over although the journal does not say so: their time has passed, they have ended as far as this
/// instance knows, or their sessions were used for a payment in the last moment.
async fn spent(hall: &Hall, entries: &[(Key, Entry)]) -> Result<HashSet<Key>, Failure> {
    let now = hall.now();
    let sessions: Vec<_> = entries
        .iter()
        .filter_map(|((concert, user), entry)| match entry.standing {
            Standing::Active { activated_at, .. } => Some((*concert, *user, activated_at)),
            Standing::Waiting | Standing::Silent { .. } => None,
        })
        .collect();
    let paid = queue_journal::paid(hall.journal.pool(), &sessions).await?;
    let over = entries.iter().filter(|((concert, user), entry)| {
        entry.is_over(now) || hall.memory.view(*concert, *user).is_over(entry.place)
    });
    Ok(over.map(|(key, _)| *key).chain(paid).collect())
}

/// Leaves the trace of a deletion where a place is over, so that every instance and the journal are told.
async fn leave_out(hall: &Hall, concert: ConcertId, user: UserId) -> Result<(), Failure> {
    let key = subjects::queue_place(concert, user);
    match hall.bucket.delete(&key, If::At(0), false).await {
        // Joined anew, or deleted before.
        Ok(_) | Err(WriteError::Conflict) => Ok(()),
        Err(error) => Err(Failure::Away(error.to_string())),
    }
}

/// Writes the marker, as the leader and nobody else, and waits until it is seen.
async fn mark(hall: &Hall, leader: &mut Leader, restored: &RestoredRecord) -> Result<(), Failure> {
    let record = Bytes::from(serde_json::to_vec(restored).unwrap_or_default());
    for _ in 0..TRIES {
        leader.prepare(hall).await?;
        let fence = If::Leading(leader.lease.revision);
        match hall.bucket.write(subjects::QUEUE_RESTORED, fence, record.clone(), None).await {
            Ok(revision) if hall.memory.wait_for(revision, SIGHT).await => return Ok(()),
            Ok(_) => return Err(Failure::Away("the watch does not show the marker".to_owned())),
            Err(WriteError::Conflict) => return Err(Lost("another instance admits".to_owned()).into()),
            Err(WriteError::Busy) => tokio::time::sleep(Duration::from_millis(5)).await,
            Err(error) => return Err(Failure::Away(error.to_string())),
        }
    }
    Err(Failure::Away("the marker cannot be written".to_owned()))
}

/// Whether the present bucket has this place already: an earlier try wrote it.
fn lies_there(hall: &Hall, (concert, user): Key, entry: &Entry) -> bool {
    let known = hall.memory.view(concert, user).entry.filter(|known| is_of_now(hall, known));
    known.is_some_and(|known| {
        known.place == entry.place && (entry.standing.is_in_line() || !known.standing.is_in_line())
    })
}

fn is_of_now(hall: &Hall, entry: &Entry) -> bool {
    incarnation::of(entry.revision) == hall.memory.era().incarnation
}

/// Lets this instance be given requests once it knows the line: the bucket is restored, or there is nothing to restore;
/// and learns which places of earlier buckets are over. Runs until the process stops.
pub async fn settle(hall: &Hall) {
    let mut learnt = None;
    let mut seen = hall.memory.subscribe();
    while !hall.stop.is_cancelled() {
        if let Err(error) = settle_once(hall, &mut learnt).await {
            tracing::warn!(%error, "the journal of the lines cannot be read yet");
            tokio::time::sleep(PAUSE).await;
        }
        let was_complete = hall.memory.is_complete();
        let is_due = |_: &u64| {
            let is_news = !was_complete || (hall.memory.era().is_restored() && learnt != Some(told(hall)));
            hall.memory.is_complete() && is_news
        };
        let _ = tokio::time::timeout(LOOK, seen.wait_for(is_due)).await;
    }
}

/// Which bucket this instance is told by, and how often it has been told completely.
type Told = (u64, u32);

fn told(hall: &Hall) -> Told {
    let lines = hall.memory.lines();
    (lines.era().incarnation, lines.replays())
}

/// `learnt` is what the bucket had told when the ends were read last.
async fn settle_once(hall: &Hall, learnt: &mut Option<Told>) -> Result<(), sqlx::Error> {
    let (era, told) = (hall.memory.era(), told(hall));
    if !hall.memory.is_complete() || *learnt == Some(told) {
        return Ok(());
    }
    let first = incarnation::first_revision(era.incarnation).cast_signed();
    if era.is_restored() {
        let now = hall.clock.now();
        // Of the present bucket only those whose tokens may say that they are active.
        let [earlier, present] = [hall.sessions.memory(), hall.sessions.longest()].map(|age| now - age);
        let ends = queue_journal::ends(hall.journal.pool(), first, earlier, present).await?;
        for some in ends.chunks(SLICE) {
            hall.memory.learn_ends(some);
            yield_now().await;
        }
        *learnt = Some(told);
        hall.memory.settle();
        hall.openings.notify_one();
    } else if !hall.memory.is_settled() && !queue_journal::is_anybody_left(hall.journal.pool(), first).await?
    {
        hall.memory.settle();
        hall.openings.notify_one();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use chrono::{DateTime, Utc};

    use super::*;

    fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_900_000_000 + seconds, 0).unwrap()
    }

    fn entry(place: u64, standing: Standing) -> Entry {
        Entry { revision: place, place, issued_at: at(0), standing }
    }

    fn lying(place: u64, standing: Standing) -> Stored {
        let record = Record::standing(UserId::nil(), ConcertId::nil(), &entry(place, standing), standing);
        Stored::Value { revision: 50, bytes: record.to_bytes() }
    }

    #[test]
    fn an_older_place_of_the_same_user_wins_and_an_end_in_the_new_bucket_stands() {
        let active = Standing::Active { activated_at: at(1), expires_at: at(60), used: true };
        let (waiter, buyer) = (entry(7, Standing::Waiting), entry(7, active));
        assert_eq!(decide(&waiter, &Stored::Nothing), Decision::Write(0));
        let gone = Stored::Deleted { revision: 50, left_the_line: true };
        assert_eq!(decide(&waiter, &gone), Decision::Leave);
        for old in [waiter, buyer] {
            assert_eq!(decide(&old, &lying(40, Standing::Waiting)), Decision::Write(50), "joined anew");
            assert_eq!(decide(&old, &lying(5, Standing::Waiting)), Decision::Leave);
        }
        assert_eq!(decide(&waiter, &lying(7, Standing::Waiting)), Decision::IsThere(50));
        assert_eq!(decide(&waiter, &lying(7, active)), Decision::IsThere(50));
        assert_eq!(decide(&buyer, &lying(7, active)), Decision::IsThere(50));
        assert_eq!(decide(&buyer, &lying(7, Standing::Waiting)), Decision::Write(50), "it was admitted");
    }
}
