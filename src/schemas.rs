//! How types of the saga engine's core are described in the API document: the core knows no API.

use std::borrow::Cow;

use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{ObjectBuilder, Schema, Type};
use utoipa::{PartialSchema, ToSchema};

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
