//! Statuses and directions of sagas as columns of the type text.

use std::str::FromStr;

use sqlx::encode::IsNull;
use sqlx::error::BoxDynError;
use sqlx::postgres::{PgArgumentBuffer, PgTypeInfo, PgValueRef};
use sqlx::{Decode, Encode, Postgres, Type, ValueRef};

use crate::saga::{Direction, Status};

/// A value that stands in its column by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Name<T>(pub T);

/// The same for a column that may be null. (A query macro converts a column's type by `From`, which cannot be had for two options.)
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OptionalName<T>(pub Option<T>);

impl<T> Type<Postgres> for Name<T> {
    fn type_info() -> PgTypeInfo {
        <str as Type<Postgres>>::type_info()
    }

    fn compatible(given: &PgTypeInfo) -> bool {
        <str as Type<Postgres>>::compatible(given)
    }
}

impl<'row, T> Decode<'row, Postgres> for Name<T>
where
    T: FromStr<Err: std::error::Error + Send + Sync + 'static>,
{
    fn decode(value: PgValueRef<'row>) -> Result<Self, BoxDynError> {
        Ok(Self(<&str as Decode<Postgres>>::decode(value)?.parse()?))
    }
}

impl<T> Type<Postgres> for OptionalName<T> {
    fn type_info() -> PgTypeInfo {
        Name::<T>::type_info()
    }

    fn compatible(given: &PgTypeInfo) -> bool {
        Name::<T>::compatible(given)
    }
}

impl<'row, T> Decode<'row, Postgres> for OptionalName<T>
where
    T: FromStr<Err: std::error::Error + Send + Sync + 'static>,
{
    fn decode(value: PgValueRef<'row>) -> Result<Self, BoxDynError> {
        if value.is_null() {
            Ok(Self(None))
        } else {
            Name::decode(value).map(|Name(found)| Self(Some(found)))
        }
    }
}

impl<T: std::fmt::Display> Encode<'_, Postgres> for Name<T> {
    fn encode_by_ref(&self, buffer: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
        <String as Encode<Postgres>>::encode(self.0.to_string(), buffer)
    }
}

impl From<Name<Self>> for Status {
    fn from(name: Name<Self>) -> Self {
        name.0
    }
}

impl From<OptionalName<Status>> for Option<Status> {
    fn from(name: OptionalName<Status>) -> Self {
        name.0
    }
}

impl From<Name<Self>> for Direction {
    fn from(name: Name<Self>) -> Self {
        name.0
    }
}
