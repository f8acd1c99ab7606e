//! Deploying workflow definitions: the model checker first, then the database.

use std::time::{Duration, Instant};

use saga_checker::{Bounds, Effort, Finding, Report, check_within};
use serde_json::{Value, json};
use sqlx::PgPool;

use crate::saga::{Definition, DefinitionError};
use crate::store::definitions::{self, Deployed, NewDeployment};
use crate::store::operations::{ActRow, record_act};
use crate::text;
use crate::workflows::{self, WorkflowText};
use saga_engine::input_schema;

/// Most states that the check of a deployment looks at: it is bounded in memory too.
pub const MAX_CHECK_STATES: usize = 1_000_000;
/// The faults on one path in the check of a deployment. They are fewer than in `workflow check`, so that the check ends within
/// seconds for most workflows. It has no operator acts: they add many states and reveal no more leaks of a definition.
pub const DEPLOY_BOUNDS: Bounds = Bounds { crashes: 1, losses: 1, duplicates: 1, acts: 0, returns: 1 };
/// What a process writes as the deployer of the definitions that it brings along.
const BY_RELEASE: &str = "release";
const BY_FOLDER: &str = "folder of --workflows";
/// Domain events of the service itself: other systems act on them.
const OWN_EVENTS: [&str; 2] = ["reservation.", "points."];
/// Services that act on reservations, whose sagas only the service itself starts.
const OWN_SERVICES: [&str; 3] = ["seats.", "points.", "tickets."];

/// A definition that is to be deployed.
#[derive(Clone, Debug)]
pub struct Order {
    pub text: String,
    /// What to call the text in errors.
    pub source_name: String,
    /// Why it is deployed even if the checker does not find it good.
    pub accept_risk: Option<String>,
    pub actor: String,
    /// How long the checker may take.
    pub check_time: Duration,
    /// How many processors it may use.
    pub check_threads: usize,
}

/// A version that was deployed.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Done {
    pub name: String,
    pub version: i32,
    pub verdict: &'static str,
    pub accepted_risk: Option<String>,
}

