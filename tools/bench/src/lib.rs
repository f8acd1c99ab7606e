//! Benchmarks of the whole service over its public interfaces.
//!
//! The service runs as processes of its own (this program with the command `serve`), the generator in this one, on servers of their own
//! unless some are given. Buyers come over HTTP at a pace that does not wait for answers, so that a slow answer is not
//! hidden by the next one coming later. What HTTP does not offer is read from its source: transitions and
//! events on NATS, the history in Postgres. Every scenario ends with the audit.
//!
//! One file per scenario; `docs/performance.md` has the figures, `bench/NOTES.md` how they are measured.

mod sagas;
mod booking;
mod journey;
mod hot_seat;
mod best_available;
mod rising;
mod outside;
pub mod outside_worker;
mod undo;
mod stuck;
mod takeover;
mod overdue;
mod expiry;
mod timers;
mod idle;
mod queue;
pub mod contention;
mod reads;
mod gate;
mod redemptions;
mod attack;
mod growth;
pub mod indexes;
mod refunds;
mod counter;
mod admitted;
mod halls;
mod crowd;
mod people;
mod lanes;
mod watch;
mod worker;
mod load;
mod aside;
mod cost;
mod stage;
mod process;
mod client;
mod progress;
mod report;
mod timing;
mod memory;
pub mod allocations;
pub mod store;
mod cpu;

use std::path::PathBuf;
use std::time::Duration;

pub use report::{Goal, Measure, Report};
pub use timing::Spread;

use progress::Progress;

/// The first argument of a process of this program that is the service.
pub const SERVE: &str = "serve";

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Scenario {
    /// Whole sagas, one request each: start, hold, pay, confirmed
    Sagas,
    /// Bookings by people from the line: a hold, then its payment
    Booking,
    /// Whole visits by people who come at a fixed rate: join the line, see the seats, hold one, pay
    Journey,
    /// A thousand callers for one seat at the same moment
    HotSeat,
    /// A thousand buyers want two good seats together: chosen on the seat map, and by the service
    BestAvailable,
    /// Sales at a rising rate with people who ask for their places, on one instance and on two
    Load,
    /// Sagas whose steps are done by a service elsewhere, with a database of its own
    Outside,
    /// From a refused last step until both steps before it are undone
    Undo,
    /// From a refused undo until operators see that the saga is stuck
    Stuck,
    /// From the death of one of two processes until its sagas go on
    Takeover,
    /// Thousands of holds that run out within one second
    Expiry,
    /// From a start until thousands of holds that ran out before it have ended
    Overdue,
    /// How late alarms ring when many are pending
    Timers,
    /// What the service does while it gets no requests
    Idle,
    /// A crowd joins a line, polls its places at the asked interval, and grows to a million
    Queue,
    /// Compares ways of concurrency control, for seats and points
    Contention,
    /// Concerts, dates and seat maps with the cache and without, and how old they are
    Reads,
    /// What a booking costs in an empty database, and after a million
    Growth,
    /// Counts what a booking takes, and compares it with agreed figures
    Gate,
    /// Different tickets scanned at the entrance at a fixed rate, then one ticket a thousand times at once
    Redemptions,
    /// A cancelled date is refunded while another one is sold
    Refunds,
    /// Silent connections, streams and refused bodies of attackers, while others ask for their places
    Attack,
}

/// How much of it. Each scenario has its own idea of what is left out.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// What is begun per second.
    pub rate: Option<u32>,
    /// Callers at once, where a scenario works off a given amount.
    pub concurrency: Option<u32>,
    /// How long.
    pub seconds: Option<u32>,
    /// How often, where the same is done again and again.
    pub repeats: Option<u32>,
    /// Holds that run out together.
    pub holds: Option<u32>,
    /// Alarms that wait meanwhile.
    pub pending: Option<u32>,
    /// Who waits in line in the end.
    pub waiting: Option<u32>,
    /// Where chance begins, in scenarios that leave something to it.
    pub seed: u64,
    /// Finished bookings in the database.
    pub finished: Option<u64>,
    /// A page to write plans into.
    pub plans: Option<PathBuf>,
    /// An earlier report to be held against.
    pub against: Option<PathBuf>,
    /// Postgres and NATS, if they are not to be started.
    pub database_url: Option<String>,
    pub nats_url: Option<String>,
    /// Where private servers keep their files; it is removed in the end.
    pub data_dir: PathBuf,
    /// Show nothing.
    pub quiet: bool,
}

/// Measures one scenario.
///
/// # Errors
/// When a server or the service cannot be started, or does not do what it must for there to be anything to measure.
pub async fn run(scenario: Scenario, plan: &Plan) -> anyhow::Result<Report> {
    let progress = Progress::new(plan.quiet);
    let report = match scenario {
        Scenario::Sagas => sagas::run(plan, &progress).await,
        Scenario::Booking => booking::run(plan, &progress).await,
        Scenario::Journey => journey::run(plan, &progress).await,
        Scenario::HotSeat => hot_seat::run(plan, &progress).await,
        Scenario::BestAvailable => best_available::run(plan, &progress).await,
        Scenario::Load => rising::run(plan, &progress).await,
        Scenario::Outside => outside::run(plan, &progress).await,
        Scenario::Undo => undo::run(plan, &progress).await,
        Scenario::Stuck => stuck::run(plan, &progress).await,
        Scenario::Takeover => takeover::run(plan, &progress).await,
        Scenario::Expiry => expiry::run(plan, &progress).await,
        Scenario::Overdue => overdue::run(plan, &progress).await,
        Scenario::Timers => timers::run(plan, &progress).await,
        Scenario::Idle => idle::run(plan, &progress).await,
        Scenario::Queue => queue::run(plan, &progress).await,
        Scenario::Contention => contention::run(plan, &progress).await,
        Scenario::Reads => reads::run(plan, &progress).await,
        Scenario::Growth => growth::run(plan, &progress).await,
        Scenario::Gate => gate::run(plan, &progress).await,
        Scenario::Redemptions => redemptions::run(plan, &progress).await,
        Scenario::Refunds => refunds::run(plan, &progress).await,
        Scenario::Attack => attack::run(plan, &progress).await,
    };
    progress.done();
    report
}

/// Asks `check` again and again until it says yes; says whether it did within `patience`.
async fn comes_true(
    patience: Duration,
    mut check: impl AsyncFnMut() -> anyhow::Result<bool>,
) -> anyhow::Result<bool> {
    let end = tokio::time::Instant::now() + patience;
    while tokio::time::Instant::now() < end {
        if check().await? {
            return Ok(true);
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(false)
}
