//! A wire to Postgres on which a transaction can be stopped before any of its statements, for as long as a test wants.
//!
//! It passes on what the client sends message by message, by nothing more than their framing: a letter and a length.
//! A transaction that is to be stopped is known by the saga that its first statement names, and so is a statement that
//! stands for itself.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, copy};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use url::Url;
use uuid::Uuid;

/// How long a transaction may take to come to its stop.
const PATIENCE: Duration = Duration::from_secs(20);
/// Binds the arguments of a statement, which is executed right after.
const BIND: u8 = b'B';
/// A statement without arguments: the beginning and the end of a transaction.
const QUERY: u8 = b'Q';

/// The wire of a stage.
#[derive(Clone, Default)]
pub struct Wire {
    stops: Arc<Mutex<HashMap<Uuid, Arc<Stop>>>>,
}

/// Where the next transaction about a saga stops.
pub struct Stop {
    /// Before its statement of this number, from 0; its commit is the last.
    before: usize,
    /// Whether it is for statements outside of transactions, and how many of them have passed.
    alone: Option<AtomicUsize>,
    reached: Notify,
    pub released: Notify,
    /// All its statements, once it is over.
    pub statements: Mutex<Option<usize>>,
}

/// A transaction that is to be stopped, on its connection.
struct Watched {
    stop: Arc<Stop>,
    passed: usize,
}

impl Wire {
    /// Lays a wire to this database; returns the address of its other end.
    pub async fn lay(&self, database_url: &str) -> String {
        let mut url = Url::parse(database_url).unwrap();
        let server = (url.host_str().unwrap().to_owned(), url.port().unwrap());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        url.set_port(Some(listener.local_addr().unwrap().port())).unwrap();
        url.set_query(Some("sslmode=disable"));
        let wire = self.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = TcpStream::connect(&server).await.unwrap();
                client.set_nodelay(true).unwrap();
                server.set_nodelay(true).unwrap();
                let ((from_client, mut to_client), (mut from_server, to_server)) =
                    (client.into_split(), server.into_split());
                let wire = wire.clone();
                // Either ends when its connection does.
                tokio::spawn(async move { drop(wire.pass_on(from_client, to_server).await) });
                tokio::spawn(async move { drop(copy(&mut from_server, &mut to_client).await) });
            }
        });
        url.to_string()
    }

    /// The next transaction about a saga stops before its statement of this number; beyond its last it only counts.
    pub fn stop(&self, saga: Uuid, before: usize) -> Arc<Stop> {
        self.stopping(saga, before, None)
    }

    /// The statement of this number that names a saga, outside of any transaction, stops before it is executed.
    pub fn stop_alone(&self, saga: Uuid, before: usize) -> Arc<Stop> {
        self.stopping(saga, before, Some(AtomicUsize::default()))
    }

    fn stopping(&self, saga: Uuid, before: usize, alone: Option<AtomicUsize>) -> Arc<Stop> {
        let (reached, released) = (Notify::new(), Notify::new());
        let stop = Arc::new(Stop { before, alone, reached, released, statements: Mutex::default() });
        self.stops.lock().unwrap().insert(saga, Arc::clone(&stop));
        stop
    }

    async fn pass_on(&self, mut from: OwnedReadHalf, mut to: OwnedWriteHalf) -> std::io::Result<()> {
        // The first message has no letter.
        let mut first = vec![0; from.read_u32().await? as usize - 4];
        from.read_exact(&mut first).await?;
        to.write_u32(first.len() as u32 + 4).await?;
        to.write_all(&first).await?;
        let (mut begun, mut within, mut watched) = (false, false, None);
        loop {
            let kind = from.read_u8().await?;
            let length = from.read_u32().await?;
            let mut body = vec![0; length as usize - 4];
            from.read_exact(&mut body).await?;
            match kind {
                QUERY if body.starts_with(b"BEGIN") => (begun, within) = (true, true),
                QUERY if body == b"COMMIT\0" || body == b"ROLLBACK\0" => {
                    within = false;
                    if let Some(watched) = watched.take() {
                        Watched::end(watched).await;
                    }
                }
                BIND if !within => self.pass_alone(&body).await,
                // A savepoint is a statement like any other.
                QUERY | BIND => {
                    if std::mem::take(&mut begun) {
                        watched = self.watch(&body);
                    }
                    if let Some(watched) = &mut watched {
                        watched.pass().await;
                    }
                }
                _ => {}
            }
            let mut message = Vec::with_capacity(body.len() + 5);
            message.push(kind);
            message.extend(length.to_be_bytes());
            message.extend(body);
            to.write_all(&message).await?;
        }
    }

    /// The stop of a transaction whose first statement has these arguments; it is for one transaction only.
    fn watch(&self, body: &[u8]) -> Option<Watched> {
        let mut stops = self.stops.lock().unwrap();
        let named = |(saga, stop): &(&Uuid, &Arc<Stop>)| stop.alone.is_none() && names(body, saga);
        let (saga, _) = stops.iter().find(named)?;
        let saga = *saga;
        stops.remove(&saga).map(|stop| Watched { stop, passed: 0 })
    }

    /// Lets a statement outside of any transaction pass, or stops it.
    async fn pass_alone(&self, body: &[u8]) {
        let stop = {
            let mut stops = self.stops.lock().unwrap();
            let turn = |(saga, stop): (&Uuid, &Arc<Stop>)| {
                let passed = stop.alone.as_ref().filter(|_| names(body, saga))?;
                (passed.fetch_add(1, Ordering::Relaxed) == stop.before).then_some(*saga)
            };
            let saga = stops.iter().find_map(turn);
            saga.and_then(|saga| stops.remove(&saga))
        };
        if let Some(stop) = stop {
            stop.reached.notify_one();
            stop.released.notified().await;
        }
    }
}

/// Whether a saga is among the arguments of a statement.
fn names(body: &[u8], saga: &Uuid) -> bool {
    body.windows(16).any(|bytes| bytes == saga.as_bytes())
}

impl Stop {
    /// Returns when the transaction stands still.
    pub async fn reached(&self) {
        tokio::time::timeout(PATIENCE, self.reached.notified())
            .await
            .expect("the transaction comes this far");
    }
}

impl Watched {
    async fn pass(&mut self) {
        if self.passed == self.stop.before {
            self.stop.reached.notify_one();
            self.stop.released.notified().await;
        }
        self.passed += 1;
    }

    async fn end(mut self) {
        self.pass().await;
        *self.stop.statements.lock().unwrap() = Some(self.passed);
    }
}
