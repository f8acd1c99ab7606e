//! The external service of the sample workflow and of the one with groups of parallel steps, with its own database and the fence of the worker SDK. Its effect is a
//! row that only the fence protects from being written twice.

use std::time::Duration;

use boxoffice::bus::{Bus, subjects};
use boxoffice::saga::{Command, Definition, Direction, Outcome};
use boxoffice::store;
use saga_worker::{FenceDatabase, StepRequest, Worker};
use sqlx::{PgConnection, PgPool, Postgres};
use tokio_util::sync::{CancellationToken, DropGuard};
use uuid::Uuid;

use super::link::Link;
use crate::common::fresh_database;
use crate::worker_sdk::nats;

const SERVICE: &str = "parcels";

/// The service stops when this is dropped.
pub struct SampleWorkflow {
    pub pool: PgPool,
    _stop: DropGuard,
}

async fn make(conn: &mut PgConnection, command: &Command) -> anyhow::Result<Outcome> {
    let sql = match command.direction {
        Direction::Do => "insert into parcels (saga, step) values ($1, $2)",
        Direction::Undo => "delete from parcels where saga = $1 and step = $2",
    };
    sqlx::query(sql).bind(command.saga_id).bind(&command.step).execute(conn).await?;
    Ok(Outcome::done())
}

async fn serve(conn: &mut PgConnection, request: StepRequest<'_>) -> anyhow::Result<Outcome> {
    make(conn, request.command).await
}

impl SampleWorkflow {
    /// Serves every command of its workflows; through the link if there is one.
    pub async fn open(bus: &Bus, workflows: &[(String, Definition)], link: Option<&Link>) -> Self {
        let url = fresh_database().await;
        let pool = store::open(&url, 8).unwrap();
        sqlx::query("create table parcels (saga uuid not null, step text not null)")
            .execute(&pool)
            .await
            .unwrap();
        let theirs = match link {
            Some(link) => store::open(&link.connect(&url).await, 12).unwrap(),
            None => pool.clone(),
        };
        let mut worker = Worker::new(SERVICE, theirs);
        let all = workflows.iter().flat_map(|(_, definition)| definition.commands());
        for command in all.filter(|command| subjects::service_of(command) == SERVICE) {
            worker = worker.command(command, |conn, request| Box::pin(serve(conn, request)));
        }
        let stop = CancellationToken::new();
        let running = worker.start(&nats(bus), &stop).await.unwrap();
        tokio::spawn(running.wait());
        Self { pool, _stop: stop.drop_guard() }
    }

    /// Executes a command without a reply, like a worker that dies after its commit.
    pub async fn run_without_reply(&self, command: &Command) {
        let mut tx = self.pool.begin().await.unwrap();
        let (saga, step) = (command.saga_id, &command.step);
        let mut known =
            Postgres::lock(&mut tx, saga, step, None, Duration::from_secs(600)).await.unwrap().record;
        let again = match command.direction {
            Direction::Do => known.undone >= command.visit || known.outcome.is_some(),
            Direction::Undo => known.undone >= command.visit,
        };
        if again {
            return;
        }
        let outcome = make(&mut tx, command).await.unwrap();
        match command.direction {
            Direction::Do => (known.visit, known.outcome) = (command.visit, Some(outcome)),
            Direction::Undo => (known.undone, known.outcome) = (command.visit, None),
        }
        Postgres::save(&mut tx, saga, step, &known).await.unwrap();
        tx.commit().await.unwrap();
    }

    /// The number of effects of a step: 0 or 1 unless the fence fails.
    pub async fn effects(&self, saga: Uuid, step: &str) -> i64 {
        let sql = "select count(*) from parcels where saga = $1 and step = $2";
        sqlx::query_scalar(sql).bind(saga).bind(step).fetch_one(&self.pool).await.unwrap()
    }
}
