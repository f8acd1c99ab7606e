//! `up`: everything in one process, with private servers where none are given.

use anyhow::{Context as _, anyhow};
use serde_json::json;

use super::{Context, Ending, signals};
use crate::app::{self, App, Listening, Role};
use crate::config::{Settings, Switch};
use crate::sample_concerts;
use crate::store;
use dev_servers::{Given, Local};

#[derive(clap::Args, Debug)]
pub(super) struct Arguments {
    /// Remove the data directory in the end: for rehearsals
    #[arg(long, hide = true)]
    throwaway: bool,
    /// Stop when standard input ends: the process that started this one is gone then
    #[arg(long, hide = true)]
    until_stdin_ends: bool,
}

pub(super) async fn run(context: &Context, arguments: &Arguments) -> anyhow::Result<Ending> {
    let stopped = signals::stopped(arguments.until_stdin_ends)?;
    tokio::pin!(stopped);
    let servers = &context.settings.servers;
    let given = Given { database_url: servers.database_url.clone(), nats_url: servers.nats_url.clone() };
    let mut local = dev_servers::start(&servers.data_dir, given).await?;
    let ended = tokio::select! {
        served = serve(context, &local) => match served {
            Ok(app) => {
                let ended = tokio::select! {
                    () = &mut stopped => Ok(Ending::Good),
                    error = local.server_ended() => Err(error.into()),
                    task = app.task_died() => Err(anyhow!("the background task \"{task}\" is dead; see the log")),
                };
                context.output.sentence("Stopping.");
                app.stop().await;
                ended
            }
            Err(error) => Err(error),
        },
        () = &mut stopped => Ok(Ending::Good),
    };
    if arguments.throwaway {
        local.discard().await?;
    } else {
        local.stop().await;
    }
    ended
}

/// Starts every role, loads sample concerts, and prints the addresses.
async fn serve(context: &Context, local: &Local) -> anyhow::Result<App> {
    let settings = settings(&context.settings, local);
    app::migrate(&settings).await?;
    load_concerts(&settings, &local.database_url).await.context("the concerts could not be loaded")?;
    // Other commands find this process before it answers that it is ready.
    let announce = |listening: Listening| {
        let http = listening.public.context("the api role has no address")?;
        Ok(local.publish(http, listening.admin.filter(|admin| *admin != http))?)
    };
    let app = App::start_announced(&settings, &Role::ALL, &announce).await?;
    let http = app.address.context("the api role has no address")?;
    let admin = app.admin_address.unwrap_or(http);
    let answer = json!({
        "url": format!("http://{http}"),
        "admin_url": format!("http://{admin}"),
        "console": format!("http://{admin}/console/"),
        "docs": format!("http://{http}/docs"),
        "data_dir": local.dir(),
        "pid": std::process::id(),
    });
    let shop = match settings.http.shop {
        Some(Switch::On) => format!("  Shop      http://{http}/\n"),
        _ => String::new(),
    };
    context.output.answer(&answer, |_| {
        format!(
            "Box Office is open.\n{shop}  REST      http://{http}/v1/concerts\n  API docs  http://{http}/docs\n  \
             Console   http://{admin}/console/\n  \
             Operators http://{admin}/metrics, /readyz, /v1/ops, /v1/admin\n  \
             Postgres  {}\n  NATS      {}\n  Data      {}\nPress Ctrl-C to stop.",
            without_password(&local.database_url),
            without_password(&local.nats_url),
            local.dir().display(),
        )
    })?;
    Ok(app)
}

async fn load_concerts(settings: &Settings, database_url: &str) -> store::Result<()> {
    let pool = store::open(database_url, 1)?;
    let (now, queue) = (store::now(&pool).await?, &settings.queue);
    sample_concerts::load(&pool, now, queue.queue_max_active, queue.queue_admit_per_minute).await?;
    pool.close().await;
    Ok(())
}

/// The settings as given, completed by what the data directory knows. `up` is local mode.
fn settings(given: &Settings, local: &Local) -> Settings {
    let mut settings = given.clone();
    settings.servers.database_url = Some(local.database_url.clone());
    settings.servers.nats_url = Some(local.nats_url.clone());
    settings.http.local = true;
    settings.http.shop.get_or_insert(Switch::On);
    settings.http.access_secret.get_or_insert_with(|| local.secrets.access_secret.clone());
    settings.http.queue_secret.get_or_insert_with(|| local.secrets.queue_secret.clone());
    settings.http.ticket_secret.get_or_insert_with(|| local.secrets.ticket_secret.clone());
    settings
}

fn without_password(address: &str) -> String {
    let Ok(mut url) = url::Url::parse(address) else {
        return String::new();
    };
    if url.password().is_some() {
        // Addresses of servers have a host, so this cannot fail.
        let _hidden = url.set_password(Some("…"));
    }
    url.to_string().replace("%E2%80%A6", "…")
}
