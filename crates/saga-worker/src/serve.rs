//! The loop of a command: fence, function and outcome in one transaction; then the reply, then the acknowledgement.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::anyhow;
use async_nats::jetstream::Message;
use chrono::{DateTime, Utc};
use futures::{FutureExt, StreamExt};
use saga_core::{Command, DEADLINE_PASSED, Direction, Outcome, too_large};
use saga_protocol::spans::{self, Span, SpanContext, SpanKind};
use saga_protocol::{messages, subjects, topology};
use sqlx::{Connection, Pool};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::database::FenceDatabase;
use crate::deliveries::{self, Deliveries, InHand};
use crate::fence::{self, Decision, Record};
use crate::nats::Nats;
use crate::reply;
use crate::worker::{Handler, StepRequest, Worker};

/// Most commands of one kind under way at once, each on a connection of its own.
const MAX_CONCURRENT: usize = 8;
/// How often outcomes that are kept no longer are deleted.
const PURGE_INTERVAL: Duration = Duration::from_secs(600);
/// Most outcomes that one statement deletes.
const PURGE_BATCH: u32 = 5_000;
/// How long ending the session of a function that was cut off may take.
const END_TIMEOUT: Duration = Duration::from_secs(2);
/// The longest pause between two looks whether the database answers.
const MAX_DATABASE_PAUSE: Duration = Duration::from_secs(1);
/// The code of the answer to a command whose function ended with an error.
pub const HANDLER_FAILED: &str = "handler_failed";
/// The code of the answer to a command whose output is too large for a message. Its effect was not kept.
pub const OUTPUT_TOO_LARGE: &str = "output_too_large";

/// Serves a command until `stop`.
pub(crate) async fn serve<DB: FenceDatabase>(
    worker: Arc<Worker<DB>>,
    nats: Nats,
    command: String,
    handler: Handler<DB>,
    stop: CancellationToken,
) {
    let mut incoming = Deliveries::of(&nats, subjects::STEPS, topology::command_consumer(&command));
    while !stop.is_cancelled() {
        let batch = futures::stream::iter(incoming.next(&stop).await);
        let handled =
            batch.map(|message| take(&worker, &nats, &handler, message)).buffer_unordered(MAX_CONCURRENT);
        let handled: Vec<Handled> = handled.collect().await;
        if handled.contains(&Handled::DatabaseAway) {
            // Each delivery counts, and after the last one the server gives up on a message: ask for none meanwhile.
            incoming.rest();
            let _answers = stop.run_until_cancelled(until_database_answers(&worker.pool)).await;
        }
    }
}

/// Returns once the database gives a connection.
async fn until_database_answers<DB: FenceDatabase>(pool: &Pool<DB>) {
    let mut pause = Duration::from_millis(50);
    while let Err(error) = pool.acquire().await {
        tracing::warn!(%error, "the service's database does not answer; no commands are taken");
        sleep(pause).await;
        pause = (pause * 2).min(MAX_DATABASE_PAUSE);
    }
}

/// What became of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Handled {
    Done,
    /// It comes again.
    NotYet,
    /// It comes again, once the database answers.
    DatabaseAway,
}

/// Handles one message. If that fails, the message comes again; after the last delivery the engine parks it.
async fn take<DB: FenceDatabase>(
    worker: &Worker<DB>,
    nats: &Nats,
    handler: &Handler<DB>,
    message: Message,
) -> Handled {
    // A function that panics must not end the loop, and one that takes long must not have its command delivered again.
    let handling = AssertUnwindSafe(try_take(worker, nats, handler, &message)).catch_unwind();
    let handled = InHand::of(nats, std::iter::once(&message)).during(handling).await;
    let handled = handled.unwrap_or_else(|_panic| Err(anyhow!("the function panicked")));
    match handled {
        Ok(()) => {
            deliveries::acknowledge(&message).await;
            Handled::Done
        }
        Err(error) => {
            let delivered = deliveries::count(&message);
            tracing::warn!(subject = %message.subject, %error, delivered, "a command was not handled");
            if is_unavailable::<DB>(&error) {
                deliveries::put_off(&message).await;
                return Handled::DatabaseAway;
            }
            deliveries::again_after(&message, deliveries::pause_after(delivered)).await;
            Handled::NotYet
        }
    }
}

