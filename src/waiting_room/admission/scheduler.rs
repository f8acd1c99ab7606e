//! What the scheduler role runs: admission while this process holds the lease, and the tidying on the minute.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use chrono::TimeDelta;
use futures::StreamExt;
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_cron_scheduler::JobSchedulerError;

use super::super::hall::{Hall, RoomError};
use super::super::journal::Trace;
use super::super::line::SLICE;
use super::leader::{Leader, sweep};
use super::lease::{Lost, acquire};
use super::restoration::restore;
use crate::background::Tasks;
use crate::background::jobs::{Job, Jobs};
use crate::bus::subjects;
use crate::ids::ConcertId;
use crate::store::queue_journal;

/// The tidying, on the minute.
const TIDY: Job = Job { name: "tidy_queues", schedule: "0 * * * * *", timeout: Duration::from_secs(300) };
/// Traces of deletions cleared away in one round, and the pause between two rounds.
const CLEARED: usize = SLICE;
const CLEAR_EVERY: Duration = Duration::from_secs(1);
/// Clearings in flight at once.
const WIDTH: usize = 32;
/// Rounds on the minute, for traces whose process died before it cleared them, and how much older those are.
const LEFT_ROUNDS: usize = 10;
const LEFT_AGE: TimeDelta = TimeDelta::minutes(2);
/// How long the lease is kept while nobody is in any line.
const QUIET: Duration = Duration::from_secs(5);
/// How often the leader writes the journal.
const JOURNAL: Duration = Duration::from_millis(100);
/// The same after Postgres did not answer.
const JOURNAL_LATER: Duration = Duration::from_secs(1);
/// How long a leader that stops may take to write the last of it.
const LAST_WORD: Duration = Duration::from_millis(500);
/// How long an operator's wish may take.
const PATIENCE: Duration = Duration::from_secs(3);

/// An operator's wish to admit some at once.
#[derive(Debug, Serialize, Deserialize)]
struct Ask {
    concert: ConcertId,
    count: u32,
}

/// What became of it.
#[derive(Debug, Serialize, Deserialize)]
struct Answer {
    admitted: u32,
}

/// Takes the lease whenever it is free, and leads while it is held. Runs until the process stops.
pub async fn admit(hall: &Hall) {
    let holder = hall.hearing.own;
    loop {
        let lease = tokio::select! {
            () = hall.stop.cancelled() => return,
            lease = acquire(hall, holder) => lease,
            never = decline(hall) => match never {},
        };
        tracing::info!(revision = lease.revision, "this instance admits now");
        let mut leader = Leader::new(lease);
        hall.journal.begin(&hall.memory).await;
        let led = tokio::select! {
            led = hall.stop.run_until_cancelled(lead(hall, &mut leader)) => led,
            never = keep_journal(hall) => match never {},
        };
        if !matches!(led, Some(Err(_))) {
            // So that the next leader finds little to write. It writes what is missing if this does not succeed.
            let _ = tokio::time::timeout(LAST_WORD, hall.journal.write(&hall.memory, hall.now())).await;
        }
        hall.journal.end(&hall.memory);
        match led {
            Some(Err(error)) => tracing::warn!(%error, "this instance admits no more"),
            Some(Ok(())) => leader.lease.give_back(hall).await,
            None => return leader.lease.give_back(hall).await,
        }
    }
}

/// Writes down what changes, as long as this instance leads; asks Postgres for nothing while nothing does.
async fn keep_journal(hall: &Hall) -> Infallible {
    let mut tick = tokio::time::interval(JOURNAL);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut is_begun = false;
    loop {
        tick.tick().await;
        if is_begun && hall.memory.changes() + hall.journal.lag() == 0 {
            continue;
        }
        match hall.journal.write(&hall.memory, hall.now()).await {
            Ok(_) => is_begun = true,
            Err(error) => {
                tracing::warn!(%error, "the journal of the lines cannot be written; the line goes on");
                tokio::time::sleep(JOURNAL_LATER).await;
            }
        }
    }
}

/// While nobody leads because nobody is there, an operator's wish is answered all the same: there is nobody to admit.
async fn decline(hall: &Hall) -> Infallible {
    loop {
        if let Ok(mut asks) = hall.bus.client.subscribe(subjects::QUEUE_ADMIT).await {
            while let Some(ask) = asks.next().await {
                if let Some(reply) = ask.reply.filter(|_| hall.is_quiet()) {
                    let answer = serde_json::to_vec(&Answer { admitted: 0 }).unwrap_or_default();
                    // Whoever asked may be gone.
                    let _ = hall.bus.notify(reply, answer.into()).await;
                }
            }
        }
        tokio::time::sleep(PATIENCE).await;
    }
}

/// Leads until the lease is lost, or nobody has been there for a while.
async fn lead(hall: &Hall, leader: &mut Leader) -> Result<(), Lost> {
    let asks = hall.bus.client.subscribe(subjects::QUEUE_ADMIT).await;
    let mut asks = asks.map_err(|error| Lost(error.to_string()))?;
    hall.hear_anew();
    let mut busy = Instant::now();
    loop {
        restore(hall, leader).await?;
        leader.prepare(hall).await?;
        leader.round(hall).await?;
        leader.pass_over(hall).await?;
        if !hall.is_quiet() {
            busy = Instant::now();
        } else if busy.elapsed() >= QUIET {
            return Ok(());
        }
        let next = leader.next_round(hall);
        tokio::select! {
            Some(ask) = asks.next() => answer(hall, leader, &ask).await?,
            () = hall.turn.notified() => (),
            () = tokio::time::sleep_until(next) => (),
        }
    }
}

