//! The loop of a command: its answer, committed with its effect; then the reply, then the acknowledgement.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::anyhow;
use async_nats::jetstream::Message;
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use saga_core::{Command, Outcome};
use saga_protocol::spans::{self, Span, SpanContext, SpanKind};
use saga_protocol::{messages, subjects, topology};
use sqlx::Pool;
use tokio::select;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::answer::{answer, is_unavailable};
use crate::database::FenceDatabase;
use crate::deliveries::{self, Deliveries, InHand};
use crate::nats::Nats;
use crate::reply;
use crate::worker::{Handler, Worker};

/// How often outcomes that are kept no longer are deleted.
const PURGE_INTERVAL: Duration = Duration::from_secs(600);
/// Most outcomes that one statement deletes.
const PURGE_BATCH: u32 = 5_000;
/// The longest pause between two looks whether the database answers.
const MAX_DATABASE_PAUSE: Duration = Duration::from_secs(1);

/// Serves a command until `stop`.
pub(crate) async fn serve<DB: FenceDatabase>(
    worker: Arc<Worker<DB>>,
    nats: Nats,
    command: String,
    handler: Handler<DB>,
    stop: CancellationToken,
) {
    let mut incoming = Deliveries::of(&nats, subjects::STEPS, topology::command_consumer(&command));
    let mut under_way = FuturesUnordered::new();
    loop {
        let takes_more = under_way.len() < deliveries::BATCH && !stop.is_cancelled();
        let handled = select! {
            batch = incoming.next(&stop), if takes_more => {
                under_way.extend(batch.into_iter().map(|message| take(&worker, &nats, &handler, message)));
                continue;
            }
            Some(handled) = under_way.next() => handled,
            else => break,
        };
        if handled == Handled::DatabaseAway {
            // Each delivery counts, and after the last one the server gives up on a message: ask for none meanwhile.
            incoming.rest();
            while under_way.next().await.is_some() {}
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
