//! How types of the saga engine's crates are described in the API document: the crates know no API.

use std::borrow::Cow;

use chrono::{DateTime, Utc};
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{ObjectBuilder, Schema, Type};
use utoipa::{PartialSchema, ToSchema};
use uuid::Uuid;

use crate::saga::{Direction, Standing, Status};

/// The schema of [`Status`].
#[derive(Debug)]
pub struct SagaStatus;

/// The schema of [`Direction`].
#[derive(Debug)]
pub struct StepDirection;

/// The schema of [`Standing`].
#[derive(Debug)]
pub struct StepStanding;

/// A recorded transition of a saga, as core NATS carries it at once.
// The fields of `saga_protocol::messages::Transition`.
#[derive(Debug, ToSchema)]
#[schema(as = Transition)]
#[allow(dead_code)]
pub struct SagaTransition {
    version: u32,
    saga_id: Uuid,
    workflow: String,
    /// The number of its row in the saga's history.
    seq: i64,
    at: DateTime<Utc>,
    /// What happened, as the history calls it.
    event: String,
    /// Where the saga was when it happened.
    step: String,
    #[schema(value_type = StepDirection)]
    direction: Direction,
    visit: i32,
    attempt: i32,
    /// The saga's status after it.
    #[schema(value_type = SagaStatus)]
    status: Status,
    /// The saga's reason after it.
    reason: Option<String>,
}

impl PartialSchema for SagaStatus {
    fn schema() -> RefOr<Schema> {
        one_of(
            "Where a saga stands. The first three need an alarm; the others are ends or wait for an operator.",
            Status::ALL.map(Status::name),
        )
    }
}

impl ToSchema for SagaStatus {
    fn name() -> Cow<'static, str> {
        "SagaStatus".into()
    }
}

impl PartialSchema for StepDirection {
    fn schema() -> RefOr<Schema> {
        one_of("Whether a step's effect is made or taken back.", Direction::ALL.map(Direction::name))
    }
}

impl ToSchema for StepDirection {
    fn name() -> Cow<'static, str> {
        "Direction".into()
    }
}

impl PartialSchema for StepStanding {
    fn schema() -> RefOr<Schema> {
        one_of("How a step of a saga's definition stands.", Standing::ALL.map(Standing::name))
    }
}

impl ToSchema for StepStanding {
    fn name() -> Cow<'static, str> {
        "Standing".into()
    }
}

fn one_of<const N: usize>(description: &str, names: [&'static str; N]) -> RefOr<Schema> {
    let schema = ObjectBuilder::new().schema_type(Type::String).enum_values(Some(names));
    schema.description(Some(description)).into()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use saga_protocol::messages::Transition;

    use super::*;

    #[test]
    fn schema_of_a_transition_names_its_fields() {
        let sent = Transition {
            version: 1,
            saga_id: Uuid::nil(),
            workflow: String::new(),
            seq: 1,
            at: DateTime::UNIX_EPOCH,
            event: String::new(),
            step: String::new(),
            direction: Direction::Do,
            visit: 1,
            attempt: 1,
            status: Status::Running,
            reason: None,
        };
        let names = |value: serde_json::Value| -> BTreeSet<String> {
            value.as_object().unwrap().keys().cloned().collect()
        };
        let mut schema = serde_json::to_value(SagaTransition::schema()).unwrap();
        assert_eq!(names(schema["properties"].take()), names(serde_json::to_value(sent).unwrap()));
    }
}
