//! Writes the facts as one line for people. It is pure, so that a test can cover every case.

use chrono::{DateTime, TimeDelta, Utc};

use super::facts::{Backlog, Carrier, Facts};
use crate::operations::pauses::{PauseOf, PauseView};
use crate::saga::{Direction, Status};

/// Says what the saga waits for, since when, until when, and who could move it.
pub(super) fn of(facts: &Facts) -> String {
    let mut parts = Vec::new();
    match facts.saga.status {
        Status::Completed | Status::Compensated | Status::Abandoned => return ended(facts),
        _ if !facts.defined => parts.push(undefined(facts)),
        Status::Stuck => parts.push(stuck(facts)),
        Status::Waiting => parts.push(waiting(facts)),
        Status::Running | Status::Compensating => {
            parts.push(out(facts));
            parts.extend(facts.carrier.iter().flat_map(|carrier| carried(facts, carrier)));
        }
    }
    parts.extend(facts.pauses.iter().map(|pause| held(pause, facts.now)));
    if facts.parked > 0 {
        let messages = if facts.parked == 1 { "message" } else { "messages" };
        parts.push(format!("{} parked {messages} about it", facts.parked));
    }
    parts.extend(movers(facts));
    parts.join("; ")
}

fn ended(facts: &Facts) -> String {
    let saga = &facts.saga;
    let at = saga.finished_at.map(|at| format!(" at {}", clock(at, facts.now))).unwrap_or_default();
    let reason = saga.reason.as_ref().map(|reason| format!(" ({reason})")).unwrap_or_default();
    let rest = match &facts.event_refused {
        Some(refused) => {
            format!("an event cannot be published: {refused}; mend that, and it is published without a retry")
        }
        None if saga.due_at.is_some() => "its last events are not acknowledged yet".to_owned(),
        None => "nothing to wait for".to_owned(),
    };
    format!("{}{at}{reason}; {rest}", saga.status)
}

fn undefined(facts: &Facts) -> String {
    let saga = &facts.saga;
    format!(
        "the definition of {} version {} cannot be read, so it waits and is looked at again; deploy the definition",
        saga.workflow, saga.version
    )
}

fn stuck(facts: &Facts) -> String {
    let reason = facts.saga.reason.as_deref().unwrap_or("for no reason that was written down");
    let since = facts.saga.stuck_since.unwrap_or(facts.saga.updated_at);
    format!("stuck since {}: {reason}", clock(since, facts.now))
}

fn waiting(facts: &Facts) -> String {
    let signal = facts.signal.as_deref().unwrap_or_default();
    let until = turns_back(facts).unwrap_or_else(|| "without an end".to_owned());
    format!("waits for the signal {signal} since {}, {until}", clock(facts.since, facts.now))
}

/// A command that is out, or comes after a pause.
fn out(facts: &Facts) -> String {
    let command = facts.command.as_deref().unwrap_or_default();
    let saga = &facts.saga;
    let again = facts.asked_again_at.map(|at| format!("asked again {}", coming(at, facts.now)));
    let fence = format!("send {}, visit {}", facts.send + 1, saga.visit);
    let mut parts = Vec::new();
    if facts.backing_off && facts.saga.paused && facts.last_error.is_none() {
        parts.push(format!("{command} is held back"));
    } else if facts.backing_off {
        let error = facts.last_error.as_deref().unwrap_or("no word");
        let times = if saga.attempt > 0 {
            format!("failed {} ({error})", times(saga.attempt))
        } else {
            format!("is not known to have run ({error})")
        };
        parts.push(format!("{command} {times}"));
        parts.extend(again);
    } else {
        let since = span(facts.now - facts.since);
        let undo = if saga.direction == Direction::Undo {
            format!(" (undo of {})", saga.step)
        } else {
            String::new()
        };
        parts.push(format!("{command}{undo} is out since {since} ({fence})"));
        parts.extend(again);
    }
    if !facts.parallel.is_empty() {
        parts.push(format!("in parallel with {}", facts.parallel.join(" and ")));
    }
    parts.extend(turns_back(facts));
    parts.join(", ")
}

fn turns_back(facts: &Facts) -> Option<String> {
    let (at, reason) = (facts.turns_back_at?, facts.turns_back_for.as_deref()?);
    Some(format!("until {} (then: compensation, {reason})", clock(at, facts.now)))
}

/// The backlog of the command, and its workers.
fn carried(facts: &Facts, carrier: &Carrier) -> Vec<String> {
    let command = facts.command.as_deref().unwrap_or_default();
    if let Some(unknown) = &carrier.unknown {
        return vec![format!("{unknown}, so backlog and workers are not known")];
    }
    let mut parts: Vec<String> =
        carrier.consumers.iter().filter_map(|backlog| queue(backlog, facts.now)).collect();
    if carrier.consumers.is_empty() {
        parts.push(format!("no consumer takes {command}"));
    }
    parts.push(match carrier.workers.as_slice() {
        [] => format!("no worker serves {command}"),
        [one] => format!("served by {}", one.instance.as_deref().unwrap_or(&one.service)),
        many => format!("served by {} workers", many.len()),
    });
    parts
}

