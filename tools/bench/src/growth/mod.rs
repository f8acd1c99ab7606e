//! The cost of a booking in an empty database, and beside very many finished ones.
//!
//! The finished bookings are copies of one that the service has made. At each size the same number of new ones is made over
//! HTTP, one after the other, so that nothing is batched and what is counted does not depend on chance. Times do: in the end they are
//! measured with none and with all of the finished ones in turn.

mod lists;
mod times;

use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use chrono::TimeDelta;
use futures::{StreamExt, TryStreamExt};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use self::lists::Listed;
use self::times::Times;
use super::client::{Caller, Client};
use super::cost::Reading;
use super::indexes::{self, Compared, Listener, Planned, Sample};
use super::process::Process;
use super::progress::Progress;
use super::report::{Goal, Measure, Report};
use super::stage::{ALL_ROLES, Stage, Wanted};
use super::timing::{Spread, Timings};
use super::{Plan, crowd};
use crate::store::growth::{self, Copies, LogCost, StatementCost};
use crate::store::{plans, rehearsal};
use boxoffice::ids;

/// The finished bookings lie in these days.
const DAYS: TimeDelta = TimeDelta::days(30);
/// Bookings that are copied in one transaction: five performances of so many seats.
const CHUNK: u64 = 100_000;
const HALL: i64 = 20_000;
/// Bookings before those that are counted: connections are made then, statements prepared, pages read.
const WARM_UP: u32 = 100;
/// How much more a booking may cost.
const GROWTH: f64 = 1.10;
/// How often times are measured with none and with all.
const ROUNDS: u32 = 5;
/// An ended saga leaves its flight within a second.
const REST: Duration = Duration::from_millis(2_500);
/// A statement that is executed less often than this per booking does not belong to bookings.
const SELDOM: f64 = 0.1;
/// A statement that is executed at least this often per booking is not shared by bookings.
const UNSHARED: f64 = 0.95;
/// Sagas under way and stuck, so that plans have some to find.
const WAITING: usize = 100;
const STUCK: usize = 10;
/// An admitted buyer waits until the ones before have booked, so sessions must last.
const SETTINGS: [(&str, &str); 2] =
    [("BOXOFFICE_QUEUE_CLAIM_SECONDS", "86400"), ("BOXOFFICE_QUEUE_SESSION_SECONDS", "86400")];
/// The generated part of the page of the plans lies between these lines.
const MARKS: (&str, &str) = ("<!-- measured -->\n", "<!-- end of what is measured -->\n");

/// What a booking costs with so many finished ones.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Level {
    pub finished: u64,
    pub database_bytes: i64,
    /// Bookings that were under way at a time.
    pub at_once: u32,
    pub statements: f64,
    /// Those that bookings do not share.
    pub own_statements: f64,
    pub commits: f64,
    pub jetstream_messages: f64,
    /// How often the service asked its allocator for memory.
    pub allocations: f64,
    pub rows_inserted: f64,
    pub heap_only_updates: f64,
    pub full_updates: f64,
    pub index_entries: f64,
    pub row_locks: f64,
    /// Pages that were looked at, found in memory or read.
    pub pages: f64,
    /// Pages that were changed for the first time since they were last written.
    dirtied: f64,
    log_records: f64,
    /// Bytes of the log without whole pages.
    pub log_bytes: f64,
    /// Bytes of whole pages: each page that is changed for the first time after a checkpoint.
    log_page_bytes: f64,
    hold: Option<Spread>,
    pay: Option<Spread>,
    /// Each kind of statement per booking, the most expensive first.
    pub by_statement: Vec<PerBooking>,
    /// Periodic statements of the service that read a page or more per booking.
    by_the_clock: Vec<PerBooking>,
    /// Of holds and of payments.
    #[serde(skip)]
    pub timings: [Timings; 2],
    #[serde(skip)]
    pub seconds: f64,
    /// The first of the bookings.
    #[serde(skip)]
    pub first: Uuid,
}