async fn try_take<DB: FenceDatabase>(
    worker: &Worker<DB>,
    nats: &Nats,
    handler: &Handler<DB>,
    message: &Message,
) -> anyhow::Result<()> {
    let command = messages::read_command(message)?;
    let begun = spans::begin();
    let Some(outcome) = answer(worker, handler, &command).await? else {
        metrics::counter!("saga_worker_stale_commands_total").increment(1);
        return Ok(());
    };
    reply::publish(&nats.jetstream, &messages::reply(&command, &outcome, &worker.instance)).await?;
    record_span(worker, &command, &outcome, begun);
    Ok(())
}

/// Exports the span of a command that was answered: a child of the span of its message.
fn record_span<DB: FenceDatabase>(
    worker: &Worker<DB>,
    command: &Command,
    outcome: &Outcome,
    begun: Option<SystemTime>,
) {
    let (Some(begun), Some(exporter)) = (begun, spans::exporter_of(command.trace)) else { return };
    let id = command.message_id();
    exporter.export(Span {
        context: SpanContext::of_id(command.trace, &format!("{id}:process")),
        parent: Some(SpanContext::of_id(command.trace, &id).span),
        link: None,
        kind: SpanKind::Consumer,
        name: format!("process {}", command.subject),
        begun,
        ended: spans::now(),
        attributes: vec![
            ("saga.id", command.saga_id.to_string()),
            ("saga.workflow", command.workflow.clone()),
            ("saga.step", command.step.clone()),
            ("saga.direction", command.direction.name().to_owned()),
            ("saga.worker", worker.instance.clone()),
        ],
        error: outcome.error().map(str::to_owned),
    });
}

/// The answer to a command, committed with its effect; none if the saga has moved on.
async fn answer<DB: FenceDatabase>(
    worker: &Worker<DB>,
    handler: &Handler<DB>,
    command: &Command,
) -> anyhow::Result<Option<Outcome>> {
    let mut conn = worker.pool.acquire().await?;
    let session = DB::session(&mut conn).await?;
    let limit = limit(worker.limit, command.direction, command.deadline, Utc::now());
    if let Ok(answered) = timeout(limit, decide(worker, handler, command, &mut conn)).await {
        return answered;
    }
    let Command { saga_id, step, .. } = command;
    tracing::error!(saga = %saga_id, step, ?limit, "a step's function took too long and was cut off");
    // A statement of it may still run. Its session ends, so that nothing of it is committed later and no lock stays.
    conn.close_on_drop();
    if let Ok(Err(error)) = timeout(END_TIMEOUT, DB::end_session(&worker.pool, session)).await {
        tracing::warn!(%error, "the session of a function that was cut off was not ended; it ends with its statement");
    }
    Ok(Some(Outcome::Unknown { reason: format!("the function did not end within {} ms", limit.as_millis()) }))
}

/// How long a command may take: a `do` at most until its deadline. A `do` that comes after its deadline calls no function.
fn limit(
    limit: Duration,
    direction: Direction,
    deadline: Option<DateTime<Utc>>,
    now: DateTime<Utc>,
) -> Duration {
    let left =
        deadline.filter(|_| direction == Direction::Do).and_then(|deadline| (deadline - now).to_std().ok());
    left.filter(|left| !left.is_zero()).map_or(limit, |left| limit.min(left))
}

