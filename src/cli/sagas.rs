//! `saga`: what operators look at first when something is late, and what they may do about it.

mod replay;

use std::sync::Arc;

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use super::output::table;
use super::{Context, Ending, Misuse};
use crate::app;
use crate::orchestrator::{ActError, Engine};
use crate::saga::{Act, Direction, Saga, Status};
use crate::store::sagas::{self, Filter, HistoryRow};

#[derive(clap::Subcommand, Debug)]
pub(super) enum Command {
    /// List sagas, newest first
    List(Wanted),
    /// Show one saga with its history
    Show {
        /// The saga; for a booking the reservation's id
        id: Uuid,
    },
    /// Try the current step of a stuck saga again
    Retry(What),
    /// Undo what a saga has done so far
    Cancel(What),
    /// Publish events again, from history
    ReplayEvents(replay::Arguments),
}

/// Which sagas to list; all that is given must hold.
#[derive(clap::Args, Debug)]
pub(super) struct Wanted {
    /// Only this workflow
    #[arg(long)]
    workflow: Option<String>,
    /// Only this status, for instance `stuck`
    #[arg(long)]
    status: Option<String>,
    /// Only this step
    #[arg(long)]
    step: Option<String>,
    /// Only sagas about this reservation
    #[arg(long)]
    reservation: Option<Uuid>,
    /// Only sagas of this user
    #[arg(long)]
    user: Option<Uuid>,
    /// Only sagas older than this one: the next page
    #[arg(long)]
    before: Option<Uuid>,
    /// At most so many
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(i64).range(1..=1000))]
    limit: i64,
}

/// An act, and why.
#[derive(clap::Args, Debug)]
pub(super) struct What {
    /// The saga
    id: Uuid,
    /// Why; it is written down
    #[arg(long)]
    reason: String,
}

/// A saga as programs read it: the shape of the REST interface.
#[derive(Serialize)]
struct SagaObject<'a> {
    id: Uuid,
    workflow: &'a str,
    version: i32,
    status: Status,
    paused: bool,
    step: &'a str,
    direction: Direction,
    visit: i32,
    attempt: i32,
    due_at: Option<DateTime<Utc>>,
    reason: Option<&'a str>,
    input: &'a Value,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
    finished_at: Option<DateTime<Utc>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    history: Option<Vec<Value>>,
}

pub(super) async fn run(context: &Context, command: Command) -> anyhow::Result<Ending> {
    match command {
        Command::List(wanted) => list(context, wanted).await,
        Command::Show { id } => show(context, id).await,
        Command::Retry(what) => act(context, Act::Retry, &what).await,
        Command::Cancel(what) => act(context, Act::Cancel, &what).await,
        Command::ReplayEvents(arguments) => replay::run(context, arguments).await,
    }
}

async fn list(context: &Context, wanted: Wanted) -> anyhow::Result<Ending> {
    let limit = wanted.limit;
    let filter = Filter {
        workflow: wanted.workflow,
        status: wanted.status,
        step: wanted.step,
        subject_id: wanted.reservation,
        owner_id: wanted.user,
        before: wanted.before,
        limit,
    };
    let found = sagas::list(&context.database().await?, &filter).await?;
    let next = found.last().map(|saga| saga.id).filter(|_| found.len() as i64 == limit);
    let items: Vec<SagaObject<'_>> = found.iter().map(|saga| object(saga, None)).collect();
    context.output.answer(&json!({ "items": items, "next_cursor": next }), |_| {
        let rows = found.iter().map(row);
        let listed = table(["Id", "Workflow", "Status", "Step", "Due", "Reason"], rows);
        next.map_or(listed.clone(), |id| format!("{listed}\nThere are more: --before {id}"))
    })?;
    Ok(Ending::Good)
}

