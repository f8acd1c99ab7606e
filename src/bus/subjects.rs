//! Every stream, consumer, bucket and subject by name. The table with their settings is in [`super::topology`].

use uuid::Uuid;

/// Step commands to workers.
pub const STEPS: &str = "STEPS";
/// Replies and signals to the orchestrator.
pub const SAGAS: &str = "SAGAS";
/// Schedules, and the alarms they become.
pub const TIMERS: &str = "TIMERS";
/// Domain events for other systems.
pub const EVENTS: &str = "EVENTS";
/// The KV bucket of the places in line.
pub const QUEUE_TOKENS: &str = "queue_tokens";

/// All alarms that have rung.
pub const TIMERS_DUE: &str = "timers.due.>";
/// All replies of workers.
pub const REPLIES: &str = "sagas.reply";
/// All signals from outside.
pub const SIGNALS: &str = "sagas.signal";
/// Core NATS, not stored: one message per batch of sagas that came to rest, for whoever waits.
pub const SETTLED: &str = "settled";
/// Core NATS, not stored: users whose sessions ended by a payment, for every gate.
pub const SESSIONS_ENDED: &str = "sessions.ended";

/// Where a command such as `seats.hold` travels.
pub fn step(command: &str) -> String {
    format!("steps.{command}")
}

/// All commands of a service such as `seats`.
pub fn service(name: &str) -> String {
    format!("steps.{name}.>")
}

/// Where the schedule of a saga's alarm lies until it fires.
pub fn timer_schedule(saga: Uuid) -> String {
    format!("timers.schedule.{saga}")
}

/// Where a saga's alarm rings.
pub fn timer_due(saga: Uuid) -> String {
    format!("timers.due.{saga}")
}

/// Where a cancelled alarm is told; nobody reads it and it lives a second.
pub fn timer_off(saga: Uuid) -> String {
    format!("timers.off.{saga}")
}

/// Where a domain event such as `reservation.confirmed` is published.
pub fn event(name: &str) -> String {
    format!("events.{name}")
}
