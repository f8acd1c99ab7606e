//! The reads of every buyer: how many a second, how fast and at what cost, with the cache and without it; and how old it is.
//!
//! The same callers ask without a pause for the list of concerts, the dates of a concert, and a map of ten thousand
//! seats; both without a version, and with the version that they already have.

mod readers;
mod staleness;

use serde_json::{Value, json};
use uuid::Uuid;

use super::client::{Caller, Client};
use super::progress::Progress;
use super::report::{Measure, Quantile, Report};
use super::stage::{ALL_ROLES, Stage, Wanted};
use super::{Plan, crowd};
use readers::Load;

/// Seats of each date.
const SEATS: u32 = 10_000;
/// Dates of the concert.
const DATES: u32 = 5;
/// Concerts on the list beside it.
const OTHERS: u32 = 49;
/// Holds in each second of a busy sale.
const BUSY: u32 = 100;
/// No copy may be older.
const BOUND_MS: f64 = 1_000.0;
/// One reader holds all the seats, and looks around for as long as it takes.
const SETTINGS: [(&str, &str); 4] = [
    ("BOXOFFICE_MAX_SEATS_PER_USER", "10000"),
    ("BOXOFFICE_QUEUE_CLAIM_SECONDS", "86400"),
    ("BOXOFFICE_QUEUE_SESSION_SECONDS", "86400"),
    ("BOXOFFICE_HOLD_SECONDS", "86400"),
];
const WITHOUT: [(&str, &str); 1] = [("BOXOFFICE_CACHE", "off")];

/// What is read, by whom.
struct Hall {
    reader: Caller,
    performance: Uuid,
    /// A name for each thing that is read, and its path.
    paths: [(&'static str, String); 3],
}

pub(super) async fn run(plan: &Plan, progress: &Progress) -> anyhow::Result<Report> {
    let (seconds, callers) = (plan.seconds.unwrap_or(5), plan.concurrency.unwrap_or(32));
    let stage = Stage::open(plan, Wanted { settings: &SETTINGS, ..Wanted::default() }).await?;
    let service = stage.serve(ALL_ROLES).await?;
    let second = stage.serve("api").await?;
    let without = stage.serve_with("api", &WITHOUT).await?;
    let hall = open(&stage, &service.client).await?;

    let mut errors = 0;
    let mut loads: Vec<Load> = Vec::new();
    for (cache, client) in [(true, &second.client), (false, &without.client)] {
        for (what, path) in &hall.paths {
            for knows in [false, true] {
                progress.begin(what, 0);
                let load = Load { what, cache, knows, ..Load::default() };
                loads.push(load.measure(client, &hall.reader, path, callers, seconds).await?);
            }
        }
    }
    let quiet = plan.holds.unwrap_or(60);
    let watched = [&service.client, &second.client];
    progress.begin("holds, one after the other", quiet.into());
    let alone = staleness::measure(&watched, &hall, 3, quiet, 1, progress).await?;
    let busy = quiet * 16;
    progress.begin("holds of a busy sale", busy.into());
    let crowded = staleness::measure(&watched, &hall, BUSY, busy, quiet + 1, progress).await?;
    errors += alone.lost + crowded.lost + loads.iter().map(|load| load.errors).sum::<u64>();

    let first = loads.iter().find(|load| load.cache && !load.knows && load.what == hall.paths[2].0);
    let first = first.cloned().unwrap_or_default();
    let bounded = |name, timings| Measure::with_goal(name, timings, Quantile::Max, BOUND_MS);
    let measures = vec![
        Measure::without_goal("a map of 10,000 seats, with the cache, without If-None-Match", &first.timings),
        bounded("one hold at a time: answered to shown, same instance", &alone.shown[0]),
        bounded("one hold at a time: answered to shown, second instance", &alone.shown[1]),
        bounded("100 holds a second: answered to shown, same instance", &crowded.shown[0]),
        bounded("100 holds a second: answered to shown, second instance", &crowded.shown[1]),
        Measure::without_goal("one hold at a time: sent to shown, second instance", &alone.since_sent),
        Measure::without_goal("100 holds a second: sent to shown, second instance", &crowded.since_sent),
    ];
    let mut report = Report::new("reads", measures).work(first.count, first.seconds, first.cpu);
    report.errors = errors;
    let all: Vec<Value> = loads.iter().map(Load::summary).collect();
    let report = report
        .with("seconds", seconds)
        .with("callers", callers)
        .with("seats", SEATS)
        .with("dates", DATES)
        .with("concerts", OTHERS + 1)
        .with("loads", json!(all));
    stage.close(vec![service, second, without], report).await
}

/// A concert with its dates and others beside it, and an admitted buyer.
async fn open(stage: &Stage, client: &Client) -> anyhow::Result<Hall> {
    let queue = json!({ "max_active": 1_000_000, "admit_per_minute": 6_000_000 });
    let (concert, performance) = crowd::sale(stage, client, queue, SEATS).await?;
    for _ in 1..DATES {
        crowd::date(stage, client, concert, SEATS).await?;
    }
    for number in 0..OTHERS {
        let other = json!({ "name": format!("Another {number}"), "description": "An evening beside it." });
        client.post("/v1/admin/concerts", &stage.admin, other).await?.id()?;
    }
    let reader = crowd::get_ready(client, concert).await?;
    let paths = [
        ("concerts", "/v1/concerts".to_owned()),
        ("dates", format!("/v1/concerts/{concert}/performances")),
        ("seats", format!("/v1/performances/{performance}/seats")),
    ];
    Ok(Hall { reader, performance, paths })
}
