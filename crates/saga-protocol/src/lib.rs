//! The wire of the saga engine: what its messages say, and on which subjects, streams and consumers of NATS JetStream
//! they travel.
//!
//! The engine sends a [`saga_core::Command`] to the service of a step. The service does it and answers with a reply. Both
//! are written and read here, and so are signals, alarms, domain events, completions by hand and announcements of workers.
//! The same contract for other languages is `docs/workers.md` and `docs/events.md`.
//!
//! Nothing here sends or receives. Functions make [`Outgoing`] messages and read [`async_nats::Message`]s; a reader
//! returns [`Malformed`] for what is not of the contract. The clock, new ids and the name of the process are arguments.
//!
//! ```
//! use std::sync::Arc;
//!
//! use saga_core::{Command, Direction, Outcome};
//! use saga_protocol::messages;
//! use uuid::Uuid;
//!
//! let saga_id = Uuid::from_u128(1);
//! let command = Command {
//!     saga_id,
//!     workflow: "party".to_owned(),
//!     subject: "printer.print".to_owned(),
//!     step: "print".to_owned(),
//!     direction: Direction::Do,
//!     visit: 1,
//!     send: 0,
//!     deadline: None,
//!     reason: None,
//!     context: Arc::default(),
//!     trace: saga_id,
//! };
//! let reply = messages::reply(&command, &Outcome::done(), "printer-host:7");
//! assert_eq!(reply.subject, "sagas.reply.printer");
//! let (saga, reply) = messages::read_reply(&reply.into_message()).unwrap();
//! assert_eq!((saga, reply.worker.as_deref()), (saga_id, Some("printer-host:7")));
//! ```

#[cfg(test)]
#[path = "../../../src/hostile.rs"]
mod hostile;

pub mod presence;
pub mod fences;
pub mod command_batch;
pub mod events;
pub mod messages;
mod trace;
pub mod spans;
mod outgoing;
pub mod headers;
pub mod topology;
pub mod subjects;

pub use headers::Malformed;
pub use outgoing::Outgoing;
