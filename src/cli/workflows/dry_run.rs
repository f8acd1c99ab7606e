//! What the known definitions mean for the sagas that are under way: whether each still has its own, and what the
//! newest version would mean for it.

use serde::Serialize;
use uuid::Uuid;

use super::super::output::table;
use super::super::{Context, Misuse};
use crate::saga::{Change, Direction, Status, WorkflowRegistry, compare};
use crate::store;
use crate::store::versions::UnderWay;

/// The sagas that have not ended, by where they stand; or why no database was looked at.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub(super) enum DryRun {
    Looked { sagas: Vec<Group> },
    Unseen { unseen: String },
}

/// Sagas of one version at one place.
#[derive(Debug, Serialize)]
pub(super) struct Group {
    workflow: String,
    version: i32,
    status: Status,
    direction: Direction,
    step: String,
    count: i64,
    examples: Vec<Uuid>,
    /// Their own definition is there; without it they wait.
    defined: bool,
    newest: Option<i32>,
    /// What the newest version would mean for them.
    changes: Vec<Change>,
}

impl DryRun {
    /// Looks at the table, if a database is at hand. One that is named but does not answer is an error.
    pub(super) async fn look(context: &Context, registry: &WorkflowRegistry) -> anyhow::Result<Self> {
        let pool = match context.database().await {
            Ok(pool) => pool,
            Err(error) if error.is::<Misuse>() && context.settings.servers.database_url.is_none() => {
                return Ok(Self::Unseen { unseen: "no database was looked at: none runs here".to_owned() });
            }
            Err(error) => return Err(error),
        };
        let found = store::versions::under_way(&pool).await?;
        let versions = found.iter().map(|group| (group.workflow.as_str(), group.version));
        store::definitions::load(&pool, registry, versions).await?;
        Ok(Self::Looked { sagas: found.into_iter().map(|group| Group::of(group, registry)).collect() })
    }

    /// Whether every saga has its definition.
    pub(super) fn is_good(&self) -> bool {
        match self {
            Self::Looked { sagas } => sagas.iter().all(|group| group.defined),
            Self::Unseen { .. } => true,
        }
    }

    pub(super) fn text(&self) -> String {
        match self {
            Self::Unseen { unseen } => format!("Sagas under way: {unseen}."),
            Self::Looked { sagas } if sagas.is_empty() => "Sagas under way: none.".to_owned(),
            Self::Looked { sagas } => {
                let header = ["Workflow", "Version", "Status", "Step", "Sagas", "Meaning"];
                format!("Sagas under way:\n{}", table(header, sagas.iter().map(Group::row)))
            }
        }
    }
}

impl Group {
    fn of(found: UnderWay, registry: &WorkflowRegistry) -> Self {
        let UnderWay { workflow, version, status, direction, step, count, examples } = found;
        let own = registry.get(&workflow, version);
        let newest = registry.latest(&workflow);
        let changes = match (&own, &newest) {
            (Some(own), Some(newest)) if newest.version != version => compare(own, newest, &step, direction),
            _ => Vec::new(),
        };
        let (defined, newest) = (own.is_some(), newest.map(|newest| newest.version));
        Self { workflow, version, status, direction, step, count, examples, defined, newest, changes }
    }

    fn row(&self) -> [String; 6] {
        let step =
            if self.direction == Direction::Undo { format!("undo {}", self.step) } else { self.step.clone() };
        [
            self.workflow.clone(),
            self.version.to_string(),
            self.status.to_string(),
            step,
            self.count.to_string(),
            self.meaning(),
        ]
    }

    fn meaning(&self) -> String {
        let examples: Vec<String> = self.examples.iter().map(Uuid::to_string).collect();
        match self.newest {
            _ if !self.defined => {
                let (version, examples) = (self.version, examples.join(", "));
                format!(
                    "NO DEFINITION of version {version}: they wait until it is deployed; for instance {examples}"
                )
            }
            Some(newest) if newest != self.version => {
                let told = self.changes.iter().map(|change| {
                    let mark = if change.breaks { "BREAKS: " } else { "" };
                    format!("{mark}{}: {}", change.step, change.what)
                });
                let told: Vec<String> = told.collect();
                let told = if told.is_empty() { "the same for them".to_owned() } else { told.join("; ") };
                format!("they stay on {}; on {newest}: {told}", self.version)
            }
            _ => "their version is the newest".to_owned(),
        }
    }
}
