//! The members of a group of parallel steps as a column of the type bytea.

use sqlx::error::BoxDynError;
use sqlx::postgres::{PgTypeInfo, PgValueRef};
use sqlx::{Decode, Postgres, Type, ValueRef};

use crate::saga::Members;

/// The column as it is read; null: there are none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MembersColumn(Members);

impl Type<Postgres> for MembersColumn {
    fn type_info() -> PgTypeInfo {
        <[u8] as Type<Postgres>>::type_info()
    }
}

impl<'row> Decode<'row, Postgres> for MembersColumn {
    fn decode(value: PgValueRef<'row>) -> Result<Self, BoxDynError> {
        if value.is_null() {
            return Ok(Self::default());
        }
        Ok(Self(Members::decode(<&[u8] as Decode<Postgres>>::decode(value)?)?))
    }
}

impl From<MembersColumn> for Members {
    fn from(column: MembersColumn) -> Self {
        column.0
    }
}

/// The column as it is written.
pub(super) fn encode(members: &Members) -> Option<Vec<u8>> {
    (!members.is_empty()).then(|| members.encode())
}
