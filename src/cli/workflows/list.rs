//! `workflow list` and `workflow show`.

use serde_json::{Value, json};

use super::super::output::table;
use super::super::{Context, Ending};
use crate::store::definitions::{self, Deployment};
use crate::text::escape_line;

#[derive(clap::Args, Debug)]
pub(in crate::cli) struct Wanted {
    /// Only this workflow
    name: Option<String>,
    /// At most so many
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(i64).range(1..=10_000))]
    limit: i64,
}

#[derive(clap::Args, Debug)]
pub(in crate::cli) struct Version {
    /// The workflow
    name: String,
    /// This version of it, instead of the one that new sagas begin with
    #[arg(long)]
    version: Option<i32>,
}

pub(super) async fn run(context: &Context, wanted: &Wanted) -> anyhow::Result<Ending> {
    let names = wanted.name.clone().map(|name| vec![name]);
    let found = definitions::list(&context.database().await?, names.as_deref(), None, wanted.limit).await?;
    context.output.answer(&json!({ "items": found }), |_| {
        let rows = found.iter().map(|one| {
            let at = one.deployed_at.map_or(String::new(), |at| at.format("%F %T").to_string());
            let retired = one.retired_at.map_or(String::new(), |at| at.format("%F %T").to_string());
            let by = escape_line(one.deployed_by.as_deref().unwrap_or_default()).into_owned();
            [one.name.clone(), one.version.to_string(), at, by, verdict(one), retired]
        });
        table(["Workflow", "Version", "Deployed", "By", "Verdict", "Retired"], rows)
    })?;
    Ok(Ending::Good)
}

pub(super) async fn show(context: &Context, wanted: &Version) -> anyhow::Result<Ending> {
    let pool = context.database().await?;
    let found = definitions::find(&pool, &wanted.name, wanted.version).await?;
    let Some(found) = found else {
        let version = wanted.version.map_or(String::new(), |version| format!(" {version}"));
        anyhow::bail!("no workflow {}{version} is deployed; see `boxoffice workflow list`", wanted.name);
    };
    let source = definitions::source(&pool, &found.name, found.version).await?.unwrap_or_default();
    let mut answer = json!(found);
    answer["definition"] = Value::String(source.clone());
    context.output.answer(&answer, |_| {
        let by = found.deployed_by.as_deref().unwrap_or("unknown");
        let at = found.deployed_at.map_or(String::new(), |at| at.format(" at %F %T").to_string());
        let mut head =
            format!("# deployed by {}{at}; verdict of the checker: {}\n", escape_line(by), verdict(&found));
        head += &checked(&found).map(|within| format!("# {within}\n")).unwrap_or_default();
        if let Some(risk) = &found.accepted_risk {
            head += &format!("# accepted risk: {}\n", escape_line(risk));
        }
        if let Some(retired) = found.retired_at {
            head += &format!("# retired at {}\n", retired.format("%F %T"));
        }
        head + source.trim_end()
    })?;
    Ok(Ending::Good)
}

/// Within which bounds the checker looked; none if it did not look.
fn checked(deployment: &Deployment) -> Option<String> {
    let verdict = deployment.verdict.as_ref()?;
    let most = |what: &str| verdict["bounds"][what].as_u64();
    let mut within = format!(
        "checked with at most {} crashes, {} lost and {} repeated messages, {} actions of operators and {} returns to a wait on each path",
        most("crashes")?,
        most("losses")?,
        most("duplicates")?,
        most("acts")?,
        most("returns")?
    );
    let pairs = verdict["walks"].as_array().into_iter().flatten().map(|walk| &walk["members"]);
    if pairs.into_iter().any(|members| members.as_array().is_some_and(|members| !members.is_empty())) {
        within += ", large groups of parallel steps with each pair of their members";
    }
    Some(within)
}

fn verdict(deployment: &Deployment) -> String {
    let verdict = deployment.verdict.as_ref().and_then(|verdict| verdict["verdict"].as_str());
    verdict.unwrap_or("unknown").to_owned()
}
