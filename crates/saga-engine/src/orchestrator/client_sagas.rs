//! Sagas that programs outside start: of any workflow that is deployed, with their own input and attributes.

use chrono::{DateTime, Utc};
use fail::fail_point;
use saga_protocol::spans;
use serde_json::{Map, Value};
use uuid::Uuid;

use super::Engine;
use super::advance::start_version;
use super::saga_spans::{Started, record_start};
use crate::input_schema;
use crate::saga::{self, Definition, NewSaga, Saga};
use crate::store::write_batch::{WriteBatch, is_stale_read};
use crate::store::{self, attributes, definitions};
use crate::trace_context;

/// Most attributes of a saga.
pub const MAX_ATTRIBUTES: usize = 8;
/// Most characters of an attribute's value.
pub const MAX_ATTRIBUTE_CHARS: usize = 200;
/// Most characters of an attribute's name.
const MAX_NAME_CHARS: usize = 63;

/// A saga that is to be started.
#[derive(Clone, Debug)]
pub struct NewClientSaga {
    /// Starting a saga whose id is there already does nothing.
    pub id: Uuid,
    pub workflow: String,
    /// What the saga is about; without one it is about itself.
    pub subject_id: Option<Uuid>,
    pub input: Map<String, Value>,
    pub attributes: Map<String, Value>,
    pub trace: Option<Uuid>,
}

/// What is wrong with a start: a JSON pointer, and the reason.
pub type Fault = (String, String);

/// Why a saga was not started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("there is no workflow {0}")]
    UnknownWorkflow(String),
    #[error("the workflow {0} is retired: no new sagas begin")]
    Retired(String),
    #[error("{}", .0.iter().map(|(pointer, reason)| format!("{pointer}: {reason}")).collect::<Vec<_>>().join("; "))]
    Invalid(Vec<Fault>),
    #[error("sagas of {0} are started by the service itself")]
    Reserved(String),
    #[error("the definition of {0} {1} cannot be read by this process")]
    Undefined(String, i32),
    #[error(transparent)]
    Database(#[from] sqlx::Error),
}

impl NewClientSaga {
    /// What is wrong with it, whatever its workflow is.
    pub fn faults(&self) -> Vec<Fault> {
        let mut faults = Vec::new();
        if let Err(error) = crate::jsonb::check_object(&self.input) {
            faults.push((format!("/input{}", error.pointer), error.reason.to_owned()));
        }
        if let Some(problem) = saga::too_large(&Value::Object(Map::new()), &self.input) {
            faults.push(("/input".to_owned(), problem));
        }
        if self.attributes.len() > MAX_ATTRIBUTES {
            let count = self.attributes.len();
            faults.push((
                "/attributes".to_owned(),
                format!("has {count} attributes; {MAX_ATTRIBUTES} is the most"),
            ));
        }
        for (name, value) in self.attributes.iter().take(MAX_ATTRIBUTES) {
            if let Some(problem) = attribute_problem(name, value) {
                faults.push((format!("/attributes/{}", name.replace('~', "~0").replace('/', "~1")), problem));
            }
        }
        faults
    }
}

fn attribute_problem(name: &str, value: &Value) -> Option<String> {
    let letter = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    let is_name = name.len() <= MAX_NAME_CHARS
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.chars().all(letter);
    if !is_name {
        return Some(format!(
            "its name must begin with a letter a to z and have {MAX_NAME_CHARS} of the characters a to z, 0 to 9 and _ at most"
        ));
    }
    match value {
        Value::String(text) if text.chars().count() > MAX_ATTRIBUTE_CHARS => {
            Some(format!("must have {MAX_ATTRIBUTE_CHARS} characters at most"))
        }
        Value::String(text) => crate::jsonb::check_text(text).err().map(|error| error.reason.to_owned()),
        Value::Number(number) if number.is_i64() => None,
        _ => Some("must be a string or an integer of 64 bits".to_owned()),
    }
}

impl Engine {
    /// Starts a saga of the version that new sagas of its workflow begin with. `false`: a saga with this id was started before.
    pub async fn start_saga(&self, new: NewClientSaga) -> Result<bool, StartError> {
        if self.own_workflows.contains(&new.workflow.as_str()) {
            return Err(StartError::Reserved(new.workflow));
        }
        loop {
            match self.try_start(&new).await {
                // The version was retired between its look-up and the start.
                Err(StartError::Database(error)) if is_stale_read(&error) => {}
                started => return started,
            }
        }
    }

