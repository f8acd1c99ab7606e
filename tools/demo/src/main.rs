//! `boxoffice-demo`: an on-sale over HTTP, against a service of its own or a given one, and the verdict.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use boxoffice::audit::Verdict;
use boxoffice::cli::output::Output;
use boxoffice::cli::{self, Ending, audit, signals};
use boxoffice::clock::Clock;
use boxoffice::config::Settings;
use boxoffice::store;
use boxoffice_demo::{DemoError, Outcome, Plan, Progress, Service, Stage};
use clap::parser::ValueSource;
use clap::{ArgMatches, Args, CommandFactory, FromArgMatches, Parser};
use dev_servers::addresses;
use tokio_util::sync::CancellationToken;

/// The service runs in this program too, with the allocator that it has in its own.
#[global_allocator]
static MEMORY: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Settings of the demo's own service, unless the user gives others: holds so short that some run out, and a line that moves
/// so slowly that it forms.
const PACE: [(&str, &str, &str); 3] = [
    ("hold_seconds", "BOXOFFICE_HOLD_SECONDS", "4"),
    ("queue_max_active", "BOXOFFICE_QUEUE_MAX_ACTIVE", "120"),
    ("queue_admit_per_minute", "BOXOFFICE_QUEUE_ADMIT_PER_MINUTE", "3600"),
];

/// Plays an on-sale: hundreds of buyers, far fewer seats, and the audit's verdict
#[derive(Parser, Debug)]
#[command(name = "boxoffice-demo", version, max_term_width = 110)]
struct Arguments {
    /// How many buyers come
    #[arg(long, default_value_t = 400, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    buyers: u32,
    /// The same seed makes the same buyers with the same wishes
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Over how many seconds they arrive
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u64).range(0..=3_600))]
    arrivals_seconds: u64,
    /// How many seconds after joining the line a buyer without seats leaves
    #[arg(long, default_value_t = 9, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    patience_seconds: u64,
    /// A running service in local mode, instead of one of the demo's own
    #[arg(long)]
    url: Option<String>,
    /// An `admin` key of that service: the on-sale gets a concert of its own
    #[arg(long, env = "BOXOFFICE_ADMIN_KEY", hide_env_values = true)]
    admin_key: Option<String>,
    /// Answer in JSON
    #[arg(long)]
    json: bool,
    /// Settings of the demo's own service
    #[command(flatten, next_help_heading = "Settings")]
    settings: Settings,
}

/// The arguments, how they were given, and where answers go.
struct Context {
    arguments: Arguments,
    given: ArgMatches,
    output: Output,
}

#[tokio::main]
async fn main() -> ExitCode {
    // The demo's own service is this program, so that it is never an older build.
    if std::env::args_os().nth(1).is_some_and(|first| first == boxoffice_demo::UP) {
        return cli::main().await;
    }
    let given = Arguments::command().get_matches();
    let arguments = match Arguments::from_arg_matches(&given) {
        Ok(arguments) => arguments,
        Err(error) => error.exit(),
    };
    cli::prepare("error", arguments.settings.log_format);
    let output = Output::new(arguments.json);
    cli::exit_code("boxoffice-demo", run(&Context { arguments, given, output }).await)
}

async fn run(context: &Context) -> anyhow::Result<Ending> {
    let stop = signals::stop_token()?;
    let outcome = match &context.arguments.url {
        Some(url) => play(context, &given_stage(context, url)?, &stop).await?,
        None => {
            let Some(started) = stop.run_until_cancelled(start(context)).await else {
                return Err(DemoError::Stopped.into());
            };
            let service = started?;
            let played = match own_stage(context, &service) {
                Ok(stage) => play(context, &stage, &stop).await,
                Err(error) => Err(error),
            };
            service.stop().await;
            played?
        }
    };
    context.output.answer(&outcome, text)?;
    Ok(if outcome.verdict == Verdict::Good { Ending::Good } else { Ending::Wrong })
}

