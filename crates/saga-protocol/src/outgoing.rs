//! A message that is ready to be published.

use async_nats::jetstream::message::PublishMessage;

/// A message that is ready to be published.
#[derive(Clone, Debug)]
pub struct Outgoing {
    /// The subject to publish it on.
    pub subject: String,
    /// Its headers and its body.
    pub message: PublishMessage,
}

impl Outgoing {
    /// The message as a receiver sees it.
    pub fn into_message(self) -> async_nats::Message {
        let sent = self.message.outbound_message(self.subject);
        async_nats::Message {
            length: sent.payload.len(),
            subject: sent.subject,
            reply: None,
            payload: sent.payload,
            headers: sent.headers,
            status: None,
            description: None,
        }
    }
}
