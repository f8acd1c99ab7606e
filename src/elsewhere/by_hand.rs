//! Completing a step by hand, at its service: the fence is written under the same lock as every effect.

use async_nats::service::endpoint::Endpoint;
use async_nats::service::error::Error as Refusal;
use async_nats::service::{Request, Service as Announced};
use futures::StreamExt;
use tokio_util::sync::CancellationToken;

use super::{Service, StartError, judge};
use crate::background::Tasks;
use crate::bus::fences::{self, Completed, Completion};
use crate::bus::presence::PresenceError;
use crate::bus::subjects;
use crate::store;
use crate::store::outcomes;

/// Answers such requests as an endpoint of the announced service, until `stop`; then takes the announcement back.
pub(super) async fn listen(
    service: &Service,
    announced: Announced,
    tasks: &Tasks,
    stop: &CancellationToken,
) -> Result<(), StartError> {
    let subject = subjects::complete(&service.name);
    let endpoint = announced.endpoint_builder().name("complete").add(subject).await;
    let endpoint = endpoint.map_err(|error| PresenceError::new("an endpoint", &error))?;
    let answering = answer_all(service.clone(), announced, endpoint, stop.clone());
    tasks.supervise("completions by hand", answering);
    Ok(())
}

async fn answer_all(service: Service, announced: Announced, mut requests: Endpoint, stop: CancellationToken) {
    while let Some(Some(request)) = stop.run_until_cancelled(requests.next()).await {
        answer(&service, &request).await;
    }
    if let Err(error) = announced.stop().await {
        tracing::debug!(%error, "an announcement was not taken back; it ends with the process");
    }
}

async fn answer(service: &Service, request: &Request) {
    let answer = match fences::read_request(&request.message) {
        Ok(wanted) => complete(service, &wanted).await.map(fences::answer).map_err(|error| {
            tracing::warn!(saga = %wanted.saga, step = wanted.step, %error, "a step was not completed by hand");
            Refusal { code: 503, status: "its database cannot be used now".to_owned() }
        }),
        Err(error) => Err(Refusal { code: 400, status: error.to_string() }),
    };
    if let Err(error) = request.respond(answer).await {
        tracing::debug!(%error, "whoever completes a step by hand was not answered; they ask again");
    }
}

async fn complete(service: &Service, wanted: &Completion) -> store::Result<Completed> {
    let mut tx = service.pool.begin().await?;
    let Completion { saga, step, visit, output } = wanted;
    let (known, _now) = outcomes::lock(&mut tx, *saga, step, None, service.keep).await?;
    let (remembered, completed) = judge::complete(&known, *visit, output.clone());
    if let Some(remembered) = remembered {
        outcomes::save(&mut tx, *saga, step, &remembered).await?;
        tracing::info!(%saga, step, visit, "a step was completed by hand");
    }
    tx.commit().await?;
    Ok(completed)
}
