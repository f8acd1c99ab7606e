//! The on-sale from the first buyer to the last, with audits all the time.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::json;
use sqlx::PgPool;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::Plan;
use super::buyer::{Buyer, Sale};
use super::client::{Client, Reply, Request, Surprise};
use super::progress::Progress;
use super::report::{Audits, Outcome};
use super::tally::{Call, Tally};
use super::wire::{Concert, Made, Page};
use boxoffice::audit::{self, Verdict};

/// Buyers per second that even a slow machine serves; buyers beyond that may find the sale ended.
const BUYERS_PER_SECOND: f64 = 100.0;
/// How often the database is judged while the sale goes on.
const AUDIT_EVERY: Duration = Duration::from_secs(2);
/// Concerts that the crowd goes to.
const CONCERTS: usize = 2;

/// After how long the sale ends for all buyers, also when the machine is too slow for so many.
fn longest(plan: &Plan) -> Duration {
    plan.arrivals + plan.patience + Duration::from_secs_f64(plan.buyers as f64 / BUYERS_PER_SECOND)
}

/// Where it takes place.
#[derive(Clone, Debug)]
pub struct Stage {
    /// The service, for instance `http://127.0.0.1:8080`.
    pub url: String,
    /// With an `admin` key the sale gets a concert of its own; without it, what is on sale is sold.
    pub admin_key: Option<String>,
    /// The service's database, to judge it; without it there is no verdict of the audit.
    pub database: Option<PgPool>,
}

/// Why there was no on-sale at all.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    #[error("the on-sale could not begin: {0}")]
    NoStage(String),
    #[error("the audit could not read the database: {0}")]
    Audit(#[from] sqlx::Error),
    #[error("stopped before the end")]
    Stopped,
}

impl From<Surprise> for DemoError {
    fn from(surprise: Surprise) -> Self {
        Self::NoStage(surprise.0)
    }
}

/// Plays the on-sale and answers how it went. `now` is the time by the service's clock, near enough.
///
/// # Errors
/// When it could not begin, when the database cannot be judged, or when `stop` came first.
pub async fn play(
    plan: Plan,
    stage: &Stage,
    now: DateTime<Utc>,
    progress: &Progress,
    stop: &CancellationToken,
) -> Result<Outcome, DemoError> {
    let tally = Arc::new(Tally::default());
    let client =
        Client::new(&stage.url, Arc::clone(&tally)).map_err(|error| DemoError::NoStage(error.to_string()))?;
    let concerts = match &stage.admin_key {
        Some(key) => vec![open_concert(&client, key, now).await?],
        None => concerts_on_sale(&client).await?,
    };
    let begun = Instant::now();
    let sale = Arc::new(Sale {
        concerts,
        patience: plan.patience,
        closing_time: begun + longest(&plan),
        tally: Arc::clone(&tally),
    });
    let mut buyers = send_in(plan, &client, &sale);

    let audits = Audits::default();
    let watched = async {
        while let Some(ended) = buyers.join_next().await {
            if let Err(panic) = ended {
                tally.surprise(format!("a buyer fell over: {panic}"));
            }
            progress.one_more(&tally);
        }
    };
    tokio::select! {
        () = watched => {}
        failed = judge_again_and_again(stage.database.as_ref(), &audits) => return Err(failed.into()),
        () = stop.cancelled() => return Err(DemoError::Stopped),
    }
    progress.done();
    if let Some(database) = &stage.database {
        audits.add(audit::run(database).await?);
    }
    Ok(Outcome::new(plan, begun.elapsed(), &tally, audits))
}

fn send_in(plan: Plan, client: &Client, sale: &Arc<Sale>) -> JoinSet<()> {
    let mut crowd = StdRng::seed_from_u64(plan.seed);
    let mut buyers = JoinSet::new();
    for number in 1..=plan.buyers {
        let arrival = plan.arrivals.mul_f64(crowd.random_range(0.0..1.0));
        let buyer = Buyer::new(client.clone(), Arc::clone(sale), StdRng::from_rng(&mut crowd));
        buyers.spawn(async move {
            sleep(arrival).await;
            buyer.live(number).await;
        });
    }
    buyers
}

/// Judges until it is dropped; ends only when the database cannot be read.
async fn judge_again_and_again(database: Option<&PgPool>, audits: &Audits) -> sqlx::Error {
    let Some(database) = database else {
        return std::future::pending().await;
    };
    loop {
        sleep(AUDIT_EVERY).await;
        match audit::run(database).await {
            Ok(report) => {
                debug!(good = report.verdict == Verdict::Good, "audited during the sale");
                audits.add(report);
            }
            Err(error) => return error,
        }
    }
}

async fn concerts_on_sale(client: &Client) -> Result<Vec<Concert>, DemoError> {
    let request = Request::get(Call::Browse, "/v1/concerts?limit=100");
    let page: Page<Concert> = match client.send(&request).await? {
        Reply::Good(page) => page,
        Reply::Refused(problem) => return Err(DemoError::NoStage(problem.detail)),
    };
    let open: Vec<Concert> =
        page.items.into_iter().filter(|concert| concert.on_sale).take(CONCERTS).collect();
    if open.is_empty() {
        return Err(DemoError::NoStage("no concert is on sale there; give an admin key to open one".into()));
    }
    Ok(open)
}

/// A concert with three dates of fifty seats, made for this on-sale.
async fn open_concert(client: &Client, admin_key: &str, now: DateTime<Utc>) -> Result<Concert, DemoError> {
    let name = format!("On-sale of {}", now.format("%Y-%m-%d %H:%M:%S"));
    let concert = json!({ "name": name, "description": "Played by `boxoffice-demo`." });
    let id = made(client, admin_key, "/v1/admin/concerts", concert).await?;
    for day in 30..33 {
        let starts_at = now + TimeDelta::days(day);
        let date = json!({
            "venue": "Demo Hall", "starts_at": starts_at, "duration_minutes": 90,
            "sale_opens_at": now - TimeDelta::minutes(1), "sale_closes_at": starts_at - TimeDelta::hours(1),
            "seats": [
                { "from": 1, "to": 30, "section": "Stalls", "price": 12_000 },
                { "from": 31, "to": 50, "section": "Balcony", "price": 7_000 },
            ],
        });
        made(client, admin_key, &format!("/v1/admin/concerts/{id}/performances"), date).await?;
    }
    Ok(Concert { id, on_sale: true })
}

async fn made(
    client: &Client,
    admin_key: &str,
    path: &str,
    body: serde_json::Value,
) -> Result<uuid::Uuid, DemoError> {
    match client.send::<Made>(&Request::post(Call::Account, path, body).by(admin_key)).await? {
        Reply::Good(made) => Ok(made.id),
        Reply::Refused(problem) => Err(DemoError::NoStage(format!(
            "POST {path} was refused: {} {} ({})",
            problem.status, problem.code, problem.detail
        ))),
    }
}
