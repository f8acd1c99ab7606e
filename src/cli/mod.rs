//! The command line: every role of the service, and what its operators do.
//!
//! What a command answers goes to standard output, as text for people or with `--json` for programs; logs and
//! complaints go to standard error. The exit code is 0 if all is well, 1 if the command found something wrong
//! or could not do its work, 2 if it was used wrongly.

mod up;
mod serve;
mod migrate;
pub mod audit;
mod sagas;
mod doctor;
mod queues;
mod concerts;
mod dates;
mod seat_ranges;
mod sales_report;
mod exports;
mod users;
mod webhooks;
mod workflows;
mod worker;
mod erd;
mod openapi;
mod keys;
mod servers;
pub mod signals;
pub mod output;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::config::{LogFormat, Settings};
use crate::telemetry;
use output::Output;

/// Sells seats once: a fair line, holds, points, tickets, and the saga engine under them
#[derive(Parser, Debug)]
#[command(name = "boxoffice", version, max_term_width = 110, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    /// Answer in JSON
    #[arg(long, global = true)]
    json: bool,
    #[command(flatten, next_help_heading = "Settings")]
    settings: Settings,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Run everything in one process, with a private Postgres and NATS where none is given
    Up(up::Arguments),
    /// Run some roles of the service against a given Postgres and NATS
    Serve(serve::Arguments),
    /// Bring the database's schema up to date
    Migrate,
    /// Judge the database: whether seats, tickets, points and sagas agree
    Audit(audit::Arguments),
    /// Look at sagas
    #[command(subcommand)]
    Saga(sagas::Command),
    /// Look at the lines and change how they move
    #[command(subcommand)]
    Queue(queues::Command),
    /// List and add concerts and their dates
    #[command(subcommand)]
    Concert(concerts::Command),
    /// Export all reservations, ledger entries, tickets or redemptions of one moment
    Export(exports::Arguments),
    /// Export all that is kept about a user, or forget the user's name and free texts
    #[command(subcommand)]
    User(users::Command),
    /// Look at webhook endpoints, add and repair them
    #[command(subcommand)]
    Webhook(webhooks::Command),
    /// Check workflow definitions and draw them
    #[command(subcommand)]
    Workflow(workflows::Command),
    /// Test a running worker against the worker protocol
    #[command(subcommand)]
    Worker(worker::Command),
    /// Make, list and revoke API keys
    #[command(subcommand)]
    Keys(keys::Command),
    /// Check the servers, the clock and the streams, and say what to do about what is wrong
    Doctor,
    /// Print the description of the REST API (OpenAPI 3.1)
    Openapi(openapi::Arguments),
    /// Draw the database's tables as a Mermaid diagram
    #[command(hide = true)]
    Erd,
}

/// How a command ended that could do its work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    Good,
    /// It found something wrong.
    Wrong,
}

/// The command was used wrongly; the message says how it is meant.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Misuse(pub String);

/// What every command gets.
struct Context {
    settings: Settings,
    output: Output,
}

/// Reads the program's arguments, runs the command and says how it ended.
pub async fn main() -> ExitCode {
    let cli = match parse(std::env::args_os()) {
        Ok(parsed) => parsed,
        // Help and version end with code 0, all else with the code of a misuse: clap knows which.
        Err(error) => error.exit(),
    };
    prepare(log_level(&cli.command), cli.settings.log_format);
    let context = Context { settings: cli.settings, output: Output::new(cli.json) };
    exit_code("boxoffice", run(cli.command, &context).await)
}

/// Starts logging and chooses the TLS provider. The tools call it too.
pub fn prepare(log_filter: &str, log_format: LogFormat) {
    telemetry::start_logging(log_filter, log_format);
    // An error says that there is a provider already, which is what is wanted.
    let _chosen = rustls::crypto::ring::default_provider().install_default();
}

/// The exit code of a command that ended like this; an error is written to standard error. The tools call it too.
pub fn exit_code(program: &str, ended: anyhow::Result<Ending>) -> ExitCode {
    match ended {
        Ok(Ending::Good) => ExitCode::SUCCESS,
        Ok(Ending::Wrong) => ExitCode::from(1),
        Err(error) => {
            output::complain(program, &error);
            ExitCode::from(if error.is::<Misuse>() { 2 } else { 1 })
        }
    }
}

/// Who acts, as the records of acts say it.
fn actor() -> String {
    format!("cli:{}", std::env::var("USER").unwrap_or_else(|_| "unknown".to_owned()))
}

fn parse(arguments: impl Iterator<Item = OsString>) -> Result<Cli, clap::Error> {
    Cli::try_parse_from(arguments)
}

async fn run(command: Command, context: &Context) -> anyhow::Result<Ending> {
    match command {
        Command::Up(arguments) => up::run(context, &arguments).await,
        Command::Serve(arguments) => serve::run(context, &arguments).await,
        Command::Migrate => migrate::run(context).await,
        Command::Audit(arguments) => audit::run(context, &arguments).await,
        Command::Saga(command) => sagas::run(context, command).await,
        Command::Queue(command) => queues::run(context, command).await,
        Command::Concert(command) => concerts::run(context, command).await,
        Command::Export(arguments) => exports::run(context, &arguments).await,
        Command::User(command) => users::run(context, command).await,
        Command::Webhook(command) => webhooks::run(context, command).await,
        Command::Workflow(command) => workflows::run(context, &command).await,
        Command::Worker(command) => worker::run(context, &command).await,
        Command::Keys(command) => keys::run(context, command).await,
        Command::Openapi(arguments) => openapi::run(context, &arguments),
        Command::Doctor => doctor::run(context).await,
        Command::Erd => erd::run(context).await,
    }
}

/// Services log what happens; the other commands only what goes wrong.
fn log_level(command: &Command) -> &'static str {
    match command {
        Command::Up(_) | Command::Serve(_) => "info,sqlx=warn,async_nats=warn,tokio_cron_scheduler=warn",
        _ => "error",
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_tree_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn settings_and_json_may_stand_behind_the_command() {
        let words = ["boxoffice", "saga", "list", "--json", "--data-dir", "/tmp/elsewhere"];
        let cli = parse(words.iter().map(OsString::from)).unwrap();
        assert!(cli.json);
        assert_eq!(cli.settings.servers.data_dir.to_str(), Some("/tmp/elsewhere"));
    }
}