/// A kind of statement.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct PerBooking {
    pub statement: String,
    pub calls: f64,
    pub pages: f64,
    pub log_bytes: f64,
}

pub(super) async fn run(plan: &Plan, progress: &Progress) -> anyhow::Result<Report> {
    let (finished, bookings) = (plan.finished.unwrap_or(1_000_000), plan.holds.unwrap_or(1_000));
    let stage = open(plan).await?;
    let service = stage.serve(ALL_ROLES).await?;
    let (mut levels, mut made, mut pattern): (Vec<Level>, u64, Option<Uuid>) = (Vec::new(), 0, None);
    let mut sizes = vec![0, finished / 10, finished];
    sizes.dedup();
    for size in sizes {
        if let Some(pattern) = pattern {
            fill(&stage, pattern, made, size, finished, progress).await?;
            made = size;
        }
        let level = measure(&stage, &service, (bookings, 1), size, progress).await?;
        pattern.get_or_insert(level.first);
        levels.push(level);
    }
    let lists = match pattern {
        Some(booking) => lists::read(&stage, &service.client, booking, progress).await?,
        None => Vec::new(),
    };
    if let Some(page) = &plan.plans {
        progress.begin("plans with indexes and without", 0);
        let compared = compare(&stage).await?;
        save(page, &compared, finished, growth::size(&stage.pool).await?)?;
    }
    let rounds = (plan.repeats.unwrap_or(ROUNDS), bookings);
    let times = times::alternate(plan, (&stage, &service.client), finished, rounds, progress).await?;
    let report = report(&levels, bookings, &times, &lists);
    stage.close(vec![service], report).await
}

/// Starts servers that count statements, with sessions that outlast the sale.
pub(super) async fn open(plan: &Plan) -> anyhow::Result<Stage> {
    let wanted =
        Wanted { settings: &SETTINGS, count_statements: true, count_allocations: true, ..Wanted::default() };
    Stage::open(plan, wanted).await
}

fn report(levels: &[Level], bookings: u32, times: &[Times], lists: &[Listed]) -> Report {
    let last = levels.last();
    let timings = last.map(|level| level.timings.clone()).unwrap_or_default();
    let measures = vec![
        Measure::without_goal("a payment beside all finished bookings", &timings[1]),
        Measure::without_goal("a hold beside all finished bookings", &timings[0]),
    ];
    let seconds = last.map_or(0.0, |level| level.seconds);
    let mut report = Report::new("growth", measures).work(bookings.into(), seconds, None);
    for pair in levels.windows(2) {
        let ratio = |figure: fn(&Level) -> f64| Some(rounded(figure(&pair[1]) / figure(&pair[0])));
        let name = |what: &str| format!("{what} at {} against {}", pair[1].finished, pair[0].finished);
        report.goals.extend([
            Goal::at_most(name("statements"), ratio(|level| level.statements), GROWTH),
            Goal::at_most(name("pages"), ratio(|level| level.pages), GROWTH),
            Goal::at_most(name("bytes of the log"), ratio(|level| level.log_bytes), GROWTH),
        ]);
    }
    report.goals.push(lists::goal(lists));
    let header = ["finished", "GB", "statements", "pages", "log bytes", "hold ms", "payment ms"];
    report.table = vec![header.map(str::to_owned).into()];
    report.table.extend(levels.iter().map(|level| row(level, times)));
    report
        .with("bookings", bookings)
        .with("levels", json!(levels))
        .with("times", json!(times))
        .with("lists", json!(lists))
}

/// A size as people read it; times are those that were measured in turn.
fn row(level: &Level, times: &[Times]) -> Vec<String> {
    let taken = times.iter().find(|times| times.finished == level.finished);
    let ms = |figure: Option<f64>| figure.map_or("-".to_owned(), |ms| format!("{ms:.1}"));
    vec![
        level.finished.to_string(),
        format!("{:.2}", level.database_bytes as f64 / 1e9),
        level.statements.to_string(),
        level.pages.to_string(),
        level.log_bytes.to_string(),
        ms(taken.and_then(|times| times.hold_ms)),
        ms(taken.and_then(|times| times.payment_ms)),
    ]
}

