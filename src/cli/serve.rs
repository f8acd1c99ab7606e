//! `serve`: some roles of the service, against a given Postgres and NATS.

use anyhow::bail;
use serde_json::json;

use super::{Context, Ending, signals};
use crate::app::{self, App, Role};
use crate::config::{ADMIN_LISTEN, Settings};
use dev_servers::secrets::Secrets;

#[derive(clap::Args, Debug)]
pub(super) struct Arguments {
    /// What this process does, separated by commas
    #[arg(long, value_delimiter = ',', required = true)]
    role: Vec<Role>,
    /// Bring the database's schema up to date first, as `boxoffice migrate` does
    #[arg(long, env = "BOXOFFICE_MIGRATE")]
    migrate: bool,
    /// Stop when standard input ends: the process that started this one is gone then
    #[arg(long, hide = true)]
    until_stdin_ends: bool,
}

pub(super) async fn run(context: &Context, arguments: &Arguments) -> anyhow::Result<Ending> {
    let stopped = signals::stopped(arguments.until_stdin_ends)?;
    tokio::pin!(stopped);
    let mut settings = context.settings.clone();
    settings.servers.database_url = Some(context.database_url()?);
    settings.servers.nats_url = Some(context.nats_url()?);
    settings.http.admin_listen.get_or_insert(ADMIN_LISTEN);
    if settings.http.local {
        // Local mode keeps its secrets in the data directory, where every instance of it finds them.
        let secrets = Secrets::keep(&settings.servers.data_dir)?;
        settings.http.access_secret.get_or_insert(secrets.access_secret);
        settings.http.queue_secret.get_or_insert(secrets.queue_secret);
        settings.http.ticket_secret.get_or_insert(secrets.ticket_secret);
    }
    let app = tokio::select! {
        started = start(&settings, arguments) => started?,
        () = &mut stopped => return Ok(Ending::Good),
    };
    let urls =
        [app.address, app.admin_address].map(|address| address.map(|address| format!("http://{address}")));
    context.output.answer(&json!({ "url": urls[0], "admin_url": urls[1] }), |_| describe(&urls))?;
    let dead = tokio::select! {
        () = &mut stopped => None,
        task = app.task_died() => Some(task),
    };
    app.stop().await;
    match dead {
        None => Ok(Ending::Good),
        Some(task) => {
            bail!("the background task \"{task}\" is dead; see the log, and start this process again")
        }
    }
}

/// Where the process answers, for people.
fn describe([public, admin]: &[Option<String>; 2]) -> String {
    let public = public.iter().map(|url| format!("Box Office answers at {url}"));
    let admin = admin.iter().map(|url| format!("Operators and monitoring: {url}"));
    public.chain(admin).collect::<Vec<String>>().join("\n")
}

async fn start(settings: &Settings, arguments: &Arguments) -> anyhow::Result<App> {
    if arguments.migrate {
        app::migrate(settings).await?;
    }
    App::start(settings, &arguments.role).await
}
