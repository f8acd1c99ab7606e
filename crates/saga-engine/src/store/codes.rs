//! The small numbers that stand for names in the tables of sagas: of workflows, steps, events and processes.
//!
//! Each version of a workflow has a row with its names; a number is a place in one of its lists, which only grow. The views of
//! the schema have the names, so only what is written needs the numbers.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use serde_json::{Map, Value, json};
use sqlx::error::BoxDynError;
use sqlx::{PgExecutor, PgPool};

use super::Result;
use crate::saga::{Definition, Direction, Entry, Saga, Status};

/// What can happen to a saga of any workflow, in the order of their numbers.
const EVENTS: [&str; 18] = [
    "started",
    "done",
    "undone",
    "rejected",
    "failed",
    "unknown",
    "deadline",
    "poisoned",
    "undo_rejected",
    "output_too_large",
    "definition_missing",
    "operator:retry",
    "operator:complete",
    "operator:skip_undo",
    "operator:cancel",
    "operator:abandon",
    "operator:pause",
    "operator:resume",
];
/// The number of the first signal of a workflow.
const FIRST_SIGNAL: usize = 100;
const SIGNAL: &str = "signal:";

/// The numbers of all workflows that this database knew when they were last read, and of this process. Clones share them.
#[derive(Clone, Debug)]
pub struct Codes {
    /// The number of this process.
    pub instance: i32,
    instance_name: Arc<str>,
    workflows: Arc<RwLock<Names>>,
}

/// The names of every version, by workflow and version.
type Names = BTreeMap<String, BTreeMap<i32, Arc<Coded>>>;

/// The names of one version of a workflow, each at the place that is its number.
#[derive(Clone, Debug)]
pub struct Coded {
    pub code: i16,
    workflow: String,
    version: i32,
    steps: Vec<String>,
    signals: Vec<String>,
    events: Vec<String>,
}

/// A name that has no number: its workflow was not registered by this process.
#[derive(Debug, thiserror::Error)]
#[error("{what} {name} has no number in this database; was its workflow registered?")]
pub struct Unregistered {
    what: &'static str,
    name: String,
}

impl Codes {
    /// Registers this process, and reads the numbers of all workflows.
    pub async fn register(pool: &PgPool, instance: &Arc<str>) -> Result<Self> {
        let workflows = Coded::read_all(pool).await?;
        let instance_code = sqlx::query_scalar!(
            "insert into worker_instances (name) values ($1)
             on conflict (name) do update set name = excluded.name returning code",
            &**instance,
        )
        .fetch_one(pool)
        .await?;
        let workflows = Arc::new(RwLock::new(workflows));
        Ok(Self { instance: instance_code, instance_name: Arc::clone(instance), workflows })
    }

    /// Reads the numbers anew if one of these sagas is of a workflow that another process has registered meanwhile.
    pub async fn learn(&self, db: impl PgExecutor<'_>, sagas: &[Saga]) -> Result<()> {
        if sagas.iter().any(|saga| self.of(saga).is_err()) {
            let all = Coded::read_all(db).await?;
            *self.workflows.write().unwrap_or_else(PoisonError::into_inner) = all;
        }
        Ok(())
    }

    /// Reads the numbers anew if this version is not among them.
    pub async fn know(&self, db: impl PgExecutor<'_>, workflow: &str, version: i32) -> Result<()> {
        let is_known = {
            let workflows = self.workflows.read().unwrap_or_else(PoisonError::into_inner);
            workflows.get(workflow).is_some_and(|versions| versions.contains_key(&version))
        };
        if !is_known {
            let all = Coded::read_all(db).await?;
            *self.workflows.write().unwrap_or_else(PoisonError::into_inner) = all;
        }
        Ok(())
    }

    /// The numbers of a saga's workflow.
    pub fn of(&self, saga: &Saga) -> std::result::Result<Arc<Coded>, Unregistered> {
        let workflows = self.workflows.read().unwrap_or_else(PoisonError::into_inner);
        let found = workflows.get(&saga.workflow).and_then(|versions| versions.get(&saga.version));
        found
            .cloned()
            .ok_or_else(|| unregistered("the workflow", &format!("{} {}", saga.workflow, saga.version)))
    }

    /// The number of a worker that is this process, or the name of another.
    pub fn worker<'a>(&self, name: Option<&'a str>) -> (Option<i32>, Option<&'a str>) {
        match name {
            Some(name) if *name == *self.instance_name => (Some(self.instance), None),
            other => (None, other),
        }
    }
}

