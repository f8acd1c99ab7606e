//! The callers of a cell: each sends a request, waits for the answer, and sends the next, until time is up.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use chrono::TimeDelta;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::arena::Arena;
use super::books::Acknowledged;
use super::cell::{Cell, Choice};
use super::measured::Measured;
use crate::stage::Meter;
use crate::store::rivals::{Deed, Request};
use crate::timing::Timings;
use boxoffice::clock::Clock;

/// How long a cell takes.
#[derive(Clone, Copy, Debug)]
pub struct Span {
    /// Before anything counts.
    pub warm_up: Duration,
    /// What counts.
    pub measured: Duration,
}

/// What the callers of a cell share.
#[derive(Debug)]
struct Run {
    arena: Arc<Arena>,
    cell: Cell,
    choice: Choice,
    clock: Clock,
    /// From when on an answer counts, and until when.
    counts: (Instant, Instant),
    tally: Mutex<Tally>,
}

/// The results so far. `answers`, `granted` and `timings` are about what the cell is about, within its time; the others
/// about everything.
#[derive(Debug, Default)]
struct Tally {
    acknowledged: Acknowledged,
    all: u64,
    all_granted: u64,
    failed: u64,
    answers: u64,
    granted: u64,
    timings: Timings,
    /// When there was nothing left to ask for.
    sold_out: Option<Instant>,
}

impl Span {
    /// All of it, a fifth to warm up.
    pub fn of(all: Duration) -> Self {
        Self { warm_up: all / 5, measured: all - all / 5 }
    }
}

/// Measures one cell, and compares the answers to its callers with the tables.
///
/// # Errors
/// When the tables cannot be made ready or read. A request that fails is counted.
pub async fn measure(arena: &Arc<Arena>, cell: Cell, span: Span) -> anyhow::Result<Measured> {
    arena.reset(cell.deed).await?;
    let (meter, begun) = (Meter::start(), Instant::now());
    let first = begun + span.warm_up;
    let run = Arc::new(Run {
        arena: Arc::clone(arena),
        cell,
        choice: Choice::of(cell),
        clock: Clock::default(),
        counts: (first, first + span.measured),
        tally: Mutex::default(),
    });
    let mut callers: JoinSet<()> = (0..cell.callers).map(|number| call(Arc::clone(&run), number)).collect();
    while let Some(ended) = callers.join_next().await {
        ended?;
    }
    let (cpu, spent) = (meter.read(), arena.spent());
    let tally = std::mem::take(&mut *run.tally());
    let nothing = u64::from(tally.acknowledged.is_nothing(cell.deed));
    let wrong = tally.acknowledged.check(arena, cell.deed).await? + nothing;
    // Shorter than was meant if there was nothing left to ask for.
    let end = tally.sold_out.unwrap_or(run.counts.1);
    let seconds = end.saturating_duration_since(first).as_secs_f64();
    Ok(Measured {
        cell,
        seconds,
        answers: tally.answers,
        granted: tally.granted,
        timings: tally.timings,
        wrong,
        failed: tally.failed,
        all: tally.all,
        all_granted: tally.all_granted,
        spent,
        cpu,
    })
}

async fn call(run: Arc<Run>, number: u32) {
    // Not all at the same point of their round.
    let mut nth = u64::from(number);
    while Instant::now() < run.counts.1 {
        let begun = Instant::now();
        let Some(request) = run.choice.next(nth, run.clock.now()) else {
            run.tally().sold_out.get_or_insert(begun);
            break;
        };
        let answer = run.arena.ask(run.cell.way, &request).await;
        run.note(&request, begun, answer);
        nth += 1;
    }
}

impl Run {
    fn note(&self, request: &Request, begun: Instant, answer: anyhow::Result<bool>) {
        let now = Instant::now();
        if answer.is_ok() && request.deed == Deed::Hold {
            self.choice.gone(request.place);
        }
        let mut tally = self.tally();
        let granted = match answer {
            Ok(granted) => granted,
            Err(error) => {
                tracing::error!(%error, way = self.cell.way.name(), "a request failed");
                tally.failed += 1;
                return;
            }
        };
        tally.all += 1;
        tally.all_granted += u64::from(granted);
        if granted {
            tally.acknowledged.granted(request);
        }
        if request.deed != self.cell.deed || now < self.counts.0 {
            return;
        }
        // However late the answer came: the longest waits are the last to end.
        tally.timings.add(TimeDelta::from_std(now - begun).unwrap_or(TimeDelta::MAX));
        if now <= self.counts.1 {
            tally.answers += 1;
            tally.granted += u64::from(granted);
        }
    }

    /// Each change to it is whole, so that a panic elsewhere leaves it good.
    fn tally(&self) -> MutexGuard<'_, Tally> {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
