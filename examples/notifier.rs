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

use std::path::Path;

use anyhow::Context;
use boxoffice::bus::events::{EventMessage, read_events};
use boxoffice::bus::{self, Bus, Deliveries, deliveries, subjects, topology};
use dev_servers::addresses;
use tokio_util::sync::CancellationToken;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let running = || addresses::find(Path::new(".boxoffice")).map(|up| up.nats_url);
    let url = std::env::var("NATS_URL").ok().or_else(running);
    let url = url.context("no `boxoffice up` runs here; start one, or set NATS_URL")?;
    let bus = bus::connect(&url, "notifier", 1).await?;
    let stop = CancellationToken::new();
    let listening = listen(&bus, "notifier", &stop, |event| println!("{}", line(event)));
    tokio::select! {
        () = listening => Ok(()),
        pressed = tokio::signal::ctrl_c() => Ok(pressed?),
    }
}

/// Tells every event, from where the consumer of this name stands, until `stop`.
pub async fn listen(bus: &Bus, name: &str, stop: &CancellationToken, mut tell: impl FnMut(&EventMessage)) {
    let config = topology::work_consumer(name, subjects::ALL_EVENTS);
    let mut incoming = Deliveries::of(bus, subjects::EVENTS, config);
    while !stop.is_cancelled() {
        for message in incoming.next(stop).await {
            match read_events(&message.payload) {
                Ok(events) => events.iter().for_each(&mut tell),
                Err(error) => eprintln!("{} has no events: {error}", message.subject),
            }
            // Not before it is told: what is not acknowledged comes again.
            deliveries::acknowledge(&message).await;
        }
    }
}

/// An event as a line.
pub fn line(event: &EventMessage) -> String {
    let EventMessage { at, name, subject_id, sequence, .. } = event;
    format!("{} {name:<21} {subject_id} #{sequence}", at.format("%H:%M:%S"))
}