impl Coded {
    async fn read_all(db: impl PgExecutor<'_>) -> Result<Names> {
        let all = sqlx::query_as!(
            Self,
            "select code, workflow, version, steps, signals, events from workflow_definitions order by code desc",
        )
        .fetch_all(db)
        .await?;
        let mut names = Names::new();
        for coded in all {
            names.entry(coded.workflow.clone()).or_default().insert(coded.version, Arc::new(coded));
        }
        Ok(names)
    }

    /// Adds the names that are not there yet at the ends of the lists.
    pub async fn write(db: impl PgExecutor<'_>, definition: &Definition) -> Result<()> {
        let steps: Vec<String> = definition.steps.iter().map(|step| step.name.clone()).collect();
        let signals: Vec<String> = definition.signals().into_iter().map(str::to_owned).collect();
        let events: Vec<String> = definition.events().into_iter().map(str::to_owned).collect();
        sqlx::query!(
            r#"
            insert into workflow_definitions as known (workflow, version, steps, signals, events, announced)
            values ($1, $2, $3, $4, $5, $6)
            on conflict (workflow, version) do update set
                steps = known.steps || array(
                    select name from unnest(excluded.steps) with ordinality as new (name, place)
                    where name <> all (known.steps) order by place),
                signals = known.signals || array(
                    select name from unnest(excluded.signals) with ordinality as new (name, place)
                    where name <> all (known.signals) order by place),
                events = known.events || array(
                    select name from unnest(excluded.events) with ordinality as new (name, place)
                    where name <> all (known.events) order by place),
                announced = excluded.announced
            "#,
            definition.name,
            definition.version,
            &steps,
            &signals,
            &events,
            announced(definition),
        )
        .execute(db)
        .await?;
        Ok(())
    }

    pub fn step(&self, name: &str) -> std::result::Result<i16, Unregistered> {
        place(&self.steps, name).ok_or_else(|| unregistered("the step", name))
    }

    /// The number of what happened.
    pub fn event(&self, name: &str) -> std::result::Result<i16, Unregistered> {
        let code = match name.strip_prefix(SIGNAL) {
            Some(signal) => place(&self.signals, signal).map(|place| place + FIRST_SIGNAL as i16),
            None => EVENTS.iter().position(|known| *known == name).map(|place| place as i16),
        };
        code.ok_or_else(|| unregistered("the event", name))
    }

    /// The places of the domain events that a history entry emits; none if it emits none.
    pub fn emits(&self, entry: &Entry) -> std::result::Result<Option<Vec<u8>>, BoxDynError> {
        if entry.emits.is_empty() {
            return Ok(None);
        }
        let places = entry.emits.iter().map(|name| {
            let place = place(&self.events, name).ok_or_else(|| unregistered("the domain event", name))?;
            Ok(u8::try_from(place)?)
        });
        places.collect::<std::result::Result<_, BoxDynError>>().map(Some)
    }
}

/// The number of a status.
pub fn status(status: Status) -> i16 {
    Status::ALL.iter().position(|known| *known == status).unwrap_or_default() as i16
}

/// The number of a direction.
pub fn direction(direction: Direction) -> i16 {
    i16::from(direction == Direction::Undo)
}

fn place(names: &[String], name: &str) -> Option<i16> {
    names.iter().position(|known| known == name).and_then(|place| i16::try_from(place).ok())
}

fn unregistered(what: &'static str, name: &str) -> Unregistered {
    Unregistered { what, name: name.to_owned() }
}

/// The fields of each step's output that later commands do not carry.
fn announced(definition: &Definition) -> Value {
    let steps = definition.steps.iter().filter(|step| !step.announces.is_empty());
    let fields = steps.map(|step| (step.name.clone(), json!(step.announces.keys().collect::<Vec<_>>())));
    Value::Object(fields.collect::<Map<String, Value>>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_and_direction_codes_match_the_schema() {
        assert_eq!(Status::ALL.map(status), [0, 1, 2, 3, 4, 5, 6]);
        assert_eq!((status(Status::Stuck), direction(Direction::Do), direction(Direction::Undo)), (5, 0, 1));
    }

    #[test]
    fn every_event_of_the_engine_has_a_number() {
        let coded = Coded {
            code: 1,
            workflow: String::new(),
            version: 1,
            steps: Vec::new(),
            signals: vec!["cancel".to_owned(), "pay".to_owned()],
            events: Vec::new(),
        };
        for act in crate::saga::OperatorAction::all() {
            assert!(coded.event(&format!("operator:{}", act.name())).is_ok());
        }
        assert_eq!(coded.event("signal:pay").unwrap(), 101);
        assert!(coded.event("signal:nonsense").is_err() && coded.event("nonsense").is_err());
    }
}
