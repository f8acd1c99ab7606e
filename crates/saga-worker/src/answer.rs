//! The answer to a command: fence, function and outcome in one transaction of the service's database.

use std::time::Duration;

use chrono::{DateTime, Utc};
use saga_core::{Command, DEADLINE_PASSED, Direction, Outcome, too_large};
use tokio::time::timeout;

use crate::database::{FenceDatabase, Locked};
use crate::fence::{self, Decision, Record};
use crate::worker::{Handler, StepRequest, Worker};

/// How long ending the session of a function that was cut off may take.
const END_TIMEOUT: Duration = Duration::from_secs(2);
/// The code of the answer to a command whose function ended with an error.
pub const HANDLER_FAILED: &str = "handler_failed";
/// The code of the answer to a command whose output is too large for a message. Its effect was not kept.
pub const OUTPUT_TOO_LARGE: &str = "output_too_large";

/// The answer to a command, committed with its effect; none if the saga has moved on.
pub(crate) async fn answer<DB: FenceDatabase>(
    worker: &Worker<DB>,
    handler: &Handler<DB>,
    command: &Command,
) -> anyhow::Result<Option<Outcome>> {
    // The semaphore is never closed.
    let _turn = worker.concurrency.acquire().await?;
    let mut conn = worker.pool.acquire().await?;
    let limit = limit(worker.limit, command.direction, command.deadline, Utc::now());
    let mut session = None;
    if let Ok(answered) = timeout(limit, decide(worker, handler, command, &mut conn, &mut session)).await {
        return answered;
    }
    let Command { saga_id, step, .. } = command;
    tracing::error!(saga = %saga_id, step, ?limit, "a step's function took too long and was cut off");
    // A statement of it may still run. Its session ends, so that nothing of it is committed later and no lock stays.
    conn.close_on_drop();
    // A session that still waits for the lock commits nothing: it ends when it finds its connection closed.
    if let Some(session) = session
        && let Ok(Err(error)) = timeout(END_TIMEOUT, DB::end_session(&worker.pool, session)).await
    {
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

/// Decides about the command, and commits its effect with its outcome. `session` becomes the session that may be left in a statement.
async fn decide<DB: FenceDatabase>(
    worker: &Worker<DB>,
    handler: &Handler<DB>,
    command: &Command,
    conn: &mut DB::Connection,
    session: &mut Option<DB::Session>,
) -> anyhow::Result<Option<Outcome>> {
    let mut tx = DB::begin(conn).await?;
    let known = lock(worker, command, &mut tx).await?;
    *session = Some(known.session);
    let outcome = match fence::decide(&known.record, command, known.now) {
        Decision::Stale => None,
        Decision::Replay(outcome) => Some(outcome),
        Decision::DeadlinePassed => Some(Outcome::rejected(DEADLINE_PASSED)),
        Decision::Run { done } => {
            let request = StepRequest { command, done: done.as_ref() };
            let outcome = call::<DB>(&mut tx, handler, request).await?;
            if !matches!(outcome, Outcome::Done { .. }) {
                tx.rollback().await?;
                return save_without_effect(worker, command, outcome, conn).await;
            }
            save::<DB>(&mut tx, &known.record, command, &outcome).await?;
            Some(outcome)
        }
    };
    tx.commit().await?;
    Ok(outcome)
}

/// Saves an outcome whose writes were rolled back, and the lock with them. If the command or its undo was handled meanwhile, that
/// counts.
async fn save_without_effect<DB: FenceDatabase>(
    worker: &Worker<DB>,
    command: &Command,
    outcome: Outcome,
    conn: &mut DB::Connection,
) -> anyhow::Result<Option<Outcome>> {
    let mut tx = DB::begin(conn).await?;
    let known = lock(worker, command, &mut tx).await?;
    let outcome = match fence::decide(&known.record, command, known.now) {
        Decision::Stale => None,
        Decision::Replay(earlier) => Some(earlier),
        // It was called before the deadline.
        Decision::DeadlinePassed | Decision::Run { .. } => {
            save::<DB>(&mut tx, &known.record, command, &outcome).await?;
            Some(outcome)
        }
    };
    tx.commit().await?;
    Ok(outcome)
}

async fn lock<DB: FenceDatabase>(
    worker: &Worker<DB>,
    command: &Command,
    conn: &mut DB::Connection,
) -> sqlx::Result<Locked<DB::Session>> {
    DB::lock(conn, command.saga_id, &command.step, command.deadline, worker.keep).await
}

async fn save<DB: FenceDatabase>(
    conn: &mut DB::Connection,
    known: &Record,
    command: &Command,
    outcome: &Outcome,
) -> sqlx::Result<()> {
    let record = fence::after(known, command, outcome);
    DB::save(conn, command.saga_id, &command.step, &record).await
}

/// Calls the function. An error of it that is not the database's is its outcome.
async fn call<DB: FenceDatabase>(
    conn: &mut DB::Connection,
    handler: &Handler<DB>,
    request: StepRequest<'_>,
) -> anyhow::Result<Outcome> {
    let command = request.command;
    let handled = handler(conn, request).await;
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
    Ok(match outcome {
        Outcome::Done { output } if too_large(&command.context, &output).is_some() => {
            tracing::error!(saga = %command.saga_id, step = command.step, "the output of a step's function is too large");
            Outcome::Failed { code: OUTPUT_TOO_LARGE.to_owned() }
        }
        outcome => outcome,
    })
}

/// Whether the database could not be used, so that nothing is known of the step.
pub(crate) fn is_unavailable<DB: FenceDatabase>(error: &anyhow::Error) -> bool {
    error.downcast_ref::<sqlx::Error>().is_some_and(DB::is_unavailable)
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
    use std::sync::Arc;

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
