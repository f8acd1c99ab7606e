//! An example of a system that listens: one line for each domain event.
//!
//! ```text
//! cargo run --example notifier              beside `make up`
//! NATS_URL=nats://… cargo run --example notifier
//! ```
//!
//! Its place in the stream is kept by NATS, in the durable consumer `notifier`: stopped and started again, it goes on
//! where it was. An event may come twice; a system that sends mail would write the event's id beside what it sent, under
//! a unique key, and only then acknowledge.

use anyhow::Context;
use saga_protocol::events::{EventMessage, read_events};
use saga_protocol::{subjects, topology};
use saga_worker::{CancellationToken, Deliveries, Nats, deliveries};
use serde_json::Value;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let url = std::env::var("NATS_URL").ok().or_else(running_nats);
    let url = url.context("no `boxoffice up` runs here; start one, or set NATS_URL")?;
    let nats = Nats::new(saga_worker::connect(&url).await?);
    let stop = CancellationToken::new();
    let listening = listen(&nats, "notifier", &stop, |event| println!("{}", line(event)));
    tokio::select! {
        () = listening => Ok(()),
        pressed = tokio::signal::ctrl_c() => Ok(pressed?),
    }
}

/// The address of the NATS of a `boxoffice up` that was started in this folder.
fn running_nats() -> Option<String> {
    let running = std::fs::read(".boxoffice/running.json").ok()?;
    let running: Value = serde_json::from_slice(&running).ok()?;
    running["nats_url"].as_str().map(str::to_owned)
}

/// Calls `tell` with every event, from where the consumer of this name stands, until `stop`.
pub async fn listen(nats: &Nats, name: &str, stop: &CancellationToken, mut tell: impl FnMut(&EventMessage)) {
    let config = topology::work_consumer(name, subjects::ALL_EVENTS);
    let mut incoming = Deliveries::of(nats, subjects::EVENTS, config);
    while !stop.is_cancelled() {
        for message in incoming.next(stop).await {
            match read_events(&message.payload) {
                Ok(events) => events.iter().for_each(&mut tell),
                Err(error) => eprintln!("{} has no events: {error}", message.subject),
            }
            // After `tell`: a message that is not acknowledged comes again.
            deliveries::acknowledge(&message).await;
        }
    }
}

/// An event as a line.
pub fn line(event: &EventMessage) -> String {
    let EventMessage { at, name, subject_id, sequence, .. } = event;
    format!("{} {name:<21} {subject_id} #{sequence}", at.format("%H:%M:%S"))
}