async fn answer(hall: &Hall, leader: &mut Leader, ask: &async_nats::Message) -> Result<(), Lost> {
    let Ok(Ask { concert, count }) = serde_json::from_slice(&ask.payload) else {
        return Ok(());
    };
    let mut left = usize::try_from(count).unwrap_or(usize::MAX);
    let mut admitted = 0;
    while left > 0 {
        leader.prepare(hall).await?;
        let made = leader.admit(hall, concert, left).await?;
        admitted += made;
        left -= made as usize;
        if made == 0 {
            break;
        }
    }
    tracing::info!(%concert, count, admitted, "an operator had some admitted at once");
    if let Some(reply) = ask.reply.clone() {
        let answer = serde_json::to_vec(&Answer { admitted }).unwrap_or_default();
        // Whoever asked may be gone; the admissions stand.
        let _ = hall.bus.notify(reply, answer.into()).await;
    }
    Ok(())
}

/// Asks whoever admits to admit the next `count` at once.
pub async fn ask(hall: &Hall, concert: ConcertId, count: u32) -> Result<u32, RoomError> {
    if !hall.is_connected() {
        return Err(RoomError::Unavailable);
    }
    let ask = serde_json::to_vec(&Ask { concert, count }).unwrap_or_default();
    let request = hall.bus.client.request(subjects::QUEUE_ADMIT, ask.into());
    let reply = match tokio::time::timeout(PATIENCE, request).await {
        Ok(Ok(reply)) => reply,
        Ok(Err(_)) | Err(_) => return Err(RoomError::Unavailable),
    };
    let answer: Answer = serde_json::from_slice(&reply.payload).map_err(|_| RoomError::Unavailable)?;
    Ok(answer.admitted)
}

/// Expires on the minute, as a safety net under the leader's own passes: every scheduler process does, whoever leads.
pub async fn tidy_on_the_minute(hall: &Arc<Hall>, tasks: &Tasks) {
    match start_tidying(hall, tasks).await {
        Ok(()) => hall.stop.cancelled().await,
        Err(error) => tracing::error!(%error, "the job on the minute cannot be started"),
    }
}

async fn start_tidying(hall: &Arc<Hall>, tasks: &Tasks) -> Result<(), JobSchedulerError> {
    let jobs = Jobs::new(&hall.stop).await?;
    let run = |hall: Arc<Hall>| async move {
        tidy(&hall).await;
        Ok::<(), Infallible>(())
    };
    jobs.add(TIDY, hall, run).await?;
    jobs.start(tasks).await
}

/// Clears away the traces of deletions that are in the journal and have been told to every watch. Runs until the process stops.
pub async fn clear_traces(hall: &Hall) {
    let mut tick = tokio::time::interval(CLEAR_EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while hall.stop.run_until_cancelled(tick.tick()).await.is_some() {
        if hall.is_connected() {
            clear(hall, hall.journal.take_traces(hall.sessions.trace_life(), CLEARED)).await;
        }
    }
}

/// Clears away what another process has left: it journalled the ends and died before it cleared their traces.
async fn clear_left_traces(hall: &Hall) -> usize {
    let Ok(journalled) = queue_journal::position(hall.journal.pool()).await else {
        return 0;
    };
    let life = TimeDelta::from_std(hall.sessions.trace_life()).unwrap_or(LEFT_AGE);
    let before = hall.clock.now() - life - LEFT_AGE;
    let mut cleared = 0;
    for _ in 0..LEFT_ROUNDS {
        let mut traces = hall.memory.old_markers(before, CLEARED).await;
        traces.retain(|(.., marker)| *marker <= journalled.cast_unsigned());
        traces.truncate(CLEARED);
        if traces.is_empty() {
            break;
        }
        cleared += clear(hall, traces).await;
    }
    cleared
}

async fn clear(hall: &Hall, traces: Vec<Trace>) -> usize {
    let clear_one = |(concert, user, marker): Trace| async move {
        match hall.bucket.clear(&subjects::queue_place(concert, user), marker).await {
            Ok(()) => Some((concert, user, marker)),
            Err(error) => {
                tracing::debug!(%error, "the trace of an old place stays for now");
                None
            }
        }
    };
    let cleared = futures::stream::iter(traces).map(clear_one).buffer_unordered(WIDTH);
    let cleared: Vec<Trace> = cleared.filter_map(|trace| async move { trace }).collect().await;
    hall.memory.note_cleared(&cleared);
    cleared.len()
}

/// Deletes what is over, and what is left of it.
pub async fn tidy(hall: &Hall) {
    if !hall.memory.is_complete() {
        return;
    }
    let mut ended = 0;
    loop {
        let some = sweep(hall).await;
        ended += some;
        if some == 0 {
            break;
        }
    }
    let cleared = clear_left_traces(hall).await;
    let before = hall.clock.now() - hall.sessions.memory();
    hall.memory.forget_ends(before).await;
    hall.journal.forget_ends(before).await;
    tracing::debug!(ended, cleared, "the waiting room was tidied");
}
