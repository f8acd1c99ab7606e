//! What the worker says on NATS: its replies, and what it says to JetStream about each command.
//!
//! Both are read by plain subscriptions, beside the streams. An engine on the same server may take the replies too.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_nats::{Client, Message, Subscriber};
use futures::StreamExt;
use futures::stream::select;
use saga_core::{Outcome, message_id};
use saga_protocol::headers::{MESSAGE_ID, SAGA, SEND, TRACE, header};
use saga_protocol::{messages, subjects};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use uuid::Uuid;

use crate::setup::{SuiteError, failed};

/// What a worker says to JetStream about a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ack {
    /// It is handled.
    Taken,
    /// It shall come again.
    Again,
    /// It is still being worked on.
    Progress,
    /// It shall never come again.
    Never,
}

/// What was seen so far.
#[derive(Default)]
pub(crate) struct Seen {
    sagas: HashSet<Uuid>,
    sent: HashSet<String>,
    replies: HashMap<String, Vec<Outcome>>,
    /// By the sequence of the command in its stream: what was said, about which delivery.
    acks: HashMap<u64, Vec<(Ack, u64)>>,
    /// Replies that are not of the contract.
    problems: Vec<String>,
}

/// A running listener.
pub(crate) struct Traffic {
    seen: Arc<Mutex<Seen>>,
    changed: watch::Sender<()>,
    listening: JoinHandle<()>,
}

impl Drop for Traffic {
    fn drop(&mut self) {
        self.listening.abort();
    }
}

