//! Attributes of sagas: what their callers find them by.

use std::collections::BTreeMap;

use serde_json::{Map, Value};
use sqlx::PgExecutor;
use uuid::Uuid;

use super::Result;
use super::write_batch::{Part, WriteBatch};

const INSERT_ATTRIBUTES: Part =
    Part::new("started_attributes", include_str!("../../sql/insert_attributes.sql"));
const _: fn(Uuid, &[String], &[Value]) =
    |saga, names, values| drop(sqlx::query_file!("sql/insert_attributes.sql", saga, names, values));

/// Writes the attributes of a saga that is started by the same statement.
pub fn insert(changes: &mut WriteBatch, saga: Uuid, attributes: &Map<String, Value>) {
    if attributes.is_empty() {
        return;
    }
    let names: Vec<&str> = attributes.keys().map(String::as_str).collect();
    let values: Vec<&Value> = attributes.values().collect();
    changes.add(INSERT_ATTRIBUTES).bind(saga).bind(names).bind(values);
}

/// The attributes of a saga.
pub async fn of_saga(db: impl PgExecutor<'_>, saga: Uuid) -> Result<Map<String, Value>> {
    let rows = sqlx::query!("select name, value from saga_attributes where saga_id = $1 order by name", saga)
        .fetch_all(db)
        .await?;
    Ok(rows.into_iter().map(|row| (row.name, row.value)).collect())
}

/// The attributes of these sagas; sagas without any are left out.
pub async fn of_sagas(db: impl PgExecutor<'_>, sagas: &[Uuid]) -> Result<BTreeMap<Uuid, Map<String, Value>>> {
    let rows = sqlx::query!(
        "select saga_id, name, value from saga_attributes where saga_id = any($1) order by saga_id, name",
        sagas
    );
    let mut found: BTreeMap<Uuid, Map<String, Value>> = BTreeMap::new();
    for row in rows.fetch_all(db).await? {
        found.entry(row.saga_id).or_default().insert(row.name, row.value);
    }
    Ok(found)
}
