//! `demo`: an on-sale over HTTP, against a service of its own or a given one, and the verdict.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::CommandFactory;
use clap::parser::ValueSource;
use tokio_util::sync::CancellationToken;

use super::{Cli, Context, Ending, audit, signals};
use crate::audit::Verdict;
use crate::clock::Clock;
use crate::demo::{self, Outcome, Plan, Progress, Service, Stage};
use crate::store;

/// What the demo's own service is told unless the user says otherwise: holds so short that some run out, and a
/// line that moves so slowly that it forms.
const PACE: [(&str, &str, &str); 3] = [
    ("hold_seconds", "BOXOFFICE_HOLD_SECONDS", "4"),
    ("queue_max_active", "BOXOFFICE_QUEUE_MAX_ACTIVE", "120"),
    ("queue_admit_per_minute", "BOXOFFICE_QUEUE_ADMIT_PER_MINUTE", "3600"),
];

#[derive(clap::Args, Debug)]
pub(super) struct Arguments {
    /// How many buyers come
    #[arg(long, default_value_t = 400, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    buyers: u32,
    /// The same seed makes the same buyers with the same wishes
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Over how many seconds they arrive
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u64).range(0..=3_600))]
    arrivals_seconds: u64,
    /// How many seconds after joining the line whoever has no seats yet goes home
    #[arg(long, default_value_t = 9, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    patience_seconds: u64,
    /// A running service in local mode, instead of one of the demo's own
    #[arg(long)]
    url: Option<String>,
    /// An `admin` key of that service: the on-sale gets a concert of its own
    #[arg(long, env = "BOXOFFICE_ADMIN_KEY", hide_env_values = true)]
    admin_key: Option<String>,
}

pub(super) async fn run(context: &Context, arguments: &Arguments) -> anyhow::Result<Ending> {
    let stop = signals::stop_token()?;
    let outcome = match &arguments.url {
        Some(url) => play(context, arguments, &given_stage(context, arguments, url)?, &stop).await?,
        None => {
            let Some(played) = stop.run_until_cancelled(start(context)).await else {
                return Err(demo::DemoError::Stopped.into());
            };
            let service = played?;
            let played = match own_stage(context, arguments, &service) {
                Ok(stage) => play(context, arguments, &stage, &stop).await,
                Err(error) => Err(error),
            };
            service.stop().await;
            played?
        }
    };
    context.output.answer(&outcome, text)?;
    Ok(if outcome.verdict == Verdict::Good { Ending::Good } else { Ending::Wrong })
}

async fn play(
    context: &Context,
    arguments: &Arguments,
    stage: &Stage,
    stop: &CancellationToken,
) -> anyhow::Result<Outcome> {
    let plan = Plan {
        buyers: arguments.buyers as usize,
        seed: arguments.seed,
        arrivals: Duration::from_secs(arguments.arrivals_seconds),
        patience: Duration::from_secs(arguments.patience_seconds),
    };
    context.output.tell(&format!("{} buyers come to {}.", plan.buyers, stage.url));
    let progress = Progress::new(plan.buyers, context.output.is_json());
    Ok(demo::play(plan, stage, Clock::default().now(), &progress, stop).await?)
}

async fn start(context: &Context) -> anyhow::Result<Service> {
    context.output.tell("Starting a service with a Postgres and a NATS of its own.");
    let mut arguments = passed_on(context);
    let data_dir = if is_given(context, "data_dir") {
        context.settings.servers.data_dir.clone()
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
    let command = Cli::command();
    let settings = command
        .get_arguments()
        .filter(|setting| setting.get_id() != "json" && setting.get_id() != "data_dir");
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

fn own_stage(context: &Context, arguments: &Arguments, service: &Service) -> anyhow::Result<Stage> {
    let addresses = service.addresses();
    let database = store::open(&addresses.database_url, context.settings.servers.database_connections)?;
    Ok(Stage {
        url: format!("http://{}", addresses.http),
        admin_key: arguments.admin_key.clone(),
        database: Some(database),
    })
}

/// A given service is audited if its database can be found.
fn given_stage(context: &Context, arguments: &Arguments, url: &str) -> anyhow::Result<Stage> {
    let database = match context.database_url() {
        Ok(address) => Some(store::open(&address, context.settings.servers.database_connections)?),
        Err(_) => {
            context.output.tell("No database was given and none found: there will be no audit.");
            None
        }
    };
    Ok(Stage { url: url.to_owned(), admin_key: arguments.admin_key.clone(), database })
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
