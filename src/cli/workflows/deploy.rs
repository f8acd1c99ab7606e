//! `workflow deploy` and `workflow retire`.

use std::num::NonZero;
use std::path::PathBuf;
use std::thread::available_parallelism;
use std::time::Duration;

use serde_json::json;

use super::super::{Context, Ending, Misuse, actor};
use crate::bus::subjects;
use crate::operations::deployments::{self, DeployError, Order, counter_example};
use crate::operations::repair::reason_problem;

#[derive(clap::Args, Debug)]
pub(in crate::cli) struct Arguments {
    /// The definition, as TOML
    file: PathBuf,
    /// Deploy it even if the model checker does not find it good, and write down why
    #[arg(long, value_name = "REASON")]
    accept_risk: Option<String>,
    /// How long the model checker may take, in seconds
    #[arg(long, default_value_t = 300, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    check_seconds: u64,
}

#[derive(clap::Args, Debug)]
pub(in crate::cli) struct Retired {
    /// The workflow
    name: String,
    /// The version that no new sagas begin with
    #[arg(long)]
    version: i32,
    /// Why; it is written down
    #[arg(long, default_value = "retired by the command line")]
    reason: String,
}

pub(super) async fn run(context: &Context, arguments: &Arguments) -> anyhow::Result<Ending> {
    let Arguments { file, accept_risk, check_seconds } = arguments;
    let shown = file.display().to_string();
    let text =
        std::fs::read_to_string(file).map_err(|error| Misuse(format!("{shown} cannot be read: {error}")))?;
    if let Some(problem) = accept_risk.as_deref().and_then(reason_problem) {
        return Err(Misuse(format!("--accept-risk {problem}")).into());
    }
    let pool = context.database().await?;
    context.output.sentence(&format!("checking {shown}"));
    let order = Order {
        text,
        source_name: shown,
        accept_risk: accept_risk.clone(),
        actor: actor(),
        check_time: Duration::from_secs(*check_seconds),
        check_threads: available_parallelism().map_or(1, NonZero::get),
    };
    let done = match deployments::deploy(&pool, order).await {
        Ok(done) => done,
        Err(error) => return refused(context, error),
    };
    notify(context).await;
    let risk = if done.accepted_risk.is_some() { ", with an accepted risk" } else { "" };
    context.output.answer(&json!(done), |_| {
        format!("{} {} is deployed{risk}. Verdict of the checker: {}.", done.name, done.version, done.verdict)
    })?;
    Ok(Ending::Good)
}

fn refused(context: &Context, error: DeployError) -> anyhow::Result<Ending> {
    let detail = error.to_string();
    let (answer, text) = match &error {
        DeployError::Invalid(invalid) => (
            json!({ "code": "invalid_definition", "detail": detail, "line": invalid.line, "reason": invalid.problem }),
            detail,
        ),
        DeployError::Exists { name, version, same } => {
            let answer = json!({ "code": "version_exists", "detail": detail, "name": name, "version": version, "same": same });
            let ending = if *same { Ending::Good } else { Ending::Wrong };
            context.output.answer(&answer, |_| detail)?;
            return Ok(ending);
        }
        DeployError::Unsafe { finding, workers, .. } => {
            let example = json!({ "problem": finding.problem, "way": finding.way, "workers": workers });
            let text = format!("{detail}.\nThe shortest way to it: {}", counter_example(finding));
            (json!({ "code": "unsafe_definition", "detail": detail, "counter_example": example }), text)
        }
        DeployError::Unfinished { states, .. } => (
            json!({ "code": "check_unfinished", "detail": detail, "states": states }),
            format!("{detail}, for instance --accept-risk REASON or --check-seconds"),
        ),
        _ => return Err(error.into()),
    };
    context.output.answer(&answer, |_| text)?;
    Ok(Ending::Wrong)
}

/// Running processes read what is deployed now. Without NATS they do when they need it.
async fn notify(context: &Context) {
    if let Ok(bus) = context.bus().await {
        let notified = bus.notify(subjects::PAUSES, Vec::new().into()).await;
        if notified.is_err() || bus.client.flush().await.is_err() {
            context.output.sentence(
                "Running processes were not notified; they read the definition when a saga needs it.",
            );
        }
    }
}

pub(super) async fn retire(context: &Context, retired: &Retired) -> anyhow::Result<Ending> {
    let Retired { name, version, reason } = retired;
    if let Some(problem) = reason_problem(reason) {
        return Err(Misuse(format!("--reason {problem}")).into());
    }
    let pool = context.database().await?;
    let done = deployments::retire(&pool, name, *version, &actor(), reason).await?;
    if done {
        notify(context).await;
    }
    context.output.answer(&json!({ "name": name, "version": version, "retired": done }), |_| match done {
        true => format!("{name} {version} is retired: no new sagas begin with it."),
        false => format!("There is no {name} {version} that could be retired."),
    })?;
    Ok(if done { Ending::Good } else { Ending::Wrong })
}