async fn play(context: &Context, stage: &Stage, stop: &CancellationToken) -> anyhow::Result<Outcome> {
    let arguments = &context.arguments;
    let plan = Plan {
        buyers: arguments.buyers as usize,
        seed: arguments.seed,
        arrivals: Duration::from_secs(arguments.arrivals_seconds),
        patience: Duration::from_secs(arguments.patience_seconds),
    };
    context.output.sentence(&format!("{} buyers come to {}.", plan.buyers, stage.url));
    let progress = Progress::new(plan.buyers, arguments.json);
    Ok(boxoffice_demo::play(plan, stage, Clock::default().now(), &progress, stop).await?)
}

async fn start(context: &Context) -> anyhow::Result<Service> {
    context.output.sentence("Starting a service with a Postgres and a NATS of its own.");
    let mut arguments = passed_on(context);
    let data_dir = if is_given(context, "data_dir") {
        context.arguments.settings.servers.data_dir.clone()
    } else {
        arguments.push("--throwaway".into());
        scratch()
    };
    if !is_given(context, "listen") {
        arguments.push("--listen=127.0.0.1:0".into());
    }
    let mut environment = Vec::new();
    for (setting, variable, value) in PACE {
        if !is_given(context, setting) {
            environment.push((variable, value.to_owned()));
        }
    }
    Ok(Service::start(&data_dir, &arguments, &environment).await?)
}

fn scratch() -> PathBuf {
    std::env::temp_dir().join(format!("boxoffice-demo-{}", std::process::id()))
}

fn is_given(context: &Context, setting: &str) -> bool {
    context.given.value_source(setting).is_some_and(|source| source != ValueSource::DefaultValue)
}

/// Settings that were given as flags, as flags for the service; environment variables it inherits.
fn passed_on(context: &Context) -> Vec<OsString> {
    let command = Settings::augment_args(clap::Command::new("settings"));
    let settings = command.get_arguments().filter(|setting| setting.get_id() != "data_dir");
    let mut flags = Vec::new();
    for setting in settings {
        let id = setting.get_id().as_str();
        if context.given.try_get_raw(id).is_err()
            || context.given.value_source(id) != Some(ValueSource::CommandLine)
        {
            continue;
        }
        for value in context.given.get_raw(id).into_iter().flatten() {
            let mut flag = OsString::from(format!("--{}=", setting.get_long().unwrap_or(id)));
            flag.push(value);
            flags.push(flag);
        }
    }
    flags
}

fn own_stage(context: &Context, service: &Service) -> anyhow::Result<Stage> {
    let addresses = service.addresses();
    let database =
        store::open(&addresses.database_url, context.arguments.settings.servers.database_connections)?;
    Ok(Stage {
        url: format!("http://{}", addresses.http),
        admin_key: context.arguments.admin_key.clone(),
        database: Some(database),
    })
}

/// A given service is audited if its database can be found.
fn given_stage(context: &Context, url: &str) -> anyhow::Result<Stage> {
    let servers = &context.arguments.settings.servers;
    let running = || addresses::find(&servers.data_dir).map(|found| found.database_url);
    let database = match servers.database_url.clone().or_else(running) {
        Some(address) => {
            Some(store::open(&address, context.arguments.settings.servers.database_connections)?)
        }
        None => {
            context.output.sentence("No database was given and none found: there will be no audit.");
            None
        }
    };
    Ok(Stage { url: url.to_owned(), admin_key: context.arguments.admin_key.clone(), database })
}

fn text(outcome: &Outcome) -> String {
    let mut lines = vec![outcome.tables()];
    for complaint in outcome.complaints() {
        lines.push(format!("unexpected: {complaint}"));
    }
    lines.push(match &outcome.audit {
        Some(report) => audit::text(report),
        None => "Not audited.".to_owned(),
    });
    let verdict = match outcome.verdict {
        Verdict::Good => "good",
        Verdict::Broken => "BROKEN",
    };
    lines.push(format!(
        "The on-sale took {} s, was audited {} times and is {verdict}: {} answers were unexpected.",
        outcome.seconds, outcome.audits, outcome.surprises
    ));
    lines.join("\n")
}
