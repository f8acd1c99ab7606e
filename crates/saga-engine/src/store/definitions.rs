//! Deployed workflow definitions: immutable by name and version. Every process reads the definition of a saga before it handles it.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::{PgConnection, PgExecutor};

use super::Result;
use super::codes::Coded;
use super::write_batch::{LockOrder, Part, WriteBatch};
use crate::saga::{Definition, Saga, WorkflowRegistry};

const DEFINITIONS: LockOrder = LockOrder::before_sagas(50);

const LOCK_DEFINITION: Part = Part::new("definition", include_str!("../../sql/lock_definition.sql"));
const _: fn(&str, i32) =
    |workflow, version| drop(sqlx::query_file!("sql/lock_definition.sql", workflow, version));

/// Most workflows whose newest versions a process reads when it starts.
const MAX_WORKFLOWS: i64 = 1_000;

/// A deployed version of a workflow.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Deployment {
    /// Its number in this database: later ones are higher.
    #[serde(skip)]
    pub code: i16,
    pub name: String,
    pub version: i32,
    pub deployed_by: Option<String>,
    pub deployed_at: Option<DateTime<Utc>>,
    pub verdict: Option<Value>,
    pub accepted_risk: Option<String>,
    pub retired_by: Option<String>,
    pub retired_at: Option<DateTime<Utc>>,
}

/// What is to be written about a version.
#[derive(Clone, Debug)]
pub struct NewDeployment<'a> {
    pub source: &'a str,
    pub deployed_by: &'a str,
    pub verdict: &'a Value,
    pub accepted_risk: Option<&'a str>,
}

/// What became of a deployment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deployed {
    New,
    /// The same definition was deployed before.
    Same,
    /// Another definition has this name and version.
    Different,
}

/// Deploys a definition, unless its name and version are taken.
pub async fn deploy(
    conn: &mut PgConnection,
    definition: &Definition,
    new: &NewDeployment<'_>,
) -> Result<Deployed> {
    let (name, version) = (&definition.name, definition.version);
    if let Some(before) = source(&mut *conn, name, version).await? {
        return Ok(compare(definition, &before));
    }
    Coded::write(&mut *conn, definition).await?;
    let done = sqlx::query!(
        "update workflow_definitions
         set source = $3, deployed_by = $4, deployed_at = clock_timestamp(), verdict = $5, accepted_risk = $6
         where workflow = $1 and version = $2 and source is null",
        name,
        version,
        new.source,
        new.deployed_by,
        new.verdict,
        new.accepted_risk,
    )
    .execute(&mut *conn)
    .await?;
    if done.rows_affected() == 1 {
        return Ok(Deployed::New);
    }
    // Another process deployed it at the same moment.
    let before = source(conn, name, version).await?;
    Ok(before.map_or(Deployed::Different, |before| compare(definition, &before)))
}

/// Comments and spaces may differ.
fn compare(definition: &Definition, before: &str) -> Deployed {
    match Definition::parse(&definition.name, before) {
        Ok(before) if before == *definition => Deployed::Same,
        _ => Deployed::Different,
    }
}

/// The text of a deployed version.
pub async fn source(db: impl PgExecutor<'_>, name: &str, version: i32) -> Result<Option<String>> {
    let found = sqlx::query_scalar!(
        "select source from workflow_definitions where workflow = $1 and version = $2",
        name,
        version,
    )
    .fetch_optional(db)
    .await?;
    Ok(found.flatten())
}

/// Reads what new sagas of each workflow begin with, and the definitions.
pub async fn reload(db: impl PgExecutor<'_>, registry: &WorkflowRegistry) -> Result<()> {
    let rows = sqlx::query!(
        r#"
        select distinct on (workflow) workflow, version, source as "source!"
        from workflow_definitions where source is not null and retired_at is null
        order by workflow, version desc limit $1
        "#,
        MAX_WORKFLOWS,
    )
    .fetch_all(db)
    .await?;
    let current: BTreeMap<String, i32> = rows.iter().map(|row| (row.workflow.clone(), row.version)).collect();
    let is_new = |workflow: &str, version| registry.get(workflow, version).is_none();
    let new = rows.into_iter().filter(|row| is_new(&row.workflow, row.version));
    registry.keep(new.filter_map(|row| parsed(&row.workflow, row.version, &row.source)).collect::<Vec<_>>());
    registry.set_current(current);
    Ok(())
}

