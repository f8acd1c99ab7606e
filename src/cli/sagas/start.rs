//! `saga start`, `saga signal` and `saga wait`.

use std::time::Duration;

use serde_json::{Map, Value, json};
use sqlx::PgPool;
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use super::super::{Context, Ending, Misuse};
use super::acting::Acting;
use crate::ids;
use crate::operations::SagaView;
use crate::orchestrator::{NewClientSaga, SagaStartError, Verdict};
use crate::saga::{Saga, Signal, Status};
use crate::store;

/// How often a saga is looked at that is waited for.
const LOOK_INTERVAL: Duration = Duration::from_millis(200);

#[derive(clap::Args, Debug)]
pub(in crate::cli) struct Wanted {
    /// The workflow
    name: String,
    /// The input, as a JSON object
    #[arg(long, value_name = "JSON", default_value = "{}", value_parser = object)]
    input: Map<String, Value>,
    /// An attribute that the saga is found by; up to 8. A value that is an integer becomes one
    #[arg(long = "attribute", value_name = "NAME=VALUE", value_parser = attribute)]
    attributes: Vec<(String, Value)>,
    /// What the saga is about
    #[arg(long, value_name = "ID")]
    subject: Option<Uuid>,
    /// The id of the saga: starting it again does nothing
    #[arg(long)]
    id: Option<Uuid>,
    /// Wait for so many seconds at most until it has ended or waits for a signal
    #[arg(long, value_name = "SECONDS", default_value_t = 0, value_parser = clap::value_parser!(u64).range(0..=3_600))]
    wait: u64,
}

#[derive(clap::Args, Debug)]
pub(in crate::cli) struct Signalled {
    /// The saga
    id: Uuid,
    /// The signal, for instance `approve`
    name: String,
    /// What joins the saga's context, as a JSON object
    #[arg(long, value_name = "JSON", default_value = "{}", value_parser = object)]
    payload: Map<String, Value>,
}

#[derive(clap::Args, Debug)]
pub(in crate::cli) struct Awaited {
    /// The saga
    id: Uuid,
    /// How long to wait at most
    #[arg(long, default_value_t = 300, value_parser = clap::value_parser!(u64).range(0..=86_400))]
    seconds: u64,
}

pub(super) async fn run(context: &Context, wanted: Wanted) -> anyhow::Result<Ending> {
    let fresh = ids::new();
    let id = wanted.id.unwrap_or(fresh);
    let new = NewClientSaga {
        id,
        workflow: wanted.name,
        subject_id: wanted.subject,
        input: wanted.input,
        attributes: wanted.attributes.into_iter().collect(),
        trace: None,
    };
    let acting = Acting::begin(context).await?;
    let started = acting.engine.start_saga(new).await;
    acting.end().await;
    if let Err(error) = started {
        let code = match &error {
            SagaStartError::UnknownWorkflow(_) => "not_found",
            SagaStartError::Retired(_) => "workflow_retired",
            SagaStartError::Invalid(_) => "invalid_request",
            SagaStartError::Reserved(_) => "forbidden",
            _ => return Err(error.into()),
        };
        let answer = json!({ "code": code, "detail": error.to_string() });
        context.output.answer(&answer, |_| error.to_string())?;
        return Ok(Ending::Wrong);
    }
    let pool = context.database().await?;
    let saga = settled(&pool, id, Duration::from_secs(wanted.wait), Status::is_settled).await?;
    context.output.answer(&SagaView::from(saga), line)?;
    Ok(Ending::Good)
}

pub(super) async fn signal(context: &Context, signalled: Signalled) -> anyhow::Result<Ending> {
    let Signalled { id, name, payload } = signalled;
    if let Err(error) = crate::jsonb::check_object(&payload) {
        return Err(Misuse(format!("--payload {}: {}", error.pointer, error.reason)).into());
    }
    let pool = context.database().await?;
    let before = store::sagas::get(&pool, id).await?;
    let before = before.ok_or_else(|| anyhow::anyhow!("there is no saga {id}"))?;
    let acting = Acting::begin(context).await?;
    let given = acting.engine.signal_with(id, Signal { name: name.clone(), payload }).await;
    acting.end().await;
    let (code, detail) = match given? {
        Verdict::Moved => {
            let saga = settled(&pool, id, Duration::ZERO, Status::is_settled).await?;
            context.output.answer(&SagaView::from(saga), line)?;
            return Ok(Ending::Good);
        }
        Verdict::Stale => {
            ("not_waiting", format!("the saga is {}; it does not wait for {name}", before.status))
        }
        Verdict::Illegal(why) => ("invalid_request", why),
        Verdict::Undefined(why) => ("unavailable", why),
    };
    context.output.answer(&json!({ "code": code, "detail": detail }), |_| detail.clone())?;
    Ok(Ending::Wrong)
}

pub(super) async fn wait(context: &Context, awaited: &Awaited) -> anyhow::Result<Ending> {
    let pool = context.database().await?;
    let is_over = |status: Status| status.is_end() || status == Status::Stuck;
    let saga = settled(&pool, awaited.id, Duration::from_secs(awaited.seconds), is_over).await?;
    let ending = if saga.status == Status::Completed { Ending::Good } else { Ending::Wrong };
    context.output.answer(&SagaView::from(saga), line)?;
    Ok(ending)
}

/// The saga once it has come to rest, or as it stands when the time is over.
async fn settled(
    pool: &PgPool,
    id: Uuid,
    time: Duration,
    is_settled: impl Fn(Status) -> bool,
) -> anyhow::Result<Saga> {
    let until = Instant::now() + time;
    loop {
        let saga = store::sagas::get(pool, id).await?;
        let saga = saga.ok_or_else(|| anyhow::anyhow!("there is no saga {id}"))?;
        if is_settled(saga.status) || Instant::now() >= until {
            return Ok(saga);
        }
        sleep(LOOK_INTERVAL).await;
    }
}

fn line(saga: &SagaView) -> String {
    let reason = saga.reason.as_ref().map_or(String::new(), |reason| format!(" ({reason})"));
    format!("{} {} {} is {}{reason}, at {}", saga.workflow, saga.version, saga.id, saga.status, saga.step)
}

fn object(text: &str) -> Result<Map<String, Value>, String> {
    serde_json::from_str(text).map_err(|error| format!("must be a JSON object: {error}"))
}

fn attribute(text: &str) -> Result<(String, Value), String> {
    let (name, value) = text.split_once('=').ok_or("must be of the form name=value")?;
    let value = value.parse::<i64>().map_or_else(|_| Value::from(value), Value::from);
    Ok((name.to_owned(), value))
}