fn queue(backlog: &Backlog, now: DateTime<Utc>) -> Option<String> {
    let name = &backlog.consumer;
    let mut parts = Vec::new();
    if let Some(until) = backlog.paused_until {
        parts.push(format!("consumer {name} is paused until {}", clock(until, now)));
    }
    if backlog.pending > 0 {
        parts.push(match backlog.pending {
            1 => format!("1 command waits before consumer {name}"),
            many => format!("{many} commands wait before consumer {name}"),
        });
    }
    if backlog.unanswered > 0 {
        parts.push(format!("{} delivered and not answered", backlog.unanswered));
    }
    if backlog.redelivered > 0 {
        parts.push(format!("{} redelivered", backlog.redelivered));
    }
    (!parts.is_empty()).then(|| parts.join(", "))
}

/// The pauses of the saga, by whom and why. Its timers go on.
fn held(pause: &PauseView, now: DateTime<Utc>) -> String {
    let what = match pause.kind {
        PauseOf::Saga => "the saga is paused".to_owned(),
        PauseOf::Workflow => format!("the workflow {} is paused", pause.name),
        PauseOf::Step => format!("{} is paused everywhere", pause.name),
    };
    let since = pause.since.map(|since| format!(" since {}", clock(since, now))).unwrap_or_default();
    let actor = pause.actor.as_ref().map(|actor| format!(" by {actor}")).unwrap_or_default();
    let reason = pause.reason.as_ref().map(|reason| format!(" ({reason})")).unwrap_or_default();
    format!("{what}{since}{actor}{reason}")
}

/// Signals and acts that could move it, besides replies and timers.
fn movers(facts: &Facts) -> Vec<String> {
    let mut parts = Vec::new();
    if facts.saga.status == Status::Waiting && facts.defined {
        let signals = facts.signal.iter().chain(&facts.other_signals).map(String::as_str);
        parts.push(format!("moved by the signal {}", either(&signals.collect::<Vec<_>>())));
    }
    if !facts.allowed.is_empty() {
        parts.push(format!("an operator can {}", either(&facts.allowed)));
    }
    parts
}

fn either(words: &[&str]) -> String {
    match words {
        [] => "nothing".to_owned(),
        [one] => (*one).to_owned(),
        [first @ .., last] => format!("{} or {last}", first.join(", ")),
    }
}

fn times(count: i32) -> String {
    if count == 1 { "once".to_owned() } else { format!("{count} times") }
}

/// A time of day, in UTC; of another day with its date.
fn clock(at: DateTime<Utc>, now: DateTime<Utc>) -> String {
    let same_day = at.date_naive() == now.date_naive();
    at.format(if same_day { "%T" } else { "%F %T" }).to_string()
}

fn coming(at: DateTime<Utc>, now: DateTime<Utc>) -> String {
    if at <= now { "now".to_owned() } else { format!("in {}", span(at - now)) }
}

