//! The spans of a saga: its start, each event that moved it, and each message that it sent.
//!
//! All are children of the span of the saga's start, or of the span of the message or request that caused them.

use std::time::SystemTime;

use saga_protocol::spans::{self, Span, SpanContext, SpanKind};
use uuid::Uuid;

use crate::bus::events::EventMessage;
use crate::saga::{self, Command, Definition, Event, Saga, Status, Transition};

/// What a saga is in its trace.
#[derive(Clone, Copy, Debug)]
pub struct Started<'a> {
    pub workflow: &'a str,
    pub saga: Uuid,
    /// The trace that the saga was given; without one it is a trace of its own.
    pub trace: Option<Uuid>,
    /// A saga of the same trace that this one is about.
    pub about: Option<Uuid>,
}

/// Exports the span of a saga's start, which began at `begun`. Its parent is the span that caused what this task does.
pub fn record_start(started: Started<'_>, begun: Option<SystemTime>, cause: Option<SpanContext>) {
    let Started { workflow, saga, trace, about } = started;
    let trace = trace.unwrap_or(saga);
    let (Some(begun), Some(exporter)) = (begun, spans::exporter_of(trace)) else { return };
    let about = about.map(|about| SpanContext::of_start(trace, about).span);
    let (parent, link) = parent_and_link(trace, cause, about);
    exporter.export(Span {
        context: SpanContext::of_start(trace, saga),
        parent,
        link,
        kind: SpanKind::Internal,
        name: format!("start {workflow}"),
        begun,
        ended: spans::now(),
        attributes: vec![("saga.id", saga.to_string()), ("saga.workflow", workflow.to_owned())],
        error: None,
    });
}

/// A cause in the same trace is the parent. One in another trace is linked, so that both are found from either.
fn parent_and_link(
    trace: Uuid,
    cause: Option<SpanContext>,
    otherwise: Option<u64>,
) -> (Option<u64>, Option<SpanContext>) {
    match cause {
        Some(cause) if cause.trace == trace => (Some(cause.span), None),
        other => (otherwise, other),
    }
}

/// The span of an event that moved a saga; `ended` is set when the batch is committed.
pub(super) fn of_event(
    event: &Event,
    transition: &Transition,
    definition: Option<&Definition>,
    begun: SystemTime,
    cause: Option<SpanContext>,
) -> Option<Span> {
    let (saga, entry) = (&transition.saga, transition.entry.as_ref()?);
    let trace = saga.trace.unwrap_or(saga.id);
    spans::exporter_of(trace)?;
    let start = SpanContext::of_start(trace, saga.id).span;
    let (kind, name, own_parent) = match event {
        Event::Reply(reply) => {
            let command = definition.and_then(|known| known.command_of(&reply.step, reply.direction));
            let command = command.unwrap_or(&reply.step);
            let sent = saga::message_id(saga.id, &reply.step, reply.direction, reply.visit, reply.send);
            // A service in this database answers in the transaction of its effect, so this is the time of its work.
            let verb = if reply.service.is_none() { "process" } else { "reply" };
            (SpanKind::Consumer, format!("{verb} {command}"), SpanContext::of_id(trace, &sent).span)
        }
        Event::Signal(signal) => (SpanKind::Internal, format!("signal {}", signal.name), start),
        Event::TimerFired => (SpanKind::Internal, format!("timer {}", entry.step), start),
        Event::Operator(action) => (SpanKind::Internal, format!("operator {}", action.name()), start),
        Event::Poisoned(poisoned) => (SpanKind::Internal, format!("give up {}", poisoned.step), start),
    };
    let (parent, link) = parent_and_link(trace, cause, Some(own_parent));
    let mut attributes = about(saga.id, &saga.workflow, &entry.step, entry.visit);
    attributes.push(("saga.direction", entry.direction.name().to_owned()));
    attributes.push(("saga.event", entry.event.clone()));
    attributes.push(("saga.status", saga.status.name().to_owned()));
    attributes.extend(entry.worker.clone().map(|worker| ("saga.worker", worker)));
    Some(Span {
        context: SpanContext::of_id(trace, &format!("{}:{}", saga.id, saga.seq)),
        parent,
        link,
        kind,
        name,
        begun,
        ended: begun,
        attributes,
        error: error_of(event, saga),
    })
}

fn about(saga: Uuid, workflow: &str, step: &str, visit: i32) -> Vec<(&'static str, String)> {
    vec![
        ("saga.id", saga.to_string()),
        ("saga.workflow", workflow.to_owned()),
        ("saga.step", step.to_owned()),
        ("saga.visit", visit.to_string()),
    ]
}

/// A refusal by the rules of a service is no error.
fn error_of(event: &Event, after: &Saga) -> Option<String> {
    let error = match event {
        Event::Reply(reply) => reply.outcome.error(),
        Event::Poisoned(poisoned) => Some(poisoned.error.as_str()),
        _ => None,
    };
    error.or((after.status == Status::Stuck).then_some("stuck")).map(str::to_owned)
}

/// Exports a span for each command and each event of sagas that was published from `begun` on. `failed` are those that JetStream
/// did not take.
pub(super) fn record_published<'a>(
    commands: impl Iterator<Item = (&'a Command, bool)>,
    events: &[EventMessage],
    begun: SystemTime,
) {
    let ended = spans::now();
    for (command, is_published) in commands {
        let Some(exporter) = spans::exporter_of(command.trace) else { continue };
        let Command { saga_id, workflow, step, visit, direction, send, .. } = command;
        let mut attributes = about(*saga_id, workflow, step, *visit);
        attributes.push(("saga.direction", direction.name().to_owned()));
        attributes.push(("saga.resend_count", send.to_string()));
        attributes.push(("messaging.system", "nats".to_owned()));
        exporter.export(Span {
            context: SpanContext::of_id(command.trace, &command.message_id()),
            parent: Some(SpanContext::of_start(command.trace, *saga_id).span),
            link: None,
            kind: SpanKind::Producer,
            name: format!("send {}", command.subject),
            begun,
            ended,
            attributes,
            error: (!is_published).then(|| "JetStream did not take the command".to_owned()),
        });
    }
    for event in events {
        // The id of an event begins with its saga's.
        let saga = event.id.split(':').next().and_then(|saga| saga.parse::<Uuid>().ok());
        let (Some(context), Some(saga)) = (SpanContext::parse(&event.traceparent), saga) else { continue };
        let Some(exporter) = spans::exporter_of(context.trace) else { continue };
        exporter.export(Span {
            context,
            parent: Some(SpanContext::of_start(context.trace, saga).span),
            link: None,
            kind: SpanKind::Producer,
            name: format!("publish {}", event.name),
            begun,
            ended,
            attributes: vec![
                ("saga.id", saga.to_string()),
                ("event.id", event.id.clone()),
                ("messaging.system", "nats".to_owned()),
            ],
            error: None,
        });
    }
}
