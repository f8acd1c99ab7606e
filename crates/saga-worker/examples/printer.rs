//! The worker of the protocol test (`sdk/conformance`): it prints badges by what the command's context says in `how`.
//!
//! ```text
//! cargo build -p saga-worker --features sqlite --example printer
//! python sdk/conformance/protocol.py --panics --database sqlite -- target/debug/examples/printer
//! ```
//!
//! `NATS_URL` and `DATABASE_URL` (`postgres://…` or `sqlite:FILE`) say where; `LIMIT_MS` bounds a function.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use saga_worker::{CancellationToken, Command, FenceDatabase, Nats, Outcome, StepRequest, Worker};
use serde_json::{Value, json};
use sqlx::postgres::PgPoolOptions;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{PgConnection, SqliteConnection, SqlitePool};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::sleep;

const TABLE: &str = "create table if not exists badges (saga text not null)";

/// How often each command was tried, by saga and direction.
#[derive(Clone, Default)]
struct Tries(Arc<Mutex<HashMap<String, u32>>>);

impl Tries {
    fn is_first(&self, command: &Command) -> bool {
        let mut tries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let tried = tries.entry(format!("{}:{}", command.saga_id, command.direction.name())).or_default();
        *tried += 1;
        *tried == 1
    }
}

fn done(output: Value) -> Outcome {
    match output {
        Value::Object(output) => Outcome::Done { output },
        other => unreachable!("{other} is no output"),
    }
}

/// The functions for one kind of connection.
macro_rules! functions {
    ($print:ident, $shred:ident, $connection:ty) => {
        async fn $print(
            conn: &mut $connection,
            request: StepRequest<'_>,
            tries: Tries,
        ) -> anyhow::Result<Outcome> {
            let Command { saga_id, step, direction, visit, workflow, deadline, context, .. } = request.command;
            let is_first = tries.is_first(request.command);
            let insert = "insert into badges (saga) values ($1)";
            sqlx::query(insert).bind(saga_id.to_string()).execute(&mut *conn).await?;
            match context["how"].as_str().unwrap_or_default() {
                "refuse" => {
                    let detail = json!({ "printer": "hall 2" });
                    return Ok(Outcome::Rejected { code: "no_paper".to_owned(), detail });
                }
                "fail" if is_first => return Ok(Outcome::Failed { code: "offline".to_owned() }),
                "doubt" if is_first => return Ok(Outcome::Unknown { reason: "it hums".to_owned() }),
                "break" if is_first => {
                    sqlx::query(insert).bind(None::<String>).execute(&mut *conn).await?;
                }
                "throw" if is_first => anyhow::bail!("the printer is on fire"),
                "panic" if is_first => panic!("the printer is on fire"),
                "hang" if is_first => sleep(Duration::from_secs(60)).await,
                "hang in the database" if is_first => {
                    sqlx::query("select pg_sleep(60)").execute(&mut *conn).await?;
                }
                "slow" => sleep(Duration::from_millis(4_500)).await,
                "large" => return Ok(done(json!({ "badge": "x".repeat(300_000) }))),
                "nul" => return Ok(done(json!({ "badge": "\0" }))),
                _ => {}
            }
            let seen = json!({ "step": step, "direction": direction.name(), "visit": visit, "workflow": workflow,
                               "deadline": deadline.is_some() });
            Ok(done(json!({ "badge": saga_id, "seen": seen })))
        }

        async fn $shred(
            conn: &mut $connection,
            request: StepRequest<'_>,
            tries: Tries,
        ) -> anyhow::Result<Outcome> {
            let Command { saga_id, context, reason, .. } = request.command;
            let is_first = tries.is_first(request.command);
            let delete = sqlx::query("delete from badges where saga = $1").bind(saga_id.to_string());
            let gone = delete.execute(&mut *conn).await?.rows_affected();
            if context["how"] == "fail to undo" && is_first {
                return Ok(Outcome::Failed { code: "jammed".to_owned() });
            }
            Ok(done(json!({ "gone": gone, "known": request.done.is_some(), "reason": reason })))
        }
    };
}

functions!(print_in_postgres, shred_in_postgres, PgConnection);
functions!(print_in_sqlite, shred_in_sqlite, SqliteConnection);

async fn run<DB: FenceDatabase>(worker: Worker<DB>) -> anyhow::Result<()> {
    let limit = std::env::var("LIMIT_MS").ok().map_or(Ok(30_000), |limit| limit.parse())?;
    let client = saga_worker::connect(&std::env::var("NATS_URL")?).await?;
    let nats = match std::env::var("NATS_DOMAIN") {
        Ok(domain) => Nats::with_domain(client, &domain),
        Err(_) => Nats::new(client),
    };
    let stop = CancellationToken::new();
    let (mut terminated, stopped) = (signal(SignalKind::terminate())?, stop.clone());
    tokio::spawn(async move {
        terminated.recv().await;
        stopped.cancel();
    });
    worker.limit(Duration::from_millis(limit)).run(&nats, &stop).await?;
    nats.client.drain().await?;
    println!("stopped");
    Ok(())
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let url = std::env::var("DATABASE_URL")?;
    let (printing, shredding) = (Tries::default(), Tries::default());
    if let Some(file) = url.strip_prefix("sqlite:") {
        let options = SqliteConnectOptions::new().filename(file).create_if_missing(true);
        let pool = SqlitePool::connect_with(options).await?;
        sqlx::query(TABLE).execute(&pool).await?;
        let worker = Worker::new("printer", pool)
            .command("printer.print", move |conn, request| {
                Box::pin(print_in_sqlite(conn, request, printing.clone()))
            })
            .command("printer.shred", move |conn, request| {
                Box::pin(shred_in_sqlite(conn, request, shredding.clone()))
            });
        return run(worker).await;
    }
    let pool = PgPoolOptions::new()
        .max_connections(20)
        .acquire_timeout(Duration::from_secs(3))
        .connect(&url)
        .await?;
    sqlx::query(TABLE).execute(&pool).await?;
    let worker = Worker::new("printer", pool)
        .command("printer.print", move |conn, request| {
            Box::pin(print_in_postgres(conn, request, printing.clone()))
        })
        .command("printer.shred", move |conn, request| {
            Box::pin(shred_in_postgres(conn, request, shredding.clone()))
        });
    run(worker).await
}