/// Why a definition was not deployed.
#[derive(Debug, thiserror::Error)]
pub enum DeployError {
    #[error(transparent)]
    Invalid(#[from] DefinitionError),
    #[error("{name} {version} is deployed already{}; deploy this one under a higher version", if *.same { ", as the same definition" } else { "" })]
    Exists { name: String, version: i32, same: bool },
    #[error("the model checker found a fault in {name} {version}: {}; deploy it with a reason why that is acceptable, or mend it", .finding.problem)]
    Unsafe { name: String, version: i32, finding: Finding, workers: Value },
    #[error(
        "the model checker did not finish within {} s and {MAX_CHECK_STATES} states, and found no fault in {states} states; check the file with \
         `boxoffice workflow check FILE`, which has no bound, then deploy it with a reason for accepting the risk",
        .time.as_secs()
    )]
    Unfinished { time: Duration, states: usize },
    #[error("accept_risk {0}")]
    Reason(String),
    #[error("the model checker stopped: {0}")]
    Checker(#[from] tokio::task::JoinError),
    #[error(transparent)]
    Database(#[from] sqlx::Error),
}

/// Checks a definition and deploys it.
pub async fn deploy(pool: &PgPool, order: Order) -> Result<Done, DeployError> {
    if let Some(problem) = order.accept_risk.as_deref().and_then(super::repair::reason_problem) {
        return Err(DeployError::Reason(problem));
    }
    let definition = Definition::parse(&order.source_name, &order.text)?;
    check_own(&definition, &order)?;
    let (name, version) = (definition.name.clone(), definition.version);
    if let Some(before) = definitions::source(pool, &name, version).await? {
        let same = Definition::parse(&name, &before).is_ok_and(|before| before == definition);
        return Err(DeployError::Exists { name, version, same });
    }
    let checked = definition.clone();
    let effort = Effort {
        until: Some(Instant::now() + order.check_time),
        states: Some(MAX_CHECK_STATES),
        threads: order.check_threads,
    };
    let report = tokio::task::spawn_blocking(move || check_within(&checked, DEPLOY_BOUNDS, effort)).await?;
    let verdict = verdict(&report);
    if verdict != "good" && order.accept_risk.is_none() {
        return Err(refusal(&report, order.check_time));
    }
    let found = json!({ "verdict": verdict, "bounds": report.bounds, "walks": report.walks });
    let new = NewDeployment {
        source: &order.text,
        deployed_by: &order.actor,
        verdict: &found,
        accepted_risk: order.accept_risk.as_deref(),
    };
    let mut tx = pool.begin().await?;
    match definitions::deploy(&mut tx, &definition, &new).await? {
        Deployed::New => {}
        other => return Err(DeployError::Exists { name, version, same: other == Deployed::Same }),
    }
    let reason = order.accept_risk.as_deref().unwrap_or("checked");
    let (act, target) = ("deploy_workflow", format!("{name} {version}"));
    record(&mut tx, act, &target, &order.actor, reason, ["", "deployed"]).await?;
    tx.commit().await?;
    Ok(Done { name, version, verdict, accepted_risk: order.accept_risk })
}

/// Retires a version: no new sagas begin with it; sagas under way go on. `false`: it is unknown or retired already.
pub async fn retire(
    pool: &PgPool,
    name: &str,
    version: i32,
    actor: &str,
    reason: &str,
) -> Result<bool, RetireError> {
    let mut tx = pool.begin().await?;
    if !definitions::retire(&mut *tx, name, version, actor).await? {
        return Ok(false);
    }
    if workflows::is_built_in(name) && definitions::current_version(&mut *tx, name).await?.is_none() {
        return Err(RetireError::InUse(name.to_owned()));
    }
    let target = format!("{name} {version}");
    record(&mut tx, "retire_workflow", &target, actor, reason, ["deployed", "retired"]).await?;
    tx.commit().await?;
    Ok(true)
}

/// Why a version was not retired.
#[derive(Debug, thiserror::Error)]
pub enum RetireError {
    #[error("the service itself starts sagas of {0}: deploy a newer version first")]
    InUse(String),
    #[error(transparent)]
    Database(#[from] sqlx::Error),
}

/// Deploys the definitions that a process brings along, where they are not deployed yet.
///
/// # Errors
/// If another definition has the name and version of one of them.
pub async fn deploy_texts(pool: &PgPool, texts: &[WorkflowText]) -> anyhow::Result<()> {
    for WorkflowText { definition, text, is_built_in } in texts {
        let (by, verdict) = match is_built_in {
            true => (BY_RELEASE, json!({ "verdict": "good", "checked": "with the release" })),
            false => (BY_FOLDER, json!({ "verdict": "unchecked" })),
        };
        let new = NewDeployment { source: text, deployed_by: by, verdict: &verdict, accepted_risk: None };
        let mut tx = pool.begin().await?;
        let deployed = definitions::deploy(&mut tx, definition, &new).await?;
        tx.commit().await?;
        anyhow::ensure!(
            deployed != Deployed::Different,
            "another definition is deployed as {} version {}; definitions do not change: give this one a higher version",
            definition.name,
            definition.version,
        );
    }
    Ok(())
}

/// What only a deployment is refused for: what the service keeps for its own workflows.
fn check_own(definition: &Definition, order: &Order) -> Result<(), DefinitionError> {
    let error = |problem: String| DefinitionError::new(&order.source_name, &order.text, problem);
    if let Some(problem) = input_schema::schema_problem(definition) {
        return Err(error(problem));
    }
    if workflows::is_built_in(&definition.name) {
        return Ok(());
    }
    let is_own = |name: &str, own: &[&str]| own.iter().any(|prefix| name.starts_with(prefix));
    if let Some(event) = definition.events().into_iter().find(|event| is_own(event, &OWN_EVENTS)) {
        return Err(error(format!("{event} is an event of the service itself; give it another name")));
    }
    if let Some(command) = definition.commands().into_iter().find(|command| is_own(command, &OWN_SERVICES)) {
        return Err(error(format!("{command} acts on reservations, which only bookings have")));
    }
    Ok(())
}

fn verdict(report: &Report) -> &'static str {
    match report.finding() {
        Some(_) => "broken",
        None if report.is_good() => "good",
        None => "unfinished",
    }
}

fn refusal(report: &Report, time: Duration) -> DeployError {
    let broken = report.walks.iter().find_map(|walk| Some((walk.finding.clone()?, json!(walk.workers))));
    match broken {
        Some((finding, workers)) => {
            let (name, version) = (report.workflow.clone(), report.version);
            DeployError::Unsafe { name, version, finding, workers }
        }
        None => {
            let states = report.walks.iter().map(|walk| walk.states).sum();
            DeployError::Unfinished { time, states }
        }
    }
}

async fn record(
    conn: &mut sqlx::PgConnection,
    act: &str,
    target: &str,
    actor: &str,
    reason: &str,
    [from, to]: [&str; 2],
) -> Result<(), sqlx::Error> {
    let row = ActRow { actor, act, saga_id: None, target: Some(target), reason, from, to, detail: None };
    record_act(conn, &row).await
}

/// What is wrong with a counter-example on one line each, for people.
pub fn counter_example(finding: &Finding) -> String {
    let lines = finding.way.iter().enumerate().map(|(at, line)| format!("\n  {:2}. {line}", at + 1));
    text::escape_block(&format!("{}{}", finding.problem, lines.collect::<String>())).into_owned()
}