/// A length of time for people.
fn span(length: TimeDelta) -> String {
    match length.num_seconds().max(0) {
        0 => format!("{} ms", length.num_milliseconds().max(0)),
        seconds @ 1..120 => format!("{seconds} s"),
        seconds @ 120..7_200 => format!("{} min", seconds / 60),
        seconds @ 7_200..172_800 => format!("{} h", seconds / 3_600),
        seconds => format!("{} days", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::super::facts::Present;
    use super::*;
    use crate::operations::SagaView;
    use uuid::Uuid;

    fn at(text: &str) -> DateTime<Utc> {
        format!("2026-11-21T{text}Z").parse().unwrap()
    }

    /// A saga whose payment is out.
    fn paying() -> Facts {
        let saga = SagaView {
            id: Uuid::from_u128(7),
            workflow: "booking".to_owned(),
            version: 1,
            status: Status::Running,
            paused: false,
            step: "pay".to_owned(),
            direction: Direction::Do,
            visit: 1,
            attempt: 0,
            due_at: Some(at("12:08:07")),
            stuck_since: None,
            reason: None,
            input: std::sync::Arc::default(),
            attributes: None,
            trace_id: String::new(),
            created_at: at("12:03:00"),
            updated_at: at("12:07:57"),
            finished_at: None,
        };
        Facts {
            now: at("12:08:00"),
            saga,
            since: at("12:07:57"),
            send: 1,
            backing_off: false,
            last_error: None,
            command: Some("points.deduct".to_owned()),
            parallel: Vec::new(),
            signal: None,
            other_signals: Vec::new(),
            asked_again_at: Some(at("12:08:07")),
            turns_back_at: Some(at("12:08:25")),
            turns_back_for: Some("hold_expired".to_owned()),
            defined: true,
            allowed: vec!["cancel"],
            pauses: Vec::new(),
            parked: 0,
            carrier: Some(Carrier::default()),
            event_refused: None,
        }
    }

    fn backlog(pending: u64, unanswered: usize, redelivered: usize) -> Backlog {
        Backlog { consumer: "points-deduct".to_owned(), pending, unanswered, redelivered, paused_until: None }
    }

    #[test]
    fn a_command_that_nobody_serves() {
        let mut facts = paying();
        facts.carrier = Some(Carrier { consumers: vec![backlog(41, 2, 2)], ..Carrier::default() });
        assert_eq!(
            of(&facts),
            "points.deduct is out since 3 s (send 2, visit 1), asked again in 7 s, until 12:08:25 (then: \
             compensation, hold_expired); 41 commands wait before consumer points-deduct, 2 delivered and not \
             answered, 2 redelivered; no worker serves points.deduct; an operator can cancel"
        );
    }

    #[test]
    fn working_and_paused_commands_are_described() {
        let mut facts = paying();
        let worker = Present { service: "points".to_owned(), instance: Some("host/7".to_owned()) };
        let paused = Backlog { paused_until: Some(at("13:00:00")), ..backlog(1, 0, 0) };
        facts.carrier = Some(Carrier { consumers: vec![paused], workers: vec![worker], unknown: None });
        let said = of(&facts);
        assert!(
            said.contains("; consumer points-deduct is paused until 13:00:00, 1 command waits before"),
            "{said}"
        );
        assert!(said.contains("; served by host/7; "), "{said}");
    }

    #[test]
    fn without_nats_it_still_answers_and_says_so() {
        let mut facts = paying();
        let unknown = Some("NATS does not answer".to_owned());
        facts.carrier = Some(Carrier { unknown, ..Carrier::default() });
        let said = of(&facts);
        assert!(said.contains("; NATS does not answer, so backlog and workers are not known; "), "{said}");
    }

    #[test]
    fn a_command_between_two_tries() {
        let mut facts = paying();
        (facts.backing_off, facts.saga.attempt) = (true, 3);
        facts.last_error = Some("busy".to_owned());
        facts.carrier = None;
        assert_eq!(
            of(&facts),
            "points.deduct failed 3 times (busy), asked again in 7 s, until 12:08:25 (then: compensation, \
             hold_expired); an operator can cancel"
        );
    }

    #[test]
    fn wait_names_its_end_and_signals() {
        let mut facts = paying();
        facts.saga.status = Status::Waiting;
        (facts.command, facts.carrier, facts.asked_again_at) = (None, None, None);
        (facts.signal, facts.other_signals) = (Some("pay".to_owned()), vec!["cancel".to_owned()]);
        facts.parked = 1;
        assert_eq!(
            of(&facts),
            "waits for the signal pay since 12:07:57, until 12:08:25 (then: compensation, hold_expired); \
             1 parked message about it; moved by the signal pay or cancel; an operator can cancel"
        );
    }

    #[test]
    fn stuck_saga_names_operator_actions() {
        let mut facts = paying();
        (facts.saga.status, facts.saga.direction) = (Status::Stuck, Direction::Undo);
        facts.saga.reason = Some("undo of reserve failed 70 times: busy".to_owned());
        facts.saga.stuck_since = Some("2026-11-20T09:00:00Z".parse().unwrap());
        facts.allowed = vec!["retry", "skip_undo", "abandon"];
        assert_eq!(
            of(&facts),
            "stuck since 2026-11-20 09:00:00: undo of reserve failed 70 times: busy; an operator can retry, \
             skip_undo or abandon"
        );
    }

    #[test]
    fn an_ended_saga_waits_for_nothing() {
        let mut facts = paying();
        (facts.saga.status, facts.saga.due_at) = (Status::Completed, None);
        facts.saga.finished_at = Some(at("12:07:59"));
        assert_eq!(of(&facts), "completed at 12:07:59; nothing to wait for");
        facts.saga.status = Status::Compensated;
        facts.saga.reason = Some("hold_expired".to_owned());
        facts.saga.due_at = Some(at("12:08:02"));
        assert_eq!(
            of(&facts),
            "compensated at 12:07:59 (hold_expired); its last events are not acknowledged yet"
        );
        facts.event_refused = Some("events.x: its stream is sealed".to_owned());
        assert_eq!(
            of(&facts),
            "compensated at 12:07:59 (hold_expired); an event cannot be published: events.x: its stream is sealed; \
             mend that, and it is published without a retry"
        );
    }

    #[test]
    fn a_paused_saga_and_one_without_a_definition() {
        let mut facts = paying();
        (facts.saga.paused, facts.backing_off, facts.asked_again_at) = (true, true, None);
        let since = Some(at("12:07:00"));
        let (actor, reason) = (Some("ada".to_owned()), Some("a new price".to_owned()));
        facts.pauses = vec![PauseView { kind: PauseOf::Saga, name: String::new(), since, actor, reason }];
        facts.carrier = None;
        assert_eq!(
            of(&facts),
            "points.deduct is held back, until 12:08:25 (then: compensation, hold_expired); the saga is paused \
             since 12:07:00 by ada (a new price); an operator can cancel"
        );
        (facts.pauses, facts.saga.paused) = (Vec::new(), false);
        (facts.defined, facts.allowed) = (false, Vec::new());
        assert_eq!(
            of(&facts),
            "the definition of booking version 1 cannot be read, so it waits and is looked at again; deploy the definition"
        );
    }
}
