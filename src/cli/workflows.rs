//! `workflow`: checks definitions and draws them.

use anyhow::Context as _;
use serde_json::json;

use super::{Context, Ending, Misuse};
use crate::app;
use crate::saga::WorkflowRegistry;

mod check;
mod dry_run;
mod drawing;
mod graph;

#[derive(clap::Subcommand, Debug)]
pub(super) enum Command {
    /// Walk through all that can happen to the sagas of every definition, and say what is wrong
    Check(check::Arguments),
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
        Command::Graph { name, version, format } => draw(context, name, *version, *format),
    }
}

fn draw(context: &Context, name: &str, version: Option<i32>, format: Format) -> anyhow::Result<Ending> {
    let registry = app::workflow_registry(&context.settings).context("the definitions cannot be read")?;
    let found = version.map_or_else(|| registry.latest(name), |version| registry.get(name, version));
    let definition = found.ok_or_else(|| unknown(name, version, &registry))?;
    let (kind, text) = match format {
        Format::Mermaid => ("mermaid", graph::mermaid(definition)),
        Format::Svg => ("svg", drawing::svg(definition)),
    };
    let drawn = json!({ "workflow": definition.name, "version": definition.version, kind: text });
    context.output.answer(&drawn, |_| text.clone())?;
    Ok(Ending::Good)
}

fn unknown(name: &str, version: Option<i32>, registry: &WorkflowRegistry) -> Misuse {
    let wanted = version.map_or(name.to_owned(), |version| format!("{name} {version}"));
    let versions: Vec<i32> =
        registry.iter().filter(|other| other.name == name).map(|other| other.version).collect();
    let known: Vec<String> = match version {
        Some(_) if !versions.is_empty() => versions.iter().map(|known| format!("{name} {known}")).collect(),
        _ => {
            let mut names: Vec<String> = registry.iter().map(|other| other.name.clone()).collect();
            names.dedup();
            names
        }
    };
    Misuse(format!("there is no workflow {wanted}; there are {}", known.join(", ")))
}