async fn decide<DB: FenceDatabase>(
    worker: &Worker<DB>,
    handler: &Handler<DB>,
    command: &Command,
    conn: &mut DB::Connection,
) -> anyhow::Result<Option<Outcome>> {
    let mut tx = DB::begin(conn).await?;
    let Command { saga_id, step, deadline, .. } = command;
    let (known, now) = DB::lock(&mut tx, *saga_id, step, *deadline, worker.keep).await?;
    let outcome = match fence::decide(&known, command, now) {
        Decision::Stale => None,
        Decision::Replay(outcome) => Some(outcome),
        Decision::DeadlinePassed => Some(Outcome::rejected(DEADLINE_PASSED)),
        Decision::Run { done } => {
            let request = StepRequest { command, done: done.as_ref() };
            Some(call::<DB>(&mut tx, handler, request, &known).await?)
        }
    };
    tx.commit().await?;
    Ok(outcome)
}

/// Calls the function, keeps its writes if it returns `done`, and saves the outcome.
async fn call<DB: FenceDatabase>(
    conn: &mut DB::Connection,
    handler: &Handler<DB>,
    request: StepRequest<'_>,
    known: &Record,
) -> anyhow::Result<Outcome> {
    let command = request.command;
    let mut effect = conn.begin().await?;
    let handled = handler(&mut effect, request).await;
    // An outcome that the database cannot keep would fail the transaction at every try.
    let handled = handled.and_then(|outcome| outcome.check().map(|()| outcome).map_err(anyhow::Error::from));
    let outcome = match handled {
        Ok(outcome) => outcome,
        Err(error) if is_unavailable::<DB>(&error) => return Err(error),
        Err(error) => {
            tracing::error!(saga = %command.saga_id, step = command.step, %error, "a step's function failed");
            Outcome::Failed { code: HANDLER_FAILED.to_owned() }
        }
    };
    let outcome = match outcome {
        Outcome::Done { output } if too_large(&command.context, &output).is_some() => {
            tracing::error!(saga = %command.saga_id, step = command.step, "the output of a step's function is too large");
            Outcome::Failed { code: OUTPUT_TOO_LARGE.to_owned() }
        }
        outcome => outcome,
    };
    match outcome {
        Outcome::Done { .. } => effect.commit().await?,
        _ => effect.rollback().await?,
    }
    let record = fence::after(known, command, &outcome);
    DB::save(conn, command.saga_id, &command.step, &record).await?;
    Ok(outcome)
}

/// Whether the database could not be used, so that nothing is known of the step.
fn is_unavailable<DB: FenceDatabase>(error: &anyhow::Error) -> bool {
    error.downcast_ref::<sqlx::Error>().is_some_and(DB::is_unavailable)
}

/// Deletes outcomes that are kept no longer, at intervals until `stop`.
pub(crate) async fn purge<DB: FenceDatabase>(worker: Arc<Worker<DB>>, stop: CancellationToken) {
    while !stop.is_cancelled() {
        match DB::purge(&worker.pool, PURGE_BATCH).await {
            Ok(deleted) if deleted == u64::from(PURGE_BATCH) => continue,
            Ok(_) => {}
            Err(error) => tracing::warn!(service = worker.name, %error, "old outcomes were not deleted"),
        }
        let _slept = stop.run_until_cancelled(sleep(PURGE_INTERVAL)).await;
    }
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;

    use super::*;

    #[test]
    fn do_may_take_until_its_deadline() {
        let now = DateTime::from_timestamp(1_800_000_000, 0).unwrap();
        let most = Duration::from_secs(30);
        let at = |direction, seconds| limit(most, direction, Some(now + TimeDelta::seconds(seconds)), now);
        assert_eq!(at(Direction::Do, 5), Duration::from_secs(5));
        assert_eq!(at(Direction::Do, 60), most);
        assert_eq!(at(Direction::Do, -1), most, "it calls no function");
        assert_eq!(at(Direction::Undo, 5), most, "an undo has no deadline");
        assert_eq!(limit(most, Direction::Do, None, now), most);
    }
}

