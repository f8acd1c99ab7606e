//! `workflow`: checks definitions, draws them, deploys them, and lists what is deployed.

use anyhow::Context as _;
use serde_json::json;

use super::{Context, Ending, Misuse};
use crate::saga::WorkflowRegistry;
use crate::{store, workflows};

mod check;
mod deploy;
mod list;
mod dry_run;
mod drawing;
mod graph;

#[derive(clap::Subcommand, Debug)]
pub(super) enum Command {
    /// Walk through all that can happen to the sagas of every definition, and say what is wrong
    Check(check::Arguments),
    /// Check a definition and deploy it: new sagas may begin with it at once, on every process
    Deploy(deploy::Arguments),
    /// List the deployed versions, those that were registered last first
    List(list::Wanted),
    /// Show a deployed definition, who deployed it, and what the checker found
    Show(list::Version),
    /// End a version: no new sagas begin with it, those under way go on
    Retire(deploy::Retired),
    /// Draw a workflow
    Graph {
        /// The workflow, for instance `booking`
        name: String,
        /// This version of it, instead of the newest
        #[arg(long)]
        version: Option<i32>,
        /// A Mermaid state diagram, or a picture
        #[arg(long, value_enum, default_value_t = Format::Mermaid)]
        format: Format,
    },
}

/// What a workflow is drawn as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Format {
    Mermaid,
    Svg,
}

pub(super) async fn run(context: &Context, command: &Command) -> anyhow::Result<Ending> {
    match command {
        Command::Check(arguments) => check::run(context, arguments).await,
        Command::Deploy(arguments) => deploy::run(context, arguments).await,
        Command::List(wanted) => list::run(context, wanted).await,
        Command::Show(version) => list::show(context, version).await,
        Command::Retire(retired) => deploy::retire(context, retired).await,
        Command::Graph { name, version, format } => draw(context, name, *version, *format).await,
    }
}

async fn draw(context: &Context, name: &str, version: Option<i32>, format: Format) -> anyhow::Result<Ending> {
    let registry = known(context, name, version).await?;
    let found = version.map_or_else(|| registry.latest(name), |version| registry.get(name, version));
    let definition = found.ok_or_else(|| unknown(name, version, &registry))?;
    let definition = definition.as_ref();
    let (kind, text) = match format {
        Format::Mermaid => ("mermaid", graph::mermaid(definition)),
        Format::Svg => ("svg", drawing::svg(definition)),
    };
    let drawn = json!({ "workflow": definition.name, "version": definition.version, kind: text });
    context.output.answer(&drawn, |_| text.clone())?;
    Ok(Ending::Good)
}

/// The definitions of this release and of --workflows, and the one that is asked for, if it is deployed.
async fn known(context: &Context, name: &str, version: Option<i32>) -> anyhow::Result<WorkflowRegistry> {
    let texts = workflows::with_folder(context.settings.engine.workflows.as_deref());
    let registry = workflows::registry(texts.context("the definitions cannot be read")?);
    let is_here =
        version.map_or_else(|| registry.latest(name), |version| registry.get(name, version)).is_some();
    if !is_here && let Ok(pool) = context.database().await {
        match version {
            Some(version) => {
                store::definitions::load(&pool, &registry, [(name, version)].into_iter()).await?
            }
            None => store::definitions::reload(&pool, &registry).await?,
        }
    }
    Ok(registry)
}

fn unknown(name: &str, version: Option<i32>, registry: &WorkflowRegistry) -> Misuse {
    let wanted = version.map_or(name.to_owned(), |version| format!("{name} {version}"));
    let versions: Vec<i32> =
        registry.all().iter().filter(|other| other.name == name).map(|other| other.version).collect();
    let known: Vec<String> = match version {
        Some(_) if !versions.is_empty() => versions.iter().map(|known| format!("{name} {known}")).collect(),
        _ => {
            let mut names: Vec<String> = registry.all().iter().map(|other| other.name.clone()).collect();
            names.dedup();
            names
        }
    };
    Misuse(format!("there is no workflow {wanted}; there are {}", known.join(", ")))
}
