//! `workflow check`: runs the model checker on definitions and prints its findings.

use std::path::PathBuf;
use std::sync::Arc;

use serde_json::{Value, json};

use super::super::output::table;
use super::super::{Context, Ending, Misuse};
use super::dry_run::DryRun;
use crate::saga::{Definition, WorkflowRegistry};
use crate::workflows;
use saga_checker::{Bounds, Home, Report, Walk};

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

pub(super) async fn run(context: &Context, arguments: &Arguments) -> anyhow::Result<Ending> {
    let (registry, definitions) = match definitions(context, arguments)? {
        Ok(found) => found,
        Err(problem) => {
            let found = json!({ "verdict": "broken", "problem": problem });
            context.output.answer(&found, |_| problem)?;
            return Ok(Ending::Wrong);
        }
    };
    let under_way = DryRun::look(context, &registry).await?;
    let Arguments { crashes, losses, duplicates, acts, .. } = *arguments;
    let bounds = Bounds { crashes, losses, duplicates, acts, ..Bounds::default() };
    let mut reports = Vec::new();
    for definition in &definitions {
        context.output.sentence(&format!("walking through {} {}", definition.name, definition.version));
        let definition = Arc::clone(definition);
        reports.push(tokio::task::spawn_blocking(move || saga_checker::check(&definition, bounds)).await?);
    }
    let good = under_way.is_good() && reports.iter().all(Report::is_good);
    let items: Vec<Value> = definitions.iter().zip(&reports).map(|(of, report)| item(of, report)).collect();
    let verdict = if good { "good" } else { "broken" };
    let answer = json!({ "verdict": verdict, "bounds": bounds, "items": items, "under_way": under_way });
    context.output.answer(&answer, |_| format!("{}\n{}", text(&reports, bounds), under_way.text()))?;
    Ok(if good { Ending::Good } else { Ending::Wrong })
}

/// All that is known, and what of it is to be checked.
type ToCheck = (WorkflowRegistry, Vec<Arc<Definition>>);

/// All that is known, and what of it is to be checked; or what is wrong with a text.
fn definitions(context: &Context, arguments: &Arguments) -> anyhow::Result<Result<ToCheck, String>> {
    let registry = match workflows::with_folder(context.settings.engine.workflows.as_deref()) {
        Ok(texts) => workflows::registry(texts),
        Err(problem) => return Ok(Err(format!("{problem:#}"))),
    };
    let Some(file) = &arguments.file else {
        let all = registry.all();
        return Ok(Ok((registry, all)));
    };
    let text = std::fs::read_to_string(file)
        .map_err(|error| Misuse(format!("{} cannot be read: {error}", file.display())))?;
    Ok(match Definition::parse(&file.display().to_string(), &text) {
        Ok(definition) => {
            registry.add(definition.clone());
            Ok((registry, vec![Arc::new(definition)]))
        }
        Err(problem) => Err(problem.to_string()),
    })
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
                walked(walk),
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
            let (name, workers) = (&report.workflow, walked(walk));
            text += &format!("\n{name} {}, workers {workers}: {}\n", report.version, finding.problem);
            for (at, line) in finding.way.iter().enumerate() {
                text += &format!("  {:2}. {line}\n", at + 1);
            }
        }
    }
    text
}

fn told(bounds: Bounds) -> String {
    let Bounds { crashes, losses, duplicates, acts, returns } = bounds;
    format!(
        "On each way at most: {crashes} crashes, {losses} lost, {duplicates} twice, {acts} acts of operators, \
         {returns} returns to a wait."
    )
}

/// Where the workers are, and which members of large groups are in the walk.
fn walked(walk: &Walk) -> String {
    let place = place(walk.workers);
    if walk.members.is_empty() {
        place.to_owned()
    } else {
        format!("{place}, with {}", walk.members.join(" and "))
    }
}

fn place(home: Home) -> &'static str {
    match home {
        Home::Elsewhere => "elsewhere",
        Home::Inside => "in the database",
    }
}