impl Traffic {
    /// Listens to the workers of a service.
    pub(crate) async fn listen(client: &Client, service: &str) -> Result<Self, SuiteError> {
        let subscribe = async |subject: &str| -> Result<Subscriber, SuiteError> {
            client.subscribe(subject.to_owned()).await.map_err(failed("listening to the worker"))
        };
        let (own, old) = (subjects::reply(service), subjects::REPLIES);
        let mut replies = select(subscribe(&own).await?, subscribe(old).await?);
        let stream = subjects::STEPS;
        // The second form names the domain and the account; newer servers use it.
        let (short, long) = (format!("$JS.ACK.{stream}.>"), format!("$JS.ACK.*.*.{stream}.>"));
        let mut acks = select(subscribe(&short).await?, subscribe(&long).await?);
        client.flush().await.map_err(failed("listening to the worker"))?;

        let (seen, changed) = (Arc::<Mutex<Seen>>::default(), watch::Sender::new(()));
        let (heard, news) = (Arc::clone(&seen), changed.clone());
        let listening = tokio::spawn(async move {
            loop {
                // Replies first: of a worker that acknowledges last, the reply arrives first.
                tokio::select! {
                    biased;
                    Some(reply) = replies.next() => lock(&heard).reply(&reply),
                    Some(ack) = acks.next() => lock(&heard).ack(&ack),
                    else => return,
                }
                news.send_replace(());
            }
        });
        Ok(Self { seen, changed, listening })
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Seen> {
        lock(&self.seen)
    }

    /// Waits until something is seen; none if it is not within the time.
    pub(crate) async fn wait<T>(&self, limit: Duration, look: impl Fn(&Seen) -> Option<T>) -> Option<T> {
        let mut changed = self.changed.subscribe();
        let seen = async {
            loop {
                if let Some(found) = look(&self.lock()) {
                    return found;
                }
                // The sender lives as long as this.
                let _changed = changed.changed().await;
            }
        };
        timeout(limit, seen).await.ok()
    }
}

fn lock(seen: &Mutex<Seen>) -> MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Seen {
    /// Replies about this saga are looked at from now on.
    pub(crate) fn expect(&mut self, saga: Uuid) {
        self.sagas.insert(saga);
    }

    /// Replies to this message are expected from now on.
    pub(crate) fn sending(&mut self, message_id: String) {
        self.sent.insert(message_id);
    }

    pub(crate) fn replies(&self, message_id: &str) -> &[Outcome] {
        self.replies.get(message_id).map_or(&[], Vec::as_slice)
    }

    /// Whether JetStream was asked to forget the command.
    pub(crate) fn is_over(&self, sequence: u64) -> bool {
        self.said(sequence, &[Ack::Taken, Ack::Never])
    }

    /// Whether one of these was said about the command.
    pub(crate) fn said(&self, sequence: u64, wanted: &[Ack]) -> bool {
        self.acks.get(&sequence).is_some_and(|acks| acks.iter().any(|(ack, _)| wanted.contains(ack)))
    }

    /// How often the command is known to have been delivered.
    pub(crate) fn deliveries(&self, sequence: u64) -> u64 {
        self.acks.get(&sequence).into_iter().flatten().map(|(_, delivery)| *delivery).max().unwrap_or(0)
    }

    /// What was wrong with replies since the last call.
    pub(crate) fn take_problems(&mut self) -> Vec<String> {
        let mut problems = std::mem::take(&mut self.problems);
        problems.sort();
        problems.dedup();
        problems
    }

    fn reply(&mut self, message: &Message) {
        let saga = header(message, SAGA).and_then(|saga| saga.parse::<Uuid>().ok());
        match saga {
            // Another saga's.
            Some(saga) if !self.sagas.contains(&saga) => return,
            None => {
                self.problems.push("a reply came without the header Saga".to_owned());
                return;
            }
            Some(_) => {}
        }
        let (saga, reply) = match messages::read_reply(message) {
            Ok(read) => read,
            Err(error) => {
                let body = String::from_utf8_lossy(&message.payload).chars().take(200).collect::<String>();
                self.problems.push(format!("a reply cannot be read: {error}; its body is {body}"));
                return;
            }
        };
        let id = message_id(saga, &reply.step, reply.direction, reply.visit, reply.send);
        if !self.sent.contains(&id) {
            self.problems.push(format!("a reply names the command {id}, which was never sent"));
            return;
        }
        for name in [MESSAGE_ID, SEND] {
            if header(message, name).is_none() {
                self.problems.push(format!("replies lack the header {name}"));
            }
        }
        let trace = header(message, TRACE).and_then(|trace| trace.split('-').nth(1));
        if trace != Some(saga.simple().to_string().as_str()) {
            self.problems.push("replies do not carry on the trace of the header traceparent".to_owned());
        }
        if message.reply.is_none() {
            self.problems.push(
                "replies are published without asking JetStream to acknowledge that it stored them"
                    .to_owned(),
            );
        }
        self.replies.entry(id).or_default().push(reply.outcome);
    }

    fn ack(&mut self, message: &Message) {
        let Some((sequence, delivery)) = delivered(&message.subject) else { return };
        let ack = match &message.payload[..] {
            payload if payload.starts_with(b"-NAK") => Ack::Again,
            payload if payload.starts_with(b"+WPI") => Ack::Progress,
            payload if payload.starts_with(b"+TERM") => Ack::Never,
            _ => Ack::Taken,
        };
        self.acks.entry(sequence).or_default().push((ack, delivery));
    }
}

/// The sequence in the stream and the number of the delivery, from the subject of an acknowledgement.
fn delivered(subject: &str) -> Option<(u64, u64)> {
    let tokens: Vec<&str> = subject.split('.').collect();
    // $JS.ACK.STREAM.consumer.delivered.sequence…, or with domain and account before the stream.
    let first = if tokens.len() >= 11 { 4 } else { 2 };
    let number = |at: usize| tokens.get(first + at)?.parse().ok();
    Some((number(3)?, number(2)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_of_acknowledgements_are_read() {
        assert_eq!(delivered("$JS.ACK.STEPS.printer-print.2.17.5.1700000000.0"), Some((17, 2)));
        assert_eq!(delivered("$JS.ACK._.HASH.STEPS.printer-print.3.18.5.1700000000.0.token"), Some((18, 3)));
        assert_eq!(delivered("$JS.ACK.STEPS"), None);
    }
}