/// Reads the definitions of these sagas that the registry lacks. Those that cannot be read stay missing.
pub async fn learn(db: impl PgExecutor<'_>, registry: &WorkflowRegistry, sagas: &[Saga]) -> Result<()> {
    let is_missing = |saga: &&Saga| registry.get(&saga.workflow, saga.version).is_none();
    let missing: BTreeSet<(&str, i32)> =
        sagas.iter().filter(is_missing).map(|saga| (saga.workflow.as_str(), saga.version)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    load(db, registry, missing.into_iter()).await
}

/// Reads these versions into the registry.
pub async fn load(
    db: impl PgExecutor<'_>,
    registry: &WorkflowRegistry,
    versions: impl Iterator<Item = (&str, i32)>,
) -> Result<()> {
    let (names, versions): (Vec<&str>, Vec<i32>) = versions.unzip();
    let rows = sqlx::query!(
        r#"
        select workflow, version, source as "source!"
        from workflow_definitions join unnest($1::text[], $2::int[]) as wanted (workflow, version) using (workflow, version)
        where source is not null
        "#,
        &names as &[&str],
        &versions,
    )
    .fetch_all(db)
    .await?;
    registry.keep(
        rows.iter().filter_map(|row| parsed(&row.workflow, row.version, &row.source)).collect::<Vec<_>>(),
    );
    Ok(())
}

/// A text that a newer release has deployed may not be readable here.
fn parsed(workflow: &str, version: i32, source: &str) -> Option<Definition> {
    match Definition::parse(workflow, source) {
        Ok(definition) => Some(definition),
        Err(error) => {
            tracing::error!(workflow, version, %error, "a deployed definition cannot be read; its sagas wait for a process that can");
            None
        }
    }
}

/// The version that new sagas of a workflow begin with.
pub async fn current_version(db: impl PgExecutor<'_>, name: &str) -> Result<Option<i32>> {
    sqlx::query_scalar!(
        "select version from workflow_definitions
         where workflow = $1 and source is not null and retired_at is null
         order by version desc limit 1",
        name,
    )
    .fetch_optional(db)
    .await
}

/// Whether any version of this workflow was ever deployed.
pub async fn is_known(db: impl PgExecutor<'_>, name: &str) -> Result<bool> {
    sqlx::query_scalar!(
        r#"select exists (select from workflow_definitions where workflow = $1 and source is not null) as "known!""#,
        name,
    )
    .fetch_one(db)
    .await
}

/// Deployed versions, those that were registered last first, of these workflows if any are named.
pub async fn list(
    db: impl PgExecutor<'_>,
    names: Option<&[String]>,
    below: Option<i16>,
    limit: i64,
) -> Result<Vec<Deployment>> {
    sqlx::query_as!(
        Deployment,
        r#"
        select code, workflow as name, version, deployed_by, deployed_at, verdict, accepted_risk, retired_by, retired_at
        from workflow_definitions
        where source is not null and ($1::text[] is null or workflow = any ($1)) and ($2::smallint is null or code < $2)
        order by code desc limit $3
        "#,
        names,
        below,
        limit,
    )
    .fetch_all(db)
    .await
}

/// One deployed version: without a version the one that new sagas begin with, or else the newest.
pub async fn find(db: impl PgExecutor<'_>, name: &str, version: Option<i32>) -> Result<Option<Deployment>> {
    sqlx::query_as!(
        Deployment,
        r#"
        select code, workflow as name, version, deployed_by, deployed_at, verdict, accepted_risk, retired_by, retired_at
        from workflow_definitions
        where workflow = $1 and source is not null and ($2::int is null or version = $2)
        order by (retired_at is null) desc, version desc limit 1
        "#,
        name,
        version,
    )
    .fetch_optional(db)
    .await
}

/// The version must not be retired when the rest is written. A retirement under way is waited for.
pub fn compare_current(changes: &mut WriteBatch, definition: &Definition) {
    changes.check(DEFINITIONS, LOCK_DEFINITION).bind(&definition.name).bind(definition.version);
}

/// From now on no new sagas begin with this version. `false`: there is no such version, or it is retired already.
pub async fn retire(db: impl PgExecutor<'_>, name: &str, version: i32, by: &str) -> Result<bool> {
    let done = sqlx::query!(
        "update workflow_definitions set retired_by = $3, retired_at = clock_timestamp()
         where workflow = $1 and version = $2 and source is not null and retired_at is null",
        name,
        version,
        by,
    )
    .execute(db)
    .await?;
    Ok(done.rows_affected() == 1)
}
