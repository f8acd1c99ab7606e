//! Buyers who are ready to book: signed up, with points, admitted; and a performance with a seat for each.

use std::time::Duration;

use anyhow::{Context, bail};
use chrono::TimeDelta;
use futures::{StreamExt, TryStreamExt};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use super::client::{Answer, Caller, Client};
use super::progress::Progress;
use super::stage::Stage;

/// Buyers that get ready at once.
const AT_ONCE: usize = 64;
/// Points of each: enough for any number of seats.
const POINTS: i64 = 10_000_000;
/// The price of a seat.
const PRICE: i64 = 100;
/// The pause between two looks at one's place.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// How long any other call may take in which a buyer gets ready.
const PREPARATION: Duration = Duration::from_secs(30);
/// How long an admission may take.
const ADMISSION: Duration = Duration::from_secs(60);

/// What is sold, and to whom.
#[derive(Debug)]
pub(super) struct Crowd {
    pub concert: Uuid,
    pub performance: Uuid,
    pub buyers: Vec<Caller>,
}

/// Opens a sale of `seats` seats and gets so many buyers ready for it.
pub(super) async fn gather(
    stage: &Stage,
    client: &Client,
    buyers: u32,
    seats: u32,
    progress: &Progress,
) -> anyhow::Result<Crowd> {
    let queue = json!({ "max_active": 1_000_000, "admit_per_minute": 6_000_000 });
    let (concert, performance) = sale(stage, client, queue, seats).await?;
    progress.begin("buyers get ready", buyers.into());
    let ready = futures::stream::iter(0..buyers).map(|_| async {
        let buyer = get_ready(client, concert).await?;
        progress.more(1);
        anyhow::Ok(buyer)
    });
    let buyers = ready.buffer_unordered(AT_ONCE).try_collect().await?;
    Ok(Crowd { concert, performance, buyers })
}

/// A concert with a line and one date with so many seats.
pub(super) async fn sale(
    stage: &Stage,
    client: &Client,
    queue: Value,
    seats: u32,
) -> anyhow::Result<(Uuid, Uuid)> {
    let concert = json!({ "name": "Measured", "description": "By `boxoffice-bench`.", "queue": queue });
    let concert = client.post("/v1/admin/concerts", &stage.admin, concert).await?.id()?;
    Ok((concert, date(stage, client, concert, seats).await?))
}

/// One more date of a concert, on sale now.
pub(super) async fn date(stage: &Stage, client: &Client, concert: Uuid, seats: u32) -> anyhow::Result<Uuid> {
    let now = stage.clock.now();
    let starts_at = now + TimeDelta::days(30);
    let date = json!({
        "venue": "Bench Hall", "starts_at": starts_at, "duration_minutes": 90,
        "sale_opens_at": now - TimeDelta::hours(1), "sale_closes_at": starts_at - TimeDelta::hours(1),
        "seats": [{ "from": 1, "to": seats, "section": "A", "price": PRICE }],
    });
    let path = format!("/v1/admin/concerts/{concert}/performances");
    client.post(&path, &stage.admin, date).await?.id()
}

/// How many the service counts in a line: those who wait, and those who are admitted.
pub(super) async fn line(stage: &Stage, client: &Client, concert: Uuid) -> anyhow::Result<(u64, u64)> {
    #[derive(Deserialize)]
    struct Line {
        length: u64,
        active: u64,
    }
    let Line { length, active } =
        client.get(&format!("/v1/ops/queues/{concert}"), &stage.admin).await?.yes()?;
    Ok((length, active))
}

/// A new user who has points and is admitted.
pub(super) async fn get_ready(client: &Client, concert: Uuid) -> anyhow::Result<Caller> {
    let user = insist(client, "/v1/users", &Caller::default(), json!({ "name": "Somebody" })).await?;
    let bearer = user.body()["access_token"].as_str().context("a new user gets an access token")?.to_owned();
    let mut caller = Caller { bearer, queue_token: String::new() };
    insist(client, "/v1/points/charges", &caller, json!({ "amount": POINTS })).await?;
    let path = format!("/v1/concerts/{concert}/queue-tokens");
    let place = insist(client, &path, &caller, json!({})).await?;
    caller.queue_token =
        place.body()["token"].as_str().context("an answer to a join has a token")?.to_owned();
    let end = Instant::now() + ADMISSION;
    while Instant::now() < end {
        sleep(LOOK_EVERY).await;
        let place = client.get("/v1/queue-tokens/current", &caller).await?;
        if place.body()["status"] == "active" {
            caller.queue_token = place.body()["token"].as_str().context("a place has a token")?.to_owned();
            return Ok(caller);
        }
    }
    bail!("a buyer was not admitted within {} s", ADMISSION.as_secs())
}

/// Repeats a call for which the service asks to wait: preparations are not measured.
async fn insist(client: &Client, path: &str, caller: &Caller, body: Value) -> anyhow::Result<Answer> {
    let end = Instant::now() + PREPARATION;
    loop {
        let answer = client.post(path, caller, body.clone()).await?;
        match answer.status {
            200 | 201 => return Ok(answer),
            429 | 503 if Instant::now() < end => sleep(LOOK_EVERY).await,
            status => bail!("POST {path} was answered {status} {}", answer.body()),
        }
    }
}
