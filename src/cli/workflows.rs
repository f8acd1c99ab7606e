//! `workflow`: checks definitions and draws them.

use anyhow::Context as _;
use serde_json::json;

use super::{Context, Ending, Misuse};
use crate::app;
use crate::saga::Catalogue;

mod check;
mod dry_run;
mod graph;

#[derive(clap::Subcommand, Debug)]
pub(super) enum Command {
    /// Walk through all that can happen to the sagas of every definition, and say what is wrong
    Check(check::Arguments),
    /// Draw a workflow as a Mermaid state diagram
    Graph {
        /// The workflow, for instance `booking`
        name: String,
    },
}

pub(super) async fn run(context: &Context, command: &Command) -> anyhow::Result<Ending> {
    match command {
        Command::Check(arguments) => check::run(context, arguments).await,
        Command::Graph { name } => draw(context, name),
    }
}

fn draw(context: &Context, name: &str) -> anyhow::Result<Ending> {
    let catalogue = app::catalogue(&context.settings).context("the definitions cannot be read")?;
    let definition = catalogue.latest(name).ok_or_else(|| unknown(name, &catalogue))?;
    let drawn = json!({ "workflow": definition.name, "version": definition.version, "mermaid": graph::mermaid(definition) });
    context.output.answer(&drawn, |_| graph::mermaid(definition))?;
    Ok(Ending::Good)
}

fn unknown(name: &str, catalogue: &Catalogue) -> Misuse {
    let known: Vec<&str> = catalogue.iter().map(|definition| definition.name.as_str()).collect();
    Misuse(format!("there is no workflow {name}; there are {}", known.join(", ")))
}
