//! A proxy for Postgres that can stop a transaction before any of its statements. It forwards the messages of the
//! client one by one and reads only their framing: a letter and a length. The saga id among the arguments of the first
//! statement identifies the transaction; the same holds for a statement outside of a transaction.

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

const TIMEOUT: Duration = Duration::from_secs(20);
/// Message that binds the arguments of a statement. The statement executes right after it.
const BIND: u8 = b'B';
/// Message with a statement without arguments: begin, commit, rollback.
const QUERY: u8 = b'Q';

#[derive(Clone, Default)]
pub struct Link {
    stops: Arc<Mutex<HashMap<Uuid, Arc<Stop>>>>,
}

/// Where the next transaction about a saga stops.
pub struct Stop {
    /// Stops before the statement with this number, counted from 0. The commit is the last.
    before: usize,
    /// For a statement outside of a transaction: how many of them have passed.
    alone: Option<AtomicUsize>,
    reached: Notify,
    pub released: Notify,
    /// The number of statements, once the transaction is over.
    pub statements: Mutex<Option<usize>>,
}

/// The transaction to stop, on its connection.
struct Watched {
    stop: Arc<Stop>,
    passed: usize,
}

impl Link {
    /// Starts a proxy for this database and returns its URL.
    pub async fn connect(&self, database_url: &str) -> String {
        let mut url = Url::parse(database_url).unwrap();
        let server = (url.host_str().unwrap().to_owned(), url.port().unwrap());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        url.set_port(Some(listener.local_addr().unwrap().port())).unwrap();
        url.set_query(Some("sslmode=disable"));
        let link = self.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = TcpStream::connect(&server).await.unwrap();
                client.set_nodelay(true).unwrap();
                server.set_nodelay(true).unwrap();
                let ((from_client, mut to_client), (mut from_server, to_server)) =
                    (client.into_split(), server.into_split());
                let link = link.clone();
                // Each direction ends with its connection.
                tokio::spawn(async move { drop(link.pass_on(from_client, to_server).await) });
                tokio::spawn(async move { drop(copy(&mut from_server, &mut to_client).await) });
            }
        });
        url.to_string()
    }

    /// Stops the next transaction about a saga before its statement with this number. A number beyond the last one
    /// only counts.
    pub fn stop(&self, saga: Uuid, before: usize) -> Arc<Stop> {
        self.stopping(saga, before, None)
    }

    /// Stops the statement with this number among those that name the saga outside of a transaction.
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
        // The first message of the protocol has no letter.
        let mut first = vec![0; from.read_u32().await? as usize - 4];
        from.read_exact(&mut first).await?;
        to.write_u32(first.len() as u32 + 4).await?;
        to.write_all(&first).await?;
        let (mut started, mut within, mut watched) = (false, false, None);
        loop {
            let kind = from.read_u8().await?;
            let length = from.read_u32().await?;
            let mut body = vec![0; length as usize - 4];
            from.read_exact(&mut body).await?;
            match kind {
                QUERY if body.starts_with(b"BEGIN") => (started, within) = (true, true),
                QUERY if body == b"COMMIT\0" || body == b"ROLLBACK\0" => {
                    within = false;
                    if let Some(watched) = watched.take() {
                        Watched::end(watched).await;
                    }
                }
                BIND if !within => self.pass_alone(&body).await,
                // A savepoint counts as a statement.
                QUERY | BIND => {
                    if std::mem::take(&mut started) {
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

    /// Takes the stop for a transaction whose first statement has these arguments.
    fn watch(&self, body: &[u8]) -> Option<Watched> {
        let mut stops = self.stops.lock().unwrap();
        let named = |(saga, stop): &(&Uuid, &Arc<Stop>)| stop.alone.is_none() && names(body, saga);
        let (saga, _) = stops.iter().find(named)?;
        let saga = *saga;
        stops.remove(&saga).map(|stop| Watched { stop, passed: 0 })
    }

    /// Forwards a statement outside of a transaction, or stops it.
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

fn names(body: &[u8], saga: &Uuid) -> bool {
    body.windows(16).any(|bytes| bytes == saga.as_bytes())
}

impl Stop {
    /// Waits until the transaction has stopped.
    pub async fn reached(&self) {
        tokio::time::timeout(TIMEOUT, self.reached.notified()).await.expect("the transaction comes this far");
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
