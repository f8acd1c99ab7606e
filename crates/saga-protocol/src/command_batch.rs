//! Commands of one batch for one service in the engine's own database, as one message.
//!
//! Such a service takes everything from the saga's row, so the message names only the fence of each command. Commands for
//! services with a database of their own travel alone, see [`crate::messages`].

#![warn(clippy::arithmetic_side_effects)] // numbers from outside

use std::borrow::Cow;
use std::sync::Arc;

use async_nats::HeaderMap;
use async_nats::jetstream::message::PublishMessage;
use saga_core::{Command, Direction, jsonb};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::headers::{ITEMS, Malformed, header, set};
use crate::messages::{VERSION, check_version, read_command};
use crate::{Outgoing, subjects};

/// Most commands of one message.
pub const COMMANDS_MAX: usize = 256;

#[derive(Serialize, Deserialize)]
struct Body<'a> {
    version: u32,
    workflow: Cow<'a, str>,
    step: Cow<'a, str>,
    direction: Direction,
    /// Saga, visit and send of each.
    commands: Vec<(Uuid, i32, i32)>,
}

/// Whether two commands can travel in one message.
pub fn fit_together(one: &Command, other: &Command) -> bool {
    one.subject == other.subject
        && one.step == other.step
        && one.direction == other.direction
        && one.workflow == other.workflow
}

/// A message with these commands, at least one, all of which [`fit_together`].
pub fn message(commands: &[Command]) -> Outgoing {
    let first = &commands[0];
    let mut headers = HeaderMap::new();
    set(&mut headers, ITEMS, commands.len().to_string());
    let body = Body {
        version: VERSION,
        workflow: Cow::Borrowed(&first.workflow),
        step: Cow::Borrowed(&first.step),
        direction: first.direction,
        commands: commands.iter().map(|command| (command.saga_id, command.visit, command.send)).collect(),
    };
    let payload = serde_json::to_vec(&body).expect("the body has string keys and no failing parts");
    let message = PublishMessage::build().headers(headers).payload(payload.into());
    Outgoing { subject: subjects::step(&first.subject), message }
}

/// Whether a message carries several commands.
pub fn is_batch(message: &async_nats::Message) -> bool {
    header(message, ITEMS).is_some()
}

/// Reads the commands of a message: several, or the one of a message that is no batch.
///
/// # Errors
/// If the message is not of the contract, or has no commands, or more than [`COMMANDS_MAX`].
pub fn read(message: &async_nats::Message) -> Result<Vec<Command>, Malformed> {
    if !is_batch(message) {
        return Ok(vec![read_command(message)?]);
    }
    let body: Body = serde_json::from_slice(&message.payload)?;
    check_version(body.version)?;
    for text in [&body.step, &body.workflow] {
        jsonb::check_text(text).map_err(|error| error.within("step or workflow"))?;
    }
    if body.commands.is_empty() || body.commands.len() > COMMANDS_MAX {
        return Err(Malformed::Count { given: body.commands.len(), most: COMMANDS_MAX });
    }
    let subject = subjects::command(&message.subject);
    let commands = body.commands.into_iter().map(|(saga_id, visit, send)| Command {
        saga_id,
        workflow: body.workflow.to_string(),
        subject: subject.to_owned(),
        step: body.step.to_string(),
        direction: body.direction,
        visit,
        send,
        deadline: None,
        reason: None,
        context: Arc::default(),
        trace: saga_id,
    });
    Ok(commands.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command(saga: u128, step: &str) -> Command {
        let saga_id = Uuid::from_u128(saga);
        Command {
            saga_id,
            workflow: "party".to_owned(),
            subject: "printer.print".to_owned(),
            step: step.to_owned(),
            direction: Direction::Do,
            visit: 2,
            send: 1,
            deadline: None,
            reason: None,
            context: Arc::default(),
            trace: saga_id,
        }
    }

    #[test]
    fn commands_come_out_as_they_went_in() {
        let commands = [command(1, "print"), command(2, "print")];
        let message = message(&commands).into_message();
        assert!(is_batch(&message));
        assert_eq!(read(&message).unwrap(), commands);
        assert!(
            fit_together(&commands[0], &commands[1]) && !fit_together(&commands[0], &command(3, "other"))
        );
    }

    #[test]
    fn single_command_is_read_too() {
        let message = crate::messages::command(&command(1, "print")).into_message();
        assert!(!is_batch(&message));
        let read = read(&message).unwrap();
        assert_eq!((read.len(), read[0].saga_id), (1, Uuid::from_u128(1)));
    }

    #[test]
    fn too_many_or_no_commands_are_refused() {
        let many = vec![command(1, "print"); COMMANDS_MAX + 1];
        let error = read(&message(&many).into_message()).unwrap_err().to_string();
        assert!(error.contains("256"), "{error}");
        let mut none = message(&many[..1]).into_message();
        none.payload = r#"{"version":1,"workflow":"a","step":"b","direction":"do","commands":[]}"#.into();
        assert!(read(&none).is_err());
    }
}