/// Adds copies of a booking until there are `until` of `finished`.
async fn fill(
    stage: &Stage,
    pattern: Uuid,
    mut made: u64,
    until: u64,
    finished: u64,
    progress: &Progress,
) -> anyhow::Result<()> {
    progress.begin("finished bookings", until - made);
    let from = stage.clock.now() - DAYS;
    growth::make_days(&stage.pool, from).await?;
    let step = DAYS / i32::try_from(finished).unwrap_or(i32::MAX);
    while made < until {
        let count = CHUNK.min(until - made);
        let begun = from + TimeDelta::microseconds(step.num_microseconds().unwrap_or(1) * made as i64);
        let copies = Copies { pattern, from: begun, step, count: count as i64, hall: HALL };
        growth::copy(&stage.superuser, copies).await.context("the finished bookings cannot be made")?;
        made += count;
        progress.more(count);
    }
    progress.begin("tidying up", 0);
    Ok(growth::settle(&stage.superuser).await?)
}

/// Makes so many bookings, so many of them at a time, after as many as it takes to warm up, and counts what they take.
pub(super) async fn measure(
    stage: &Stage,
    service: &Process,
    (bookings, at_once): (u32, u32),
    finished: u64,
    progress: &Progress,
) -> anyhow::Result<Level> {
    let (client, warm_up) = (&service.client, WARM_UP.min(bookings));
    let all = bookings + warm_up;
    let crowd = crowd::gather(stage, client, all, all, progress).await?;
    let (warm, buyers) = crowd.buyers.split_at(warm_up as usize);
    book(client, warm, (crowd.performance, 1), at_once, &Progress::new(true)).await?;
    sleep(REST).await;
    growth::settle(&stage.superuser).await?;
    rehearsal::reset_statements(&stage.superuser).await?;
    progress.begin(&format!("bookings beside {finished} finished ones"), bookings.into());
    let (before, allocated) = (Reading::take(stage).await?, service.allocations().await?);
    let (from, begun) = (growth::log_end(&stage.pool).await?, Instant::now());
    let (first, hold, pay) =
        book(client, buyers, (crowd.performance, warm_up + 1), at_once, progress).await?;
    let seconds = begun.elapsed().as_secs_f64();
    sleep(REST).await;
    let (to, allocated_then) = (growth::log_end(&stage.pool).await?, service.allocations().await?);
    let cost = Reading::take(stage).await?.since(&before, bookings.into());
    let work = growth::log_work(&stage.superuser, &from, &to).await?;
    let costs = growth::costs(&stage.superuser).await?;
    let LogCost { records, record_bytes, page_bytes } =
        growth::log_cost(&stage.superuser, &from, &to).await?;
    let each = |figure: i64| rounded(figure as f64 / f64::from(bookings));
    let sum = |figure: fn(&StatementCost) -> i64| each(costs.iter().map(figure).sum());
    let all = costs.iter().map(|cost| PerBooking {
        statement: shortened(&cost.query),
        calls: each(cost.calls),
        pages: each(cost.pages),
        log_bytes: each(cost.wal_bytes),
    });
    let all: Vec<PerBooking> = all.collect();
    let own = all.iter().map(|one| one.calls).filter(|calls| *calls >= UNSHARED);
    let own_statements = own.fold(0.0, |sum, calls| sum + calls);
    let (by_statement, seldom): (Vec<_>, Vec<_>) =
        all.into_iter().partition(|statement| statement.calls >= SELDOM);
    Ok(Level {
        finished,
        database_bytes: growth::size(&stage.pool).await?,
        at_once,
        statements: sum(|cost| cost.calls),
        own_statements: rounded(own_statements),
        commits: cost.commits,
        jetstream_messages: cost.jetstream_messages,
        allocations: each(allocated_then.saturating_sub(allocated).cast_signed()).round(),
        rows_inserted: each(work.rows_inserted),
        heap_only_updates: each(work.heap_only_updates),
        full_updates: each(work.full_updates),
        index_entries: each(work.index_entries),
        row_locks: each(work.row_locks),
        pages: sum(|cost| cost.pages),
        dirtied: sum(|cost| cost.dirtied),
        log_records: each(records),
        log_bytes: each(record_bytes),
        log_page_bytes: each(page_bytes),
        hold: hold.spread(),
        pay: pay.spread(),
        by_statement,
        by_the_clock: seldom.into_iter().filter(|statement| statement.pages >= 1.0).collect(),
        timings: [hold, pay],
        seconds,
        first,
    })
}

