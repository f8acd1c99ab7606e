//! How many messages the streams hold: what was published and is not done yet, for streams that are work queues.

use futures::future::try_join_all;

use super::{Bus, subjects};

/// The streams that are measured.
const STREAMS: [&str; 6] = [
    subjects::STEPS,
    subjects::SAGAS,
    subjects::TIMERS,
    subjects::UNDELIVERED,
    subjects::EVENTS,
    subjects::QUEUE_TOKENS_STREAM,
];

/// Name, messages and bytes of each stream; or why JetStream did not say.
pub async fn all(bus: &Bus) -> Result<Vec<(&'static str, u64, u64)>, String> {
    let sizes = STREAMS.map(async |name| {
        let stream = bus.jetstream.get_stream(name).await.map_err(|error| format!("{name}: {error}"))?;
        let state = &stream.cached_info().state;
        Ok((name, state.messages, state.bytes))
    });
    try_join_all(sizes).await
}
