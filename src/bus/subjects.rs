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
/// What the server says about messages that were delivered too often.
pub const UNDELIVERED: &str = "UNDELIVERED";
/// The last message by which a process found out whether JetStream works.
pub const HEALTH: &str = "HEALTH";
/// The KV bucket of the places in line.
pub const QUEUE_TOKENS: &str = "queue_tokens";
/// The stream beneath that bucket.
pub const QUEUE_TOKENS_STREAM: &str = "KV_queue_tokens";
/// The key of the marker that says that this bucket holds all that the journal had of earlier ones.
pub const QUEUE_RESTORED: &str = "journal.restored";
/// The key of the lease under which one instance admits.
pub const QUEUE_LEASE: &str = "lease.admission";

/// The KV bucket of the locks that a benchmark holds against others; it is made for a run and deleted after it.
pub const RIVAL_LOCKS: &str = "rival_locks";

/// All step commands.
pub const ALL_STEPS: &str = "steps.>";
/// All replies and signals.
pub const ALL_SAGAS: &str = "sagas.>";
/// All schedules and alarms.
pub const ALL_TIMERS: &str = "timers.>";
/// All domain events.
pub const ALL_EVENTS: &str = "events.>";
/// The one subject of [`HEALTH`].
pub const PROBE: &str = "health.jetstream";
/// All alarms that have rung.
pub const TIMERS_DUE: &str = "timers.due.>";
/// Replies of workers, without saying of which service; only who may answer for all services may publish here.
pub const REPLIES: &str = "sagas.reply";
/// Replies of workers by service.
pub const SERVICE_REPLIES: &str = "sagas.reply.*";
/// All signals from outside.
pub const SIGNALS: &str = "sagas.signal";
/// Core NATS, not stored: one message per batch of sagas that came to rest, for whoever waits.
pub const SETTLED: &str = "settled";
/// Core NATS, not stored: one message per batch that changed seats, for whoever keeps maps of them.
pub const SEATS_CHANGED: &str = "catalog.seats";
/// Core NATS, not stored: a concert was added, or a date of one.
pub const CONCERTS_CHANGED: &str = "catalog.concerts";
/// Core NATS, not stored: an operator paused something, or let it go on.
pub const PAUSES: &str = "pauses";
/// Core NATS, not stored: somebody changed the settings of a line.
pub const QUEUE_SETTINGS: &str = "queue.settings";
/// Core NATS, not stored: the bucket of places was missing and has been made.
pub const QUEUE_BUCKET: &str = "queue.bucket";
/// Core NATS, not stored: an instance tells of whom in line it has heard lately.
pub const QUEUE_HEARD: &str = "queue.heard";
/// Core NATS, request and reply: an operator asks whoever admits to admit some more at once.
pub const QUEUE_ADMIT: &str = "queue.admit";

/// Core NATS, not stored: every instance says how long holds take there, while any line has a brake.
pub const QUEUE_HOLDS: &str = "queue.holds";

/// Core NATS, the service API: every service that is there says what it is.
pub const SERVICES_INFO: &str = "$SRV.INFO";
/// Core NATS, the service API: every service that is there says how it has done.
pub const SERVICES_STATS: &str = "$SRV.STATS";

/// Core NATS, request and reply: the service writes by hand that a step is done.
pub fn complete(service: &str) -> String {
    format!("fences.{service}.complete")
}

/// Where a command such as `seats.hold` travels.
pub fn step(command: &str) -> String {
    format!("steps.{command}")
}

/// Where workers of a service such as `seats` reply.
pub fn reply(service: &str) -> String {
    format!("{REPLIES}.{service}")
}

/// The service whose workers may publish on a subject of replies; nothing on [`REPLIES`].
pub fn replying_service(subject: &str) -> Option<&str> {
    subject.strip_prefix(REPLIES)?.strip_prefix('.')
}

/// Whether a subject is one of replies.
pub fn is_reply(subject: &str) -> bool {
    subject == REPLIES || replying_service(subject).is_some()
}

/// The command that travels on a subject: the reverse of [`step`].
pub fn command(subject: &str) -> &str {
    subject.strip_prefix("steps.").unwrap_or(subject)
}

/// All commands of a service such as `seats`.
pub fn service(name: &str) -> String {
    format!("steps.{name}.>")
}

/// The service that a command such as `seats.hold` belongs to.
pub fn service_of(command: &str) -> &str {
    command.split_once('.').map_or(command, |(service, _)| service)
}

/// The durable consumer of a command: `seats-hold` for `seats.hold`.
pub fn consumer(command: &str) -> String {
    command.replace('.', "-")
}

/// Whether a filter of a consumer covers a subject; an empty one covers all.
pub fn covers(filter: &str, subject: &str) -> bool {
    let (mut wanted, mut given) = (filter.split('.'), subject.split('.'));
    loop {
        match (wanted.next(), given.next()) {
            (Some(">"), Some(_)) | (None, None) => return true,
            (Some(word), Some(token)) if word == "*" || word == token => {}
            _ => return filter.is_empty(),
        }
    }
}

/// Where the schedule of an alarm lies until it fires.
pub fn timer_schedule(alarm: Uuid) -> String {
    format!("timers.schedule.{alarm}")
}

/// Where an alarm rings.
pub fn timer_due(alarm: Uuid) -> String {
    format!("timers.due.{alarm}")
}

/// Core NATS, not stored: where a transition of a saga is told.
pub fn transition(workflow: &str, saga: Uuid) -> String {
    format!("transitions.{}.{saga}", word(workflow))
}

/// Where transitions are told, of one workflow or all, of one saga or all.
pub fn transitions(workflow: Option<&str>, saga: Option<Uuid>) -> String {
    let workflow = workflow.map_or("*".to_owned(), word);
    let saga = saga.map_or("*".to_owned(), |saga| saga.to_string());
    format!("transitions.{workflow}.{saga}")
}

/// A name as one word of a subject: what has a meaning there, or no place, becomes `_`.
fn word(name: &str) -> String {
    let plain = |letter: char| letter.is_alphanumeric() || matches!(letter, '-' | '_');
    name.chars().map(|letter| if plain(letter) { letter } else { '_' }).collect()
}

/// Where the server says that it gives up on a message of a stream, which stays there.
pub fn given_up(stream: &str) -> String {
    format!("$JS.EVENT.ADVISORY.CONSUMER.MAX_DELIVERIES.{stream}.*")
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

/// Where a key of the bucket [`RIVAL_LOCKS`] is published.
pub fn rival_lock(key: &str) -> String {
    format!("$KV.{RIVAL_LOCKS}.{key}")
}

/// Whether a message of the command `came` may be about a step whose command is `asked`: it is that command, or `asked` says by
/// its verb that its service passes it on, as `gate.points__deduct` does to `points.deduct`.
pub fn fits(asked: &str, came: &str) -> bool {
    asked == came || asked.split_once('.').is_some_and(|(_, verb)| verb == came.replace('.', "__"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_covers_what_the_server_would_deliver_by_it() {
        let subject = step("seats.hold");
        for filter in
            ["", ">", "steps.>", "steps.*.hold", "steps.seats.*", "steps.seats.>", "steps.seats.hold"]
        {
            assert!(covers(filter, &subject), "{filter}");
        }
        for filter in ["steps", "steps.seats", "steps.seats.hold.>", "steps.*", "steps.points.>", "*"] {
            assert!(!covers(filter, &subject), "{filter}");
        }
    }
}
