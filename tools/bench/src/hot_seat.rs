//! A thousand callers order one seat at the same moment, repeatedly: one gets it, the others are refused.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use anyhow::bail;

use super::Plan;
use super::counter::Counter;
use super::load::at_once;
use super::progress::Progress;
use super::report::{Measure, Report};
use super::stage::{ALL_ROLES, Meter, Stage, Wanted};
use super::timing::Timings;

/// Callers for each seat.
const CALLERS: u32 = 1_000;
/// How many seats, one after the other.
const SEATS: u32 = 20;

pub(super) async fn run(plan: &Plan, progress: &Progress) -> anyhow::Result<Report> {
    let (callers, seats) = (plan.concurrency.unwrap_or(CALLERS), plan.repeats.unwrap_or(SEATS));
    let stage = Stage::open(plan, Wanted::default()).await?;
    let service = stage.serve(ALL_ROLES).await?;
    // A buyer for each call, and ten seats for each buyer; only the first seats are wanted.
    let counter = Counter::open(&stage, &service.client, (callers * 10).max(seats), progress).await?;
    let (won, lost) = (Mutex::new(Timings::default()), Mutex::new(Timings::default()));
    let (mut errors, mut wrong, mut seconds) = (0, 0, 0.0);
    let meter = Meter::start();
    for seat in 0..seats {
        progress.begin(&format!("{callers} for seat {}", seat + 1), callers.into());
        let winners = AtomicU64::new(0);
        let round = at_once(callers, callers, progress, async |caller| {
            let lot = counter.wanted(seat, caller);
            let begun = Instant::now();
            let answer = counter.sell(&service.client, lot).await?;
            let side = match answer.status {
                201 => {
                    winners.fetch_add(1, Ordering::Relaxed);
                    &won
                }
                409 => &lost,
                status => bail!("one of many for a seat was answered {status} {}", answer.body()),
            };
            side.lock().unwrap_or_else(PoisonError::into_inner).add_duration(begun.elapsed());
            Ok(())
        })
        .await;
        errors += round.errors;
        seconds += round.seconds;
        wrong += u64::from(winners.into_inner() != 1);
    }
    let cpu = meter.read();
    let of = |side: Mutex<Timings>| side.into_inner().unwrap_or_else(PoisonError::into_inner);
    let measures = vec![
        Measure::without_goal("asked for a seat to refused", &of(lost)),
        Measure::without_goal("asked for a seat to sold", &of(won)),
    ];
    let mut report =
        Report::new("hot-seat", measures).work(u64::from(seats) * u64::from(callers), seconds, cpu);
    report.errors = errors + wrong;
    let report =
        report.with("callers", callers).with("seats", seats).with("seats_sold_not_exactly_once", wrong);
    stage.close(vec![service], report).await
}