async fn show(context: &Context, id: Uuid) -> anyhow::Result<Ending> {
    let pool = context.database().await?;
    let Some(saga) = sagas::get(&pool, id).await? else {
        return Err(no_such(id));
    };
    let history = sagas::history(&pool, &[id]).await?;
    let entries = history.iter().map(entry).collect();
    context.output.answer(&object(&saga, Some(entries)), |_| {
        let rows = history.iter().map(|entry| {
            let detail = entry.detail.as_ref().map_or(String::new(), ToString::to_string);
            [
                entry.seq.to_string(),
                entry.at.format("%F %T%.3f").to_string(),
                entry.event.clone(),
                format!("{} {}", entry.direction, entry.step),
                format!("{}.{}", entry.visit, entry.attempt),
                detail.chars().take(60).collect(),
            ]
        });
        let head = table(["Id", "Workflow", "Status", "Step", "Due", "Reason"], [row(&saga)]);
        let told = table(["#", "At", "Event", "Step", "Visit.Attempt", "Detail"], rows);
        format!("{head}\n{told}\ninput: {}", saga.input)
    })?;
    Ok(Ending::Good)
}

async fn act(context: &Context, act: Act, what: &What) -> anyhow::Result<Ending> {
    if what.reason.trim().is_empty() {
        return Err(Misuse("an act needs a reason".to_owned()).into());
    }
    let pool = context.database().await?;
    let catalogue = Arc::new(app::catalogue(&context.settings)?);
    let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
    let engine = Engine::start(pool, context.bus().await?, catalogue, &tasks, &stop).await?;
    let actor = format!("cli:{}", std::env::var("USER").unwrap_or_else(|_| "unknown".to_owned()));
    let done = engine.act(what.id, act, &actor, &what.reason).await;
    // What follows from the act is published before the program ends.
    stop.cancel();
    tasks.close();
    tasks.wait().await;
    match done {
        Ok(saga) => {
            context.output.answer(&object(&saga, None), |object| {
                format!("The saga is now {} in {}.", object.status, object.step)
            })?;
            Ok(Ending::Good)
        }
        Err(ActError::Unknown) => Err(no_such(what.id)),
        Err(refused @ ActError::Illegal { .. }) => {
            let ActError::Illegal { status, allowed } = &refused else {
                return Err(refused.into());
            };
            let told = json!({ "code": "illegal_act", "saga_status": status, "allowed": allowed });
            context
                .output
                .answer(&told, |_| format!("{refused}; allowed: {}", or_none(&allowed.join(", "))))?;
            Ok(Ending::Wrong)
        }
        Err(error) => Err(error.into()),
    }
}

fn no_such(id: Uuid) -> anyhow::Error {
    anyhow::anyhow!("there is no saga {id}")
}

fn or_none(text: &str) -> &str {
    if text.is_empty() { "none" } else { text }
}

fn row(saga: &Saga) -> [String; 6] {
    let paused = if saga.paused { " (paused)" } else { "" };
    [
        saga.id.to_string(),
        saga.workflow.clone(),
        format!("{}{paused}", saga.status),
        format!("{} {}", saga.direction, saga.step),
        saga.due_at.map_or(String::new(), |due| due.format("%F %T").to_string()),
        saga.reason.clone().unwrap_or_default(),
    ]
}

fn object(saga: &Saga, history: Option<Vec<Value>>) -> SagaObject<'_> {
    SagaObject {
        id: saga.id,
        workflow: &saga.workflow,
        version: saga.version,
        status: saga.status,
        paused: saga.paused,
        step: &saga.step,
        direction: saga.direction,
        visit: saga.visit,
        attempt: saga.attempt,
        due_at: saga.due_at,
        reason: saga.reason.as_deref(),
        input: &saga.input,
        created_at: saga.created_at,
        updated_at: saga.updated_at,
        finished_at: saga.finished_at,
        history,
    }
}

fn entry(row: &HistoryRow) -> Value {
    json!({
        "seq": row.seq, "at": row.at, "event": row.event, "step": row.step, "direction": row.direction,
        "visit": row.visit, "attempt": row.attempt, "detail": row.detail,
    })
}