    async fn try_start(&self, new: &NewClientSaga) -> Result<bool, StartError> {
        let mut faults = new.faults();
        let definition = self.current_definition(&new.workflow).await?;
        if faults.is_empty() {
            let input = Value::Object(new.input.clone());
            let found = input_schema::faults(&definition, &input).into_iter();
            faults.extend(found.map(|fault| (format!("/input{}", fault.pointer), fault.reason)));
        }
        if !faults.is_empty() {
            return Err(StartError::Invalid(faults));
        }
        let (id, trace, begun) = (new.id, new.trace, spans::begin());
        match store::bounded(self.write_start(&definition, new.clone())).await {
            Ok(()) => {
                let started = Started { workflow: &definition.name, saga: id, trace, about: None };
                record_start(started, begun, trace_context::current());
                Ok(true)
            }
            Err(error) if is_taken(&error) && store::sagas::get(&self.pool, id).await?.is_some() => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// The version is looked up for each start, so that a deployment counts at once, on every process.
    async fn current_definition(&self, workflow: &str) -> Result<std::sync::Arc<Definition>, StartError> {
        let Some(version) = definitions::current_version(&self.pool, workflow).await? else {
            return Err(match definitions::is_known(&self.pool, workflow).await? {
                true => StartError::Retired(workflow.to_owned()),
                false => StartError::UnknownWorkflow(workflow.to_owned()),
            });
        };
        if self.registry.get(workflow, version).is_none() {
            definitions::load(&self.pool, &self.registry, [(workflow, version)].into_iter()).await?;
        }
        self.registry
            .get(workflow, version)
            .ok_or_else(|| StartError::Undefined(workflow.to_owned(), version))
    }

    async fn write_start(&self, definition: &Definition, new: NewClientSaga) -> store::Result<()> {
        let mut conn = self.steps.acquire().await?;
        let now: DateTime<Utc> = store::now(&mut *conn).await?;
        self.codes.know(&mut *conn, &definition.name, definition.version).await?;
        let NewClientSaga { id, subject_id, input, attributes, trace, .. } = new;
        let saga = NewSaga { id, subject_id: subject_id.unwrap_or(id), input, trace, seq: 0 };
        let mut changes = WriteBatch::default();
        definitions::compare_current(&mut changes, definition);
        let effects = start_version(&mut changes, self, definition, vec![saga], now);
        attributes::insert(&mut changes, id, &attributes);
        changes.write(&mut conn).await?;
        fail_point!("start::committed");
        self.dispatch_detached(effects);
        Ok(())
    }

    /// A saga as it stands, with its attributes.
    pub async fn find_saga(&self, id: Uuid) -> store::Result<Option<(Saga, Map<String, Value>)>> {
        let Some(mut saga) = store::sagas::get(&self.pool, id).await? else { return Ok(None) };
        store::flights::show_next_look(&self.pool, std::slice::from_mut(&mut saga)).await?;
        Ok(Some((saga, attributes::of_saga(&self.pool, id).await?)))
    }
}

/// Whether a row with this id is there: of the saga, of its history, or of its attributes.
fn is_taken(error: &sqlx::Error) -> bool {
    error.as_database_error().is_some_and(|error| error.is_unique_violation())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn faults(input: Value, attributes: Value) -> Vec<String> {
        let map = |value: Value| value.as_object().cloned().unwrap_or_default();
        let new = NewClientSaga {
            id: Uuid::from_u128(1),
            workflow: "trip".to_owned(),
            subject_id: None,
            input: map(input),
            attributes: map(attributes),
            trace: None,
        };
        new.faults().into_iter().map(|(pointer, _)| pointer).collect()
    }

    #[test]
    fn attributes_are_bounded() {
        assert_eq!(faults(json!({}), json!({ "city": "Oslo", "nights": -3 })), [""; 0]);
        let many: Map<String, Value> = (0..9).map(|n| (format!("a{n}"), json!(n))).collect();
        assert_eq!(faults(json!({}), Value::Object(many)), ["/attributes"]);
        for (name, value) in [
            ("City", json!("x")),
            ("a", json!(1.5)),
            ("a", json!(null)),
            ("a", json!("x".repeat(201))),
            ("a", json!("\0")),
        ] {
            assert_eq!(faults(json!({}), json!({ name: value })), [format!("/attributes/{name}")], "{value}");
        }
    }

    #[test]
    fn inputs_are_bounded() {
        assert_eq!(faults(json!({ "a": "\0" }), json!({})), ["/input/a"]);
        assert_eq!(faults(json!({ "a": "x".repeat(300_000) }), json!({})), ["/input"]);
    }
}
