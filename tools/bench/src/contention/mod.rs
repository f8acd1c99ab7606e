//! Compares ways of concurrency control for seats and points.
//!
//! For each case (a seat is held, points are charged, points are used) and each way, callers ask without a pause, some
//! for rows of all places and some all for the same one. All ways work on the same rows over the same number of
//! connections, and each is held against the books afterwards. Nothing else of the service is in it: no saga, no message.
//!
//! `docs/concurrency.md` has the figures and what follows from them.

mod drive;
mod measured;
mod books;
mod arena;
mod batches;
mod locks;
mod cell;
mod cost;

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

pub use arena::Arena;
pub use books::Acknowledged;
pub use cell::{Cell, Contention, Way};
pub use drive::{Span, measure};
pub use locks::{Held, LIFE, Locks};
pub use measured::Measured;

use super::Plan;
use super::progress::Progress;
use super::report::{Measure, Report};
use super::stage::{Stage, Wanted};
use crate::store::rivals::Deed;

/// Callers at once, one after the other.
const CALLERS: [u32; 2] = [32, 256];
/// Connections of every way, as many as a process of the service opens.
pub const CONNECTIONS: u32 = 24;
/// How long all of it takes, without what is made ready between two cells.
const SECONDS: u32 = 180;

pub(super) async fn run(plan: &Plan, progress: &Progress) -> anyhow::Result<Report> {
    let callers = plan.concurrency.map_or(CALLERS.to_vec(), |callers| vec![callers]);
    let cells: Vec<Cell> = callers.into_iter().flat_map(|callers| Cell::all(callers, plan.seed)).collect();
    let span = Span::of(Duration::from_secs(plan.seconds.unwrap_or(SECONDS).into()) / cells.len() as u32);
    let stage = Stage::open(plan, Wanted::default()).await?;
    let arena = Arc::new(Arena::open(&stage.pool, stage.database_url(), &stage.bus, CONNECTIONS).await?);
    progress.begin("ways of concurrency control", cells.len() as u64);
    let mut all = Vec::with_capacity(cells.len());
    for cell in cells {
        all.push(measure(&arena, cell, span).await?);
        progress.more(1);
    }
    arena.close().await?;
    stage.close(Vec::new(), report(&all, span).with("seed", plan.seed)).await
}

fn report(all: &[Measured], span: Span) -> Report {
    let most = all.iter().map(|measured| measured.cell.callers).max();
    let chosen = |deed, name| {
        let is_it = |cell: &Cell| {
            let extreme = cell.contention == Contention::Extreme && Some(cell.callers) == most;
            extreme && cell.way == Way::Batches && cell.deed == deed
        };
        let found = all.iter().find(|measured| is_it(&measured.cell));
        Measure::without_goal(name, &found.map(|measured| measured.timings.clone()).unwrap_or_default())
    };
    let measures = vec![
        chosen(Deed::Hold, "asked to answered: one seat after the other, in batches"),
        chosen(Deed::Charge, "asked to answered: charges of one account, in batches"),
        chosen(Deed::Use, "asked to answered: uses of one account, in batches"),
    ];
    let granted = all.iter().map(|measured| measured.granted).sum();
    let cpu: Option<f64> = all.iter().map(|measured| measured.cpu).sum();
    let mut report = Report::new("contention", measures).work(
        granted,
        all.iter().map(|measured| measured.seconds).sum(),
        cpu,
    );
    report.errors = all.iter().map(Measured::errors).sum();
    report.table = [Measured::header()].into_iter().chain(all.iter().map(Measured::row)).collect();
    report
        .with("connections", CONNECTIONS)
        .with("seconds_of_a_cell", span.measured.as_secs_f64())
        .with("cells", json!(all.iter().map(Measured::figures).collect::<Vec<_>>()))
}