/// Lets each buyer hold a seat and pay for it, so many buyers at a time; answers the first reservation, and how long holds and
/// payments took.
async fn book(
    client: &Client,
    buyers: &[Caller],
    (performance, first_seat): (Uuid, u32),
    at_once: u32,
    progress: &Progress,
) -> anyhow::Result<(Uuid, Timings, Timings)> {
    let booking = async |(buyer, seat): (&Caller, u32)| {
        let begun = Instant::now();
        let reservation = client.reserve(buyer, performance, seat).await?.id()?;
        let hold = begun.elapsed();
        let begun = Instant::now();
        let paid = client.pay(buyer, reservation).await?;
        anyhow::ensure!(paid.status == 201, "a payment was answered {}", paid.status);
        progress.more(1);
        Ok((reservation, hold, begun.elapsed()))
    };
    let bookings = futures::stream::iter(buyers.iter().zip(first_seat..)).map(booking);
    let booked: Vec<(Uuid, Duration, Duration)> = bookings.buffered(at_once as usize).try_collect().await?;
    let (mut hold, mut pay) = (Timings::default(), Timings::default());
    for (_, held, paid) in &booked {
        hold.add_duration(*held);
        pay.add_duration(*paid);
    }
    let (first, ..) = booked.first().context("no buyer has booked")?;
    Ok((*first, hold, pay))
}

/// The plans of every statement that is executed again and again.
async fn compare(stage: &Stage) -> anyhow::Result<Vec<Compared>> {
    let waiting: Vec<Uuid> = (0..WAITING).map(|_| ids::new()).collect();
    rehearsal::add_waiting(&stage.pool, &waiting, stage.clock.now() + TimeDelta::hours(1)).await?;
    plans::get_stuck(&stage.pool, &waiting[..STUCK]).await?;
    growth::settle(&stage.superuser).await?;
    let listener = Listener::connect(stage.superuser_url(), Planned::ForTheseValues).await?;
    let sample = Sample::take(&stage.pool).await?;
    let mut all = Vec::new();
    for hot in indexes::all() {
        all.push(listener.compare(&hot, &sample).await?);
    }
    Ok(all)
}

/// Writes what was measured into its place on the page.
fn save(page: &Path, compared: &[Compared], finished: u64, bytes: i64) -> anyhow::Result<()> {
    let text = std::fs::read_to_string(page).with_context(|| format!("cannot read {}", page.display()))?;
    let (before, rest) = text.split_once(MARKS.0).context("the page does not say where the plans stand")?;
    let (_, after) = rest.split_once(MARKS.1).context("the page does not say where the plans end")?;
    let part = indexes::write(compared, finished, bytes as f64 / 1e9);
    let text = format!("{before}{}\n{part}\n{}{after}", MARKS.0, MARKS.1);
    std::fs::write(page, text).with_context(|| format!("cannot write {}", page.display()))
}

/// The first 120 characters of a statement, on one line.
fn shortened(query: &str) -> String {
    let line: Vec<&str> = query.split_whitespace().collect();
    line.join(" ").chars().take(120).collect()
}

fn rounded(figure: f64) -> f64 {
    (figure * 100.0).round() / 100.0
}
