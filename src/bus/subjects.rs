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
/// The stream beneath that bucket.
pub const QUEUE_TOKENS_STREAM: &str = "KV_queue_tokens";
/// The key of the lease under which one instance admits.
pub const QUEUE_LEASE: &str = "lease.admission";

/// All step commands.
pub const ALL_STEPS: &str = "steps.>";
/// All replies and signals.
pub const ALL_SAGAS: &str = "sagas.>";
/// All schedules and alarms.
pub const ALL_TIMERS: &str = "timers.>";
/// All domain events.
pub const ALL_EVENTS: &str = "events.>";
/// All alarms that have rung.
pub const TIMERS_DUE: &str = "timers.due.>";
/// All replies of workers.
pub const REPLIES: &str = "sagas.reply";
/// All signals from outside.
pub const SIGNALS: &str = "sagas.signal";
/// Core NATS, not stored: one message per batch of sagas that came to rest, for whoever waits.
pub const SETTLED: &str = "settled";
/// Core NATS, not stored: somebody changed the settings of a line.
pub const QUEUE_SETTINGS: &str = "queue.settings";
/// Core NATS, request and reply: an operator asks whoever admits to admit some more at once.
pub const QUEUE_ADMIT: &str = "queue.admit";

/// Where a command such as `seats.hold` travels.
pub fn step(command: &str) -> String {
    format!("steps.{command}")
}

/// The command that travels on a subject: the reverse of [`step`].
pub fn command(subject: &str) -> &str {
    subject.strip_prefix("steps.").unwrap_or(subject)
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

/// The key of a user's place in the line of a concert.
pub fn queue_place(concert: Uuid, user: Uuid) -> String {
    format!("{concert}.{user}")
}

/// Where a key of the bucket of places is published.
pub fn queue_key(key: &str) -> String {
    format!("$KV.{QUEUE_TOKENS}.{key}")
}
