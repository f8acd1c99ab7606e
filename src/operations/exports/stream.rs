//! Exports as streams: a task reads pages as fast as the client takes them, within bounds on time and number.
//!
//! A stream whose export did not come to its end ends with an error, so that the client sees that it is cut off.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::stream::unfold;
use futures::{Stream, StreamExt};
use sqlx::PgPool;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use super::ExportError;
use super::run::{Chunk, ExportOrder, ExportRun};
use crate::background::Tasks;

/// Most exports of one instance at a time. Each holds a connection of those that requests use.
const EXPORTS_AT_ONCE_MAX: usize = 2;
/// At most one connection in so many is held by exports.
const CONNECTIONS_PER_EXPORT: u32 = 4;

/// Runs the exports of this process.
#[derive(Clone, Debug)]
pub struct Exports {
    pool: PgPool,
    permits: Arc<Semaphore>,
    at_once: usize,
    time: Duration,
    tasks: Tasks,
    stop: CancellationToken,
}

/// What the task of an export hands to its stream.
enum Piece {
    Text(Bytes),
    End,
}

/// Why an export ended before its last row.
#[derive(Debug, thiserror::Error)]
enum CutOff {
    #[error("it took longer than {} s", .0.as_secs())]
    TimeOver(Duration),
    #[error("the process stops")]
    ProcessStops,
    #[error("the client has gone")]
    ClientGone,
    #[error(transparent)]
    Failed(#[from] ExportError),
}

impl Exports {
    /// `time` is the longest that one export may take.
    pub fn new(pool: PgPool, time: Duration, tasks: &Tasks, stop: &CancellationToken) -> Self {
        let most = (pool.options().get_max_connections() / CONNECTIONS_PER_EXPORT) as usize;
        let at_once = most.clamp(1, EXPORTS_AT_ONCE_MAX);
        let permits = Arc::new(Semaphore::new(at_once));
        Self { pool, permits, at_once, time, tasks: tasks.clone(), stop: stop.clone() }
    }

    /// How many exports may be under way at once.
    pub fn at_once(&self) -> usize {
        self.at_once
    }

    /// Starts an export. The first page is read before this returns, so that a database that is away is an error and not
    /// an empty stream.
    pub async fn open(
        &self,
        order: ExportOrder,
        actor: &str,
    ) -> Result<impl Stream<Item = io::Result<Bytes>> + Send + use<>, ExportError> {
        let permit = Arc::clone(&self.permits).try_acquire_owned();
        let permit = permit.map_err(|_| ExportError::TooMany(self.at_once))?;
        super::record(&self.pool, &order, actor).await?;
        let deadline = Instant::now() + self.time;
        let mut run = ExportRun::begin(&self.pool, order, self.time).await?;
        let first = run.next().await?;
        let (sender, receiver) = mpsc::channel(1);
        let (stop, time, actor) = (self.stop.clone(), self.time, actor.to_owned());
        self.tasks.spawn(async move {
            let ended = tokio::select! {
                biased;
                () = stop.cancelled() => Err(CutOff::ProcessStops),
                ended = timeout_at(deadline, send_all(&mut run, first, &sender)) => {
                    ended.unwrap_or(Err(CutOff::TimeOver(time)))
                }
            };
            // The connection is given back before the client has taken the last page.
            drop((run, permit));
            let export = order.export.name();
            match ended {
                Ok(rows) => {
                    tracing::info!(export, rows, actor, "an export is complete");
                    let _sent = sender.send_timeout(Piece::End, time).await;
                }
                Err(reason) => tracing::warn!(export, actor, %reason, "an export was cut off"),
            }
        });
        Ok(pieces(receiver))
    }
}

/// Sends all parts; answers how many rows were sent.
async fn send_all(
    run: &mut ExportRun,
    first: Option<Chunk>,
    sender: &mpsc::Sender<Piece>,
) -> Result<usize, CutOff> {
    let (mut next, mut rows) = (first, 0);
    while let Some(chunk) = next {
        rows += chunk.rows;
        sender.send(Piece::Text(chunk.text)).await.map_err(|_| CutOff::ClientGone)?;
        next = run.next().await?;
    }
    Ok(rows)
}

fn pieces(receiver: mpsc::Receiver<Piece>) -> impl Stream<Item = io::Result<Bytes>> + Send + use<> {
    let pieces = unfold(Some(receiver), |receiver| async move {
        let mut receiver = receiver?;
        match receiver.recv().await {
            Some(Piece::Text(text)) => Some((Ok(text), Some(receiver))),
            Some(Piece::End) => None,
            None => Some((Err(io::Error::other("the export was cut off")), None)),
        }
    });
    // Compression asks once more after the end.
    pieces.fuse()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn stream_without_its_end_is_an_error() {
        for is_whole in [true, false] {
            let (sender, receiver) = mpsc::channel(4);
            sender.send(Piece::Text(Bytes::from_static(b"a\n"))).await.ok().unwrap();
            if is_whole {
                sender.send(Piece::End).await.ok().unwrap();
            }
            drop(sender);
            let found: Vec<io::Result<Bytes>> = pieces(receiver).collect().await;
            assert_eq!(found[0].as_ref().unwrap(), "a\n");
            assert_eq!(found.get(1).is_some_and(Result::is_err), !is_whole);
        }
    }
}
