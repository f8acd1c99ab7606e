//! The names of streams, consumers and subjects. Their settings are in [`crate::topology`].

use uuid::Uuid;

/// Step commands to workers.
pub const STEPS: &str = "STEPS";
/// Replies and signals to the engine.
pub const SAGAS: &str = "SAGAS";
/// Schedules, and the alarms they become.
pub const TIMERS: &str = "TIMERS";
/// Domain events for other systems.
pub const EVENTS: &str = "EVENTS";
/// Advisories of the server about messages that were delivered too often.
pub const UNDELIVERED: &str = "UNDELIVERED";
/// The last message by which a process found out whether JetStream works.
pub const HEALTH: &str = "HEALTH";
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
/// Replies of workers that do not name their service. A worker needs the right to answer for all services.
pub const REPLIES: &str = "sagas.reply";
/// Replies of workers by service.
pub const SERVICE_REPLIES: &str = "sagas.reply.*";
/// All signals from outside.
pub const SIGNALS: &str = "sagas.signal";
/// Sagas that are to be started.
pub const STARTS: &str = "sagas.start";
/// Core NATS, not stored: one message per batch of sagas that came to rest.
pub const SETTLED: &str = "settled";
/// Core NATS, not stored: an operator has paused or resumed something.
pub const PAUSES: &str = "pauses";
/// Core NATS, the service API: asks every running service for its name and metadata.
pub const SERVICES_INFO: &str = "$SRV.INFO";
/// Core NATS, the service API: asks every running service for its statistics.
pub const SERVICES_STATS: &str = "$SRV.STATS";

/// Core NATS, request and reply: asks a service to complete a step by hand.
pub fn complete(service: &str) -> String {
    format!("fences.{service}.complete")
}

/// The subject of a command such as `printer.print`.
pub fn step(command: &str) -> String {
    format!("steps.{command}")
}

/// The subject on which workers of a service such as `printer` reply.
pub fn reply(service: &str) -> String {
    format!("{REPLIES}.{service}")
}

/// The service that a subject of replies names; none for [`REPLIES`].
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

/// All commands of a service such as `printer`.
pub fn service(name: &str) -> String {
    format!("steps.{name}.>")
}

/// The service that a command such as `printer.print` belongs to.
pub fn service_of(command: &str) -> &str {
    command.split_once('.').map_or(command, |(service, _)| service)
}

/// The durable consumer of a command: `printer-print` for `printer.print`.
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

/// The subject of the schedule of an alarm.
pub fn timer_schedule(alarm: Uuid) -> String {
    format!("timers.schedule.{alarm}")
}

/// The subject on which an alarm rings.
pub fn timer_due(alarm: Uuid) -> String {
    format!("timers.due.{alarm}")
}

/// Core NATS, not stored: the subject of notices about transitions of sagas of one workflow, or of all.
pub fn transitions(workflow: Option<&str>) -> String {
    format!("transitions.{}", workflow.map_or("*".to_owned(), word))
}

/// A name as one word of a subject: every character but letters, digits, `-` and `_` becomes `_`.
fn word(name: &str) -> String {
    let plain = |letter: char| letter.is_alphanumeric() || matches!(letter, '-' | '_');
    name.chars().map(|letter| if plain(letter) { letter } else { '_' }).collect()
}

/// The subject of advisories that the server gives up on a message of a stream. The message stays there.
pub fn given_up(stream: &str) -> String {
    format!("$JS.EVENT.ADVISORY.CONSUMER.MAX_DELIVERIES.{stream}.*")
}

/// The subject of a domain event such as `order.confirmed`.
pub fn event(name: &str) -> String {
    format!("events.{name}")
}

/// Whether a message of the command `came` may be about a step whose command is `asked`: it is that command, or `asked` says by
/// its verb that its service passes it on, as `gate.printer__print` does to `printer.print`.
pub fn fits(asked: &str, came: &str) -> bool {
    asked == came || asked.split_once('.').is_some_and(|(_, verb)| verb == came.replace('.', "__"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forwarded_command_fits_by_its_verb() {
        assert!(fits("printer.print", "printer.print") && fits("gate.printer__print", "printer.print"));
        assert!(!fits("gate.printer__scan", "printer.print") && !fits("print", "printer.print"));
    }

    #[test]
    fn names_become_single_words_of_subjects() {
        assert_eq!(transitions(Some("a.b *>c")), "transitions.a_b___c");
        assert_eq!(transitions(None), "transitions.*");
    }

    #[test]
    fn replies_name_their_service_or_none() {
        assert_eq!(replying_service(&reply("printer")), Some("printer"));
        assert_eq!(replying_service(REPLIES), None);
        assert!(is_reply(REPLIES) && is_reply(&reply("printer")) && !is_reply("sagas.replying"));
    }

    #[test]
    fn filter_covers_what_the_server_delivers() {
        let subject = step("printer.print");
        for filter in
            ["", ">", "steps.>", "steps.*.print", "steps.printer.*", "steps.printer.>", "steps.printer.print"]
        {
            assert!(covers(filter, &subject), "{filter}");
        }
        for filter in ["steps", "steps.printer", "steps.printer.print.>", "steps.*", "steps.scanner.>", "*"] {
            assert!(!covers(filter, &subject), "{filter}");
        }
    }
}
