//! `workflow check`: reads definitions, walks through all that can happen to their sagas, and says what it found.

use std::path::PathBuf;

use anyhow::Context as _;
use serde_json::{Value, json};

use super::super::output::table;
use super::super::{Context, Ending, Misuse};
use crate::app;
use crate::checker::{self, Bounds, Home, Report};
use crate::saga::Definition;

#[derive(clap::Args, Debug)]
pub(in crate::cli) struct Arguments {
    /// Check this definition alone, instead of the built-in ones and those of --workflows
    file: Option<PathBuf>,
    /// Most crashes on one way: a process dies between commit, publish and acknowledgement
    #[arg(long, default_value_t = Bounds::default().crashes, value_parser = clap::value_parser!(u8).range(0..=9))]
    crashes: u8,
    /// Most messages that are lost on one way
    #[arg(long, default_value_t = Bounds::default().losses, value_parser = clap::value_parser!(u8).range(0..=9))]
    losses: u8,
    /// Most messages that come twice on one way
    #[arg(long, default_value_t = Bounds::default().duplicates, value_parser = clap::value_parser!(u8).range(0..=9))]
    duplicates: u8,
    /// Most acts of operators on one way
    #[arg(long, default_value_t = Bounds::default().acts, value_parser = clap::value_parser!(u8).range(0..=9))]
    acts: u8,
}

pub(super) fn run(context: &Context, arguments: &Arguments) -> anyhow::Result<Ending> {
    let definitions = match definitions(context, arguments)? {
        Ok(definitions) => definitions,
        Err(problem) => {
            let found = json!({ "verdict": "broken", "problem": problem });
            context.output.answer(&found, |_| problem)?;
            return Ok(Ending::Wrong);
        }
    };
    let Arguments { crashes, losses, duplicates, acts, .. } = *arguments;
    let bounds = Bounds { crashes, losses, duplicates, acts, ..Bounds::default() };
    let mut reports = Vec::new();
    for definition in &definitions {
        context.output.tell(&format!("walking through {} {}", definition.name, definition.version));
        reports.push(checker::check(definition, bounds));
    }
    let good = reports.iter().all(Report::is_good);
    let items: Vec<Value> = definitions.iter().zip(&reports).map(|(of, report)| item(of, report)).collect();
    let verdict = if good { "good" } else { "broken" };
    let answer = json!({ "verdict": verdict, "bounds": bounds, "items": items });
    context.output.answer(&answer, |_| text(&reports, bounds))?;
    Ok(if good { Ending::Good } else { Ending::Wrong })
}

/// What is to be checked, or what is wrong with its text.
fn definitions(context: &Context, arguments: &Arguments) -> anyhow::Result<Result<Vec<Definition>, String>> {
    let Some(file) = &arguments.file else {
        let catalogue = app::catalogue(&context.settings);
        return Ok(catalogue
            .map(|catalogue| catalogue.iter().cloned().collect())
            .map_err(|problem| format!("{problem:#}")));
    };
    let text = std::fs::read_to_string(file)
        .with_context(|| format!("{} cannot be read", file.display()))
        .map_err(|error| Misuse(format!("{error:#}")))?;
    let parsed = Definition::parse(&file.display().to_string(), &text);
    Ok(parsed.map(|definition| vec![definition]).map_err(|problem| problem.to_string()))
}

fn item(definition: &Definition, report: &Report) -> Value {
    let steps: Vec<&str> = definition.steps.iter().map(|step| step.name.as_str()).collect();
    json!({
        "workflow": definition.name,
        "version": definition.version,
        "steps": steps,
        "verdict": if report.is_good() { "good" } else { "broken" },
        "walks": report.walks,
    })
}

fn text(reports: &[Report], bounds: Bounds) -> String {
    let rows = reports.iter().flat_map(|report| {
        report.walks.iter().map(|walk| {
            [
                report.workflow.clone(),
                report.version.to_string(),
                place(walk.workers).to_owned(),
                walk.states.to_string(),
                walk.explored.to_string(),
                walk.depth.to_string(),
                format!("{:.1}", walk.seconds),
                if walk.finding.is_none() { "ok" } else { "BROKEN" }.to_owned(),
            ]
        })
    });
    let header = ["Workflow", "Version", "Workers", "States", "Explored", "Depth", "Seconds", "Verdict"];
    let mut text = format!("{}\n\n{}\n", table(header, rows), told(bounds));
    for report in reports {
        for walk in &report.walks {
            let Some(finding) = &walk.finding else { continue };
            let (name, workers) = (&report.workflow, place(walk.workers));
            text += &format!("\n{name} {}, workers {workers}: {}\n", report.version, finding.problem);
            for (at, line) in finding.way.iter().enumerate() {
                text += &format!("  {:2}. {line}\n", at + 1);
            }
        }
    }
    text
}

fn told(bounds: Bounds) -> String {
    let Bounds { crashes, losses, duplicates, acts, returns, unknowns } = bounds;
    format!(
        "On each way at most: {crashes} crashes, {losses} lost, {duplicates} twice, {acts} acts of operators, \
         {returns} returns to a wait, {unknowns} answers unknown."
    )
}

fn place(home: Home) -> &'static str {
    match home {
        Home::Elsewhere => "elsewhere",
        Home::Inside => "in the database",
    }
}
