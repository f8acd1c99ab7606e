//! Commands that cannot be read, and one that makes the worker's function fail.

use std::time::Duration;

use async_nats::HeaderMap;
use async_nats::jetstream::message::PublishMessage;
use bytes::Bytes;
use saga_core::{Command, Outcome};
use saga_protocol::headers::{DIRECTION, VISIT, set};
use saga_protocol::{messages, subjects};

use crate::tester::{Ending, Tester, shown};
use crate::traffic::Ack;

/// How long the suite looks at what the worker does with a command that it cannot read.
const WATCH: Duration = Duration::from_secs(4);

pub(super) async fn poison(tester: &mut Tester) -> Ending {
    let mut all = Vec::new();
    for (what, change) in unreadable() {
        let saga = tester.saga();
        let command = tester.command(saga, 1);
        tester.traffic.lock().sending(command.message_id());
        let message = change(messages::command(&command).into_message());
        let subject = subjects::step(&tester.options.command);
        all.push((what, command, tester.publish(subject, message).await?));
    }
    let saga = tester.saga();
    let good = tester.command(saga, 1);
    tester.done(&good, "a command that cannot be read must not hold up the others").await?;
    tester.did(format!("sent {} commands that cannot be read, then one that can", all.len()));
    // What the worker gives back or answers is seen at once; silence takes the whole time.
    let about = [Ack::Taken, Ack::Again, Ack::Never];
    let sequences: Vec<u64> = all.iter().map(|(.., sequence)| *sequence).collect();
    let looked = |seen: &crate::traffic::Seen| {
        sequences.iter().all(|sequence| seen.said(*sequence, &about)).then_some(())
    };
    tester.traffic.wait(WATCH, looked).await;
    for (what, command, sequence) in all {
        judge(tester, what, &command, sequence);
        tester.effects(command.saga_id, 0, what).await;
    }
    failing(tester).await
}

/// A context that makes the worker's function fail, if the user names one.
async fn failing(tester: &mut Tester) -> Ending {
    let Some(context) = tester.options.contexts.poison.clone() else {
        tester.did("no context that makes the worker fail was given (--poison)");
        return Ok(());
    };
    let saga = tester.saga();
    let command = tester.command_with(saga, 1, &context);
    let sequence = tester.send(&command).await?;
    let (id, about) = (command.message_id(), [Ack::Taken, Ack::Again, Ack::Never]);
    let looked = |seen: &crate::traffic::Seen| {
        (!seen.replies(&id).is_empty() || seen.said(sequence, &about)).then_some(())
    };
    tester.traffic.wait(WATCH, looked).await;
    judge(tester, "a context that the worker cannot handle", &command, sequence);
    tester.effects(saga, 0, "after a context that the worker cannot handle").await;
    let saga = tester.saga();
    let good = tester.command(saga, 1);
    tester.done(&good, "a command that fails must not hold up the others").await?;
    tester.did("sent a command that makes the worker fail, then a good one");
    Ok(())
}

/// The only good answers are `failed`, and none at all without an acknowledgement.
fn judge(tester: &mut Tester, what: &str, command: &Command, sequence: u64) {
    let replies = tester.replies(command);
    let is_failed = |reply: &Outcome| matches!(reply, Outcome::Failed { .. } | Outcome::Unknown { .. });
    if let Some(reply) = replies.iter().find(|reply| !is_failed(reply)) {
        tester.wrong(format!("{what}: it was answered {}", shown(reply)));
    }
    let (taken, never) = {
        let seen = tester.traffic.lock();
        (seen.said(sequence, &[Ack::Taken]), seen.said(sequence, &[Ack::Never]))
    };
    if replies.is_empty() && (taken || never) {
        tester.wrong(format!(
            "{what}: it was {} without a reply, so the engine learns nothing of it; say `failed`, or do not acknowledge it",
            if taken { "acknowledged" } else { "terminated (+TERM)" }
        ));
    }
}

/// A way to make a good message unreadable.
type Change = fn(async_nats::Message) -> PublishMessage;

fn unreadable() -> [(&'static str, Change); 5] {
    [
        ("a body that is not JSON", |message| with_body(message, b"{")),
        ("a body of another version", |message| {
            with_body(message, br#"{"version":99,"workflow":"worker_test","context":{}}"#)
        }),
        ("a header Visit that is no number", |message| with_header(message, VISIT, "one")),
        ("a header Direction that is neither", |message| with_header(message, DIRECTION, "sideways")),
        ("a command without headers", |message| PublishMessage::build().payload(message.payload)),
    ]
}

fn with_body(message: async_nats::Message, body: &'static [u8]) -> PublishMessage {
    PublishMessage::build().headers(message.headers.unwrap_or_default()).payload(Bytes::from_static(body))
}

fn with_header(message: async_nats::Message, name: &'static str, value: &'static str) -> PublishMessage {
    let mut headers: HeaderMap = message.headers.unwrap_or_default();
    set(&mut headers, name, value);
    PublishMessage::build().headers(headers).payload(message.payload)
}
