//! An engine in a process of one's own, with a service in its database. It needs an empty database and a nats-server:
//! `cargo run -p saga-engine --example parcels -- postgres://user@host/database nats://host:4222`

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use futures::FutureExt;
use futures::future::BoxFuture;
use saga_engine::orchestrator::{Batch, Engine, NewClientSaga, Participant, Participants, Pools, Task, Unit};
use saga_engine::saga::{Direction, Outcome};
use saga_engine::store::batch_tx::BatchTx;
use saga_engine::store::write_batch::{LockOrder, Part, WriteBatch};
use saga_engine::store::{self, schema};
use saga_engine::{background::Tasks, bus, ids};
use serde_json::{Map, json};
use tokio_util::sync::CancellationToken;

/// The service `stock`: a command takes a piece of an item, its undo puts it back.
#[derive(Debug)]
struct Stock;

impl Participant for Stock {
    fn name(&self) -> &'static str {
        "stock"
    }

    fn commands(&self) -> &'static [&'static str] {
        &["stock.take", "stock.put_back"]
    }

    fn load<'a>(
        &'a self,
        attempt: &'a mut BatchTx,
        tasks: &'a [Task<'a>],
    ) -> BoxFuture<'a, store::Result<Box<dyn Unit>>> {
        async move {
            let item = |task: &Task<'_>| task.command.context["item"].as_str().unwrap_or_default().to_owned();
            let jobs: Vec<_> = tasks.iter().map(|task| (item(task), task.command.direction)).collect();
            let items: Vec<&str> = jobs.iter().map(|(item, _)| item.as_str()).collect();
            let sql = "select item, pieces from stock where item = any($1) order by item for update";
            let read = sqlx::query_as(sql).bind(items).fetch_all(attempt.conn()).await?;
            let before: BTreeMap<String, i32> = read.into_iter().collect();
            Ok(Box::new(Work { jobs, after: before.clone(), before }) as Box<dyn Unit>)
        }
        .boxed()
    }
}

/// The tasks of a batch, and the pieces of their items as read and as they are to be.
struct Work {
    jobs: Vec<(String, Direction)>,
    before: BTreeMap<String, i32>,
    after: BTreeMap<String, i32>,
}

impl Unit for Work {
    fn execute(&mut self, task: usize, _now: DateTime<Utc>) -> Outcome {
        let (item, direction) = &self.jobs[task];
        match (self.after.get_mut(item), direction) {
            (Some(pieces), Direction::Undo) => *pieces += 1,
            (Some(pieces), Direction::Do) if *pieces > 0 => *pieces -= 1,
            _ => return Outcome::rejected("sold_out"),
        }
        Outcome::Done { output: Map::new() }
    }

    fn write(self: Box<Self>, changes: &mut WriteBatch, _sagas: &Batch) -> BoxFuture<'static, ()> {
        let (items, after): (Vec<String>, Vec<i32>) = self.after.into_iter().unzip();
        let before: Vec<i32> = self.before.into_values().collect();
        let sql = "update stock set pieces = new.after from unnest($1::text[], $2::int[], $3::int[])
            as new (item, before, after) where stock.item = new.item and stock.pieces = new.before returning 1";
        let part = changes.counted(LockOrder::after_sagas(0), Part::new("stock_moved", sql), items.len());
        part.bind(items).bind(before).bind(after);
        std::future::ready(()).boxed()
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let [_, database, nats] = &std::env::args().collect::<Vec<_>>()[..] else {
        anyhow::bail!("two addresses")
    };
    let (stop, pool) = (CancellationToken::new(), store::open(database, 6)?);
    schema::apply(&pool, schema::migrator()).await?;
    sqlx::raw_sql(include_str!("stock.sql")).execute(&pool).await?;
    let (bus, tasks) = (bus::connect(nats, "parcels", 1).await?, Tasks::new(&stop));
    let pools = Pools::open(database, 6)?;
    let engine =
        Engine::start(pools, bus, Participants::new(vec![std::sync::Arc::new(Stock)]), &tasks, &stop).await?;
    engine.deploy("parcel.toml", include_str!("parcel.toml")).await?;
    engine.run_all(&tasks, &stop).await?;
    for item in ["lamp", "lamp", "chair"] {
        let saga = NewClientSaga::new(ids::new(), "parcel", json!({ "item": item }));
        let end = engine.run_saga(saga).await?;
        println!("{item}: {}", end.status.name());
    }
    stop.cancel();
    tasks.wait().await;
    Ok(())
}
