//! The printer of badges by the SDK in Rust, as the process of a test. It does what the printers of the other SDKs do.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use saga_worker::{CancellationToken, Nats, Outcome, StepRequest, Worker};
use serde_json::{Map, json};
use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

/// The sagas that were tried before, by this process.
type Tried = Arc<Mutex<HashSet<Uuid>>>;

/// Serves until it is killed, if the environment says so; else it returns `false` at once.
pub async fn serve() -> bool {
    if std::env::var_os("BOXOFFICE_TEST_PRINTER").is_none() {
        return false;
    }
    let (nats, database) = (std::env::var("NATS_URL").unwrap(), std::env::var("DATABASE_URL").unwrap());
    let pool = PgPool::connect(&database).await.unwrap();
    let table = "create table if not exists badges (saga text not null)";
    sqlx::query(table).execute(&pool).await.unwrap();
    let nats = Nats::new(saga_worker::connect(&nats).await.unwrap());
    let tried = Tried::default();
    let worker = Worker::new("printer", pool)
        .command("printer.print", move |conn, request| {
            let is_first = tried.lock().unwrap().insert(request.command.saga_id);
            Box::pin(print(conn, request, is_first))
        })
        .command("printer.shred", |conn, request| Box::pin(shred(conn, request)));
    worker.run(&nats, &CancellationToken::new()).await.unwrap();
    true
}

async fn print(conn: &mut PgConnection, request: StepRequest<'_>, is_first: bool) -> anyhow::Result<Outcome> {
    let (saga, context) = (request.command.saga_id.to_string(), &request.command.context);
    sqlx::query("insert into badges (saga) values ($1)").bind(&saga).execute(conn).await?;
    match context["how"].as_str().unwrap_or_default() {
        "refuse" => return Ok(Outcome::rejected("no_paper")),
        "fail" if is_first => return Ok(Outcome::Failed { code: "offline".to_owned() }),
        "doubt" if is_first => return Ok(Outcome::Unknown { reason: "it hums".to_owned() }),
        "throw" if is_first => anyhow::bail!("the printer is on fire"),
        "slow" => tokio::time::sleep(Duration::from_millis(4_500)).await,
        _ => {}
    }
    Ok(Outcome::Done { output: Map::from_iter([("badge".to_owned(), json!(saga))]) })
}

async fn shred(conn: &mut PgConnection, request: StepRequest<'_>) -> anyhow::Result<Outcome> {
    let saga = request.command.saga_id.to_string();
    sqlx::query("delete from badges where saga = $1").bind(saga).execute(conn).await?;
    Ok(Outcome::done())
}