/// A command's whole way but for NATS, with the fence and the effect in one database.
#[cfg(feature = "sqlite")]
#[cfg(test)]
mod sqlite_tests {
    use serde_json::json;
    use sqlx::sqlite::{SqliteConnectOptions, SqlitePoolOptions};
    use sqlx::{Sqlite, SqliteConnection, SqlitePool};
    use uuid::Uuid;

    use super::*;

    struct Printer {
        worker: Worker<Sqlite>,
        handler: Handler<Sqlite>,
        _dir: tempfile::TempDir,
    }

    async fn handle(conn: &mut SqliteConnection, request: StepRequest<'_>) -> anyhow::Result<Outcome> {
        let sql = match request.command.direction {
            Direction::Do => "insert into badges (saga) values ($1)",
            Direction::Undo => "delete from badges where saga = $1",
        };
        sqlx::query(sql).bind(request.command.saga_id.to_string()).execute(conn).await?;
        match request.command.context["how"].as_str() {
            Some("fail") => anyhow::bail!("out of ink"),
            Some("hang") => std::future::pending().await,
            _ => Ok(Outcome::done()),
        }
    }

    impl Printer {
        async fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let file = SqliteConnectOptions::new().filename(dir.path().join("printer.db"));
            let pool = SqlitePoolOptions::new().max_connections(4);
            let pool: SqlitePool = pool.connect_with(file.create_if_missing(true)).await.unwrap();
            sqlx::query("create table badges (saga text not null)").execute(&pool).await.unwrap();
            Sqlite::prepare(&pool).await.unwrap();
            let worker = Worker::new("printer", pool).limit(Duration::from_secs(2));
            let handler: Handler<Sqlite> = Arc::new(|conn, request| Box::pin(handle(conn, request)));
            Self { worker, handler, _dir: dir }
        }

        async fn ask(&self, saga: u128, direction: Direction, visit: i32, how: &str) -> Option<Outcome> {
            let saga_id = Uuid::from_u128(saga);
            let command = Command {
                saga_id,
                workflow: "party".to_owned(),
                subject: "printer.print".to_owned(),
                step: "print".to_owned(),
                direction,
                visit,
                send: 0,
                deadline: None,
                reason: None,
                context: json!({ "how": how }).into(),
                trace: saga_id,
            };
            answer(&self.worker, &self.handler, &command).await.unwrap()
        }

        async fn badges(&self) -> i64 {
            sqlx::query_scalar("select count(*) from badges").fetch_one(&self.worker.pool).await.unwrap()
        }
    }

    #[tokio::test]
    async fn repeated_command_is_done_once() {
        let printer = Printer::new().await;
        for _ in 0..2 {
            assert_eq!(printer.ask(1, Direction::Do, 1, "").await, Some(Outcome::done()));
        }
        assert_eq!(printer.badges().await, 1);
    }

    #[tokio::test]
    async fn late_do_does_nothing_after_its_undo() {
        let printer = Printer::new().await;
        printer.ask(1, Direction::Do, 1, "").await;
        assert_eq!(printer.ask(1, Direction::Undo, 1, "").await, Some(Outcome::done()));
        assert_eq!(printer.ask(1, Direction::Do, 1, "").await, None);
        assert_eq!(printer.badges().await, 0);
    }

    #[tokio::test]
    async fn failed_and_cut_off_functions_leave_nothing() {
        let printer = Printer::new().await;
        let failed = Outcome::Failed { code: HANDLER_FAILED.to_owned() };
        assert_eq!(printer.ask(1, Direction::Do, 1, "fail").await, Some(failed));
        assert!(matches!(printer.ask(2, Direction::Do, 1, "hang").await, Some(Outcome::Unknown { .. })));
        assert_eq!(printer.badges().await, 0);
        for saga in [1, 2] {
            assert_eq!(printer.ask(saga, Direction::Do, 1, "").await, Some(Outcome::done()));
        }
        assert_eq!(printer.badges().await, 2);
    }
}
