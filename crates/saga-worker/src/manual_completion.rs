//! Completion of a step by hand: the service writes the step as done into its fence, under the lock of the step's record.

use std::sync::Arc;
use std::time::Duration;

use async_nats::service::endpoint::Endpoint;
use async_nats::service::error::Error as Refusal;
use async_nats::service::{Request, Service};
use futures::StreamExt;
use saga_protocol::fences::{self, Completed, Completion};
use saga_protocol::subjects;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::database::FenceDatabase;
use crate::fence;
use crate::worker::{StartError, Worker};

/// How long a completion may take: the engine waits for the answer for five seconds.
const COMPLETION_TIMEOUT: Duration = Duration::from_secs(4);

/// Adds the endpoint for such requests to the announced service.
pub(crate) async fn endpoint(announced: &Service, service: &str) -> Result<Endpoint, StartError> {
    let endpoint = announced.endpoint_builder().name("complete").add(subjects::complete(service)).await;
    endpoint.map_err(|error| StartError::Announcement { reason: error.to_string() })
}

/// Answers requests until `stop`. Then takes the announcement back.
pub(crate) async fn answer_all<DB: FenceDatabase>(
    worker: Arc<Worker<DB>>,
    announced: Service,
    mut requests: Endpoint,
    stop: CancellationToken,
) {
    while let Some(Some(request)) = stop.run_until_cancelled(requests.next()).await {
        answer(&worker, &request).await;
    }
    if let Err(error) = announced.stop().await {
        tracing::debug!(%error, "an announcement was not taken back; it ends with the process");
    }
}

async fn answer<DB: FenceDatabase>(worker: &Worker<DB>, request: &Request) {
    let answer = match fences::read_request(&request.message) {
        Ok(wanted) => bounded(worker, &wanted).await.map(fences::answer).map_err(|error| {
            tracing::warn!(saga = %wanted.saga, step = wanted.step, %error, "a step was not completed by hand");
            Refusal { code: 503, status: "its database cannot be used now".to_owned() }
        }),
        Err(error) => Err(Refusal { code: 400, status: error.to_string() }),
    };
    if let Err(error) = request.respond(answer).await {
        tracing::debug!(%error, "a request to complete a step by hand was not answered; the engine asks again");
    }
}

async fn bounded<DB: FenceDatabase>(worker: &Worker<DB>, wanted: &Completion) -> sqlx::Result<Completed> {
    let completed = timeout(COMPLETION_TIMEOUT, complete(worker, wanted)).await;
    completed.unwrap_or(Err(sqlx::Error::PoolTimedOut))
}

async fn complete<DB: FenceDatabase>(worker: &Worker<DB>, wanted: &Completion) -> sqlx::Result<Completed> {
    let mut conn = worker.pool.acquire().await?;
    let mut tx = DB::begin(&mut conn).await?;
    let Completion { saga, step, visit, output } = wanted;
    let known = DB::lock(&mut tx, *saga, step, None, worker.keep).await?.record;
    let (record, completed) = fence::complete(&known, *visit, output.clone());
    if let Some(record) = record {
        DB::save(&mut tx, *saga, step, &record).await?;
        tracing::info!(%saga, step, visit, "a step was completed by hand");
    }
    tx.commit().await?;
    Ok(completed)
}
