//! The operators' list of sagas beside very many finished ones: how long each filter takes to be answered.

use chrono::TimeDelta;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use uuid::Uuid;

use crate::client::Client;
use crate::progress::Progress;
use crate::report::Goal;
use crate::stage::Stage;
use crate::store::growth;
use crate::timing::Timings;

/// How long a page of the list may take, in milliseconds.
const GOAL_MS: f64 = 200.0;
const REPEATS: usize = 5;
/// Finished bookings lie in the last thirty days.
const MONTH: TimeDelta = TimeDelta::days(30);

/// A list that was read several times.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Listed {
    query: String,
    items: usize,
    slowest_ms: f64,
}

/// A page of the list, as far as it matters here.
#[derive(Deserialize)]
struct Page {
    items: Vec<serde::de::IgnoredAny>,
    next_cursor: Option<String>,
}

/// Reads the list by each filter, and by the cursor of its first page. `booking` is a finished one.
pub(super) async fn read(
    stage: &Stage,
    client: &Client,
    booking: Uuid,
    progress: &Progress,
) -> anyhow::Result<Vec<Listed>> {
    progress.begin("lists of sagas", 0);
    let (user, performance) = growth::buyer_of(&stage.pool, booking).await?;
    let middle = (stage.clock.now() - MONTH / 2).format("%Y-%m-%dT%H:%M:%SZ");
    let queries = [
        String::new(),
        "workflow=booking".to_owned(),
        "workflow=booking&version=1".to_owned(),
        "status=completed".to_owned(),
        "status=stuck".to_owned(),
        "status=compensated".to_owned(),
        "open=true".to_owned(),
        "workflow=booking&step=hold&direction=undo".to_owned(),
        "direction=undo".to_owned(),
        "paused=true".to_owned(),
        format!("reservation_id={booking}"),
        format!("user_id={user}"),
        format!("performance_id={performance}"),
        "reason_contains=no+such+reason".to_owned(),
        "older_than_seconds=1296000".to_owned(),
        "idle_seconds=1296000".to_owned(),
        format!("started_after={middle}"),
        format!("started_before={middle}"),
        "attribute=tour%3Dnone".to_owned(),
        "workflow=booking&status=completed&idle_seconds=1296000&reason_contains=none".to_owned(),
    ];
    let mut all = Vec::new();
    let mut next = None;
    for query in queries {
        let (listed, cursor) = timed(stage, client, &query).await?;
        all.push(listed);
        next = next.or(cursor);
    }
    if let Some(cursor) = next {
        all.push(timed(stage, client, &format!("cursor={cursor}")).await?.0);
    }
    Ok(all)
}

async fn timed(stage: &Stage, client: &Client, query: &str) -> anyhow::Result<(Listed, Option<String>)> {
    let path = format!("/v1/ops/sagas?limit=50&{query}");
    let (mut timings, mut page) = (Timings::default(), None);
    for _ in 0..REPEATS {
        let begun = Instant::now();
        let answer = client.get(&path, &stage.admin).await?;
        timings.add_duration(begun.elapsed());
        page = Some(answer.yes::<Page>().map_err(|error| error.context(path.clone()))?);
    }
    let page = page.unwrap_or(Page { items: Vec::new(), next_cursor: None });
    let slowest_ms = timings.spread().map_or(0.0, |spread| spread.max_ms);
    Ok((Listed { query: query.to_owned(), items: page.items.len(), slowest_ms }, page.next_cursor))
}

/// The slowest of all lists against the goal.
pub(super) fn goal(lists: &[Listed]) -> Goal {
    let slowest = lists.iter().map(|list| list.slowest_ms).max_by(f64::total_cmp);
    Goal::at_most("a page of the list of sagas, in ms", slowest, GOAL_MS)
}
