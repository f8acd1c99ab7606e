//! `workflow`: checks definitions and draws them.

use anyhow::Context as _;
use serde_json::json;

use super::output::table;
use super::{Context, Ending, Misuse};
use crate::app;
use crate::saga::{Catalogue, Definition};

mod graph;

#[derive(clap::Subcommand, Debug)]
pub(super) enum Command {
    /// Read every definition, built-in ones and those of --workflows, and say what is wrong
    Check,
    /// Draw a workflow as a Mermaid state diagram
    Graph {
        /// The workflow, for instance `booking`
        name: String,
    },
}

pub(super) fn run(context: &Context, command: &Command) -> anyhow::Result<Ending> {
    match command {
        Command::Check => check(context),
        Command::Graph { name } => draw(context, name),
    }
}

fn check(context: &Context) -> anyhow::Result<Ending> {
    let catalogue = match app::catalogue(&context.settings) {
        Ok(catalogue) => catalogue,
        Err(problem) => {
            let problem = format!("{problem:#}");
            let found = json!({ "verdict": "broken", "problem": problem });
            context.output.answer(&found, |_| problem)?;
            return Ok(Ending::Wrong);
        }
    };
    let all: Vec<&Definition> = catalogue.iter().collect();
    let items: Vec<_> = all.iter().map(|definition| summary(definition)).collect();
    context.output.answer(&json!({ "verdict": "good", "items": items }), |_| {
        let rows = all.iter().map(|definition| {
            let steps: Vec<&str> = definition.steps.iter().map(|step| step.name.as_str()).collect();
            [definition.name.clone(), definition.version.to_string(), steps.join(", "), "ok".to_owned()]
        });
        table(["Workflow", "Version", "Steps", "Verdict"], rows)
    })?;
    Ok(Ending::Good)
}

fn summary(definition: &Definition) -> serde_json::Value {
    let steps: Vec<&str> = definition.steps.iter().map(|step| step.name.as_str()).collect();
    json!({ "workflow": definition.name, "version": definition.version, "steps": steps })
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
