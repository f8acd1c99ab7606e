//! Serves steps of sagas from a service that has a database of its own.
//!
//! You give functions for the commands of your service. The crate takes the commands from NATS JetStream, keeps the
//! fence in your database, calls your functions, sends the replies, announces the service, answers operators who complete
//! a step by hand, and stops without losing work. The contract behind it is `docs/workers.md`.
//!
//! Commands arrive at least once: twice, late, and after the saga has moved on. The fence is the table `saga_outcomes`, with a
//! row for each step of each saga. A function runs in the transaction that has this row locked, and its writes are kept only
//! if it returns [`Outcome::Done`]. A command that was answered before gets the same answer without a call of the function.
//!
//! ```no_run
//! use saga_worker::{CancellationToken, Nats, Outcome, StepRequest, Worker};
//! use serde_json::{Map, json};
//! use sqlx::{PgConnection, PgPool};
//!
//! async fn print(conn: &mut PgConnection, request: StepRequest<'_>) -> anyhow::Result<Outcome> {
//!     let saga = request.command.saga_id;
//!     sqlx::query("insert into badges (saga) values ($1)").bind(saga).execute(conn).await?;
//!     Ok(Outcome::Done { output: Map::from_iter([("badge".to_owned(), json!(saga))]) })
//! }
//!
//! async fn shred(conn: &mut PgConnection, request: StepRequest<'_>) -> anyhow::Result<Outcome> {
//!     let saga = request.command.saga_id;
//!     sqlx::query("delete from badges where saga = $1").bind(saga).execute(conn).await?;
//!     Ok(Outcome::done())
//! }
//!
//! #[tokio::main]
//! async fn main() -> anyhow::Result<()> {
//!     let pool = PgPool::connect("postgres://localhost/printer").await?;
//!     let nats = Nats::new(saga_worker::connect("nats://localhost").await?);
//!     let stop = CancellationToken::new();
//!     let interrupted = stop.clone();
//!     tokio::spawn(async move {
//!         let _pressed = tokio::signal::ctrl_c().await;
//!         interrupted.cancel();
//!     });
//!     Worker::new("printer", pool)
//!         .command("printer.print", |conn, request| Box::pin(print(conn, request)))
//!         .command("printer.shred", |conn, request| Box::pin(shred(conn, request)))
//!         .run(&nats, &stop)
//!         .await?;
//!     Ok(())
//! }
//! ```
//!
//! # Features
//!
//! - `postgres` (default): [`Worker`] over a `sqlx::PgPool`.
//! - `sqlite`: [`Worker`] over a `sqlx::SqlitePool`.
//!
//! Without either feature the crate still has [`deliveries`], by which the engine itself receives messages.

mod run;
mod serve;
mod answer;
mod manual_completion;
mod reply;
mod worker;
#[cfg(feature = "postgres")]
mod postgres;
#[cfg(feature = "sqlite")]
mod sqlite;
mod database;
mod fence;
mod nats;
pub mod presence;
pub mod deliveries;

pub use saga_core::{Command, Direction, Outcome};
pub use tokio_util::sync::CancellationToken;

pub use answer::{HANDLER_FAILED, OUTPUT_TOO_LARGE};
pub use database::FenceDatabase;
pub use deliveries::Deliveries;
pub use fence::Record;
pub use nats::{Nats, connect, credentials};
pub use presence::process_name;
pub use run::{RunError, Running};
pub use worker::{HandlerFuture, StartError, StepRequest, Worker};
