//! `worker test`: holds a running worker, in any language, against the worker protocol.

use std::time::Duration;

use serde_json::{Map, Value};
use worker_conformance::{Contexts, Options};

use super::{Context, Ending};
use crate::bus::messages::WORKER_TEST_STEP;
use crate::clock::Clock;
use crate::ids;

#[derive(clap::Subcommand, Debug)]
pub(super) enum Command {
    /// Send a worker duplicates, late commands, undos, commands it cannot read and more, and say what it does wrong
    ///
    /// The worker runs already, and takes its commands from the same NATS. Use a server for tests: the worker does what it is asked,
    /// for made-up sagas. At the end it is asked to undo all of it. A case that needs an option that is not given is skipped.
    #[command(after_long_help = EXAMPLE)]
    Test(Arguments),
}

const EXAMPLE: &str = "\
Example:
  boxoffice worker test --command printer.print --undo printer.shred --input '{\"paper\": \"A4\"}' \\
      --rejected '{\"paper\": \"A0\"}' --count 'sqlite3 printer.db \"select count(*) from badges where saga = '\\''$SAGA'\\''\"' \\
      --restart 'sh restart.sh'";

#[derive(clap::Args, Debug)]
pub(super) struct Arguments {
    /// The command that the worker serves, for instance `printer.print`
    #[arg(long, value_name = "SERVICE.VERB", value_parser = command)]
    command: String,
    /// Its undo; without it the only other command that the worker announces
    #[arg(long, value_name = "SERVICE.VERB", value_parser = command)]
    undo: Option<String>,
    /// A context that the worker does, as a JSON object: the input and earlier outputs of a saga
    #[arg(long, value_name = "JSON", default_value = "{}", value_parser = object)]
    input: Map<String, Value>,
    /// A context that the worker rejects
    #[arg(long, value_name = "JSON", value_parser = object)]
    rejected: Option<Map<String, Value>>,
    /// A context that the worker answers `failed` the first time, and does the next time
    #[arg(long, value_name = "JSON", value_parser = object)]
    failed: Option<Map<String, Value>>,
    /// A context that the worker answers `unknown` the first time, and does the next time
    #[arg(long, value_name = "JSON", value_parser = object)]
    unknown: Option<Map<String, Value>>,
    /// A context that the worker does, and needs longer for than its consumer's acknowledgement wait
    #[arg(long, value_name = "JSON", value_parser = object)]
    slow: Option<Map<String, Value>>,
    /// A context that makes the worker's function end with an error
    #[arg(long, value_name = "JSON", value_parser = object)]
    poison: Option<Map<String, Value>>,
    /// A shell command that prints how many effects of the saga $SAGA there are
    #[arg(long, value_name = "SHELL")]
    count: Option<String>,
    /// A shell command that kills the worker (kill -9) and starts it again in the background; its output is discarded
    #[arg(long, value_name = "SHELL")]
    restart: Option<String>,
    /// The step that the commands name, for a worker that looks at it. An engine on the same NATS ignores replies about the default and
    /// parks those about another one
    #[arg(long, value_name = "NAME", default_value = WORKER_TEST_STEP)]
    step: String,
    /// How long one command may take at most
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
}

pub(super) async fn run(context: &Context, command: &Command) -> anyhow::Result<Ending> {
    let Command::Test(arguments) = command;
    let bus = context.bus().await?;
    let options = arguments.options();
    let report = worker_conformance::run(&bus.client, &bus.jetstream, &options, |case| {
        context.output.sentence(&format!("{}: {:?}", case.name, case.verdict).to_lowercase());
    });
    let report = report.await?;
    context.output.answer(&report, ToString::to_string)?;
    Ok(if report.is_good() { Ending::Good } else { Ending::Wrong })
}

impl Arguments {
    fn options(&self) -> Options {
        Options {
            command: self.command.clone(),
            undo: self.undo.clone(),
            step: self.step.clone(),
            contexts: Contexts {
                input: self.input.clone(),
                rejected: self.rejected.clone(),
                failed: self.failed.clone(),
                unknown: self.unknown.clone(),
                slow: self.slow.clone(),
                poison: self.poison.clone(),
            },
            count: self.count.clone(),
            restart: self.restart.clone(),
            timeout: Duration::from_secs(self.seconds),
            new_id: ids::new,
            now: || Clock::default().now(),
        }
    }
}

/// A command as a definition names it: a service and a verb.
fn command(text: &str) -> Result<String, String> {
    let is_name = |part: &str| {
        !part.is_empty() && part.chars().all(|letter| letter.is_ascii_alphanumeric() || "-_".contains(letter))
    };
    match text.split_once('.') {
        Some((service, verb)) if is_name(service) && is_name(verb) => Ok(text.to_owned()),
        _ => Err("a command is `service.verb`, of letters, digits, - and _".to_owned()),
    }
}

fn object(text: &str) -> Result<Map<String, Value>, String> {
    serde_json::from_str(text).map_err(|error| format!("it is not a JSON object: {error}"))
}
