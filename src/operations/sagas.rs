//! Reads of sagas: the list, the counts, and one saga with its history and steps.

use sqlx::PgPool;
use uuid::Uuid;

use super::{AskError, SagaDetail, SagaFilter, timeline};
use crate::saga::{Saga, WorkflowRegistry};
use crate::store;
use crate::store::saga_search::{self, Count};

/// Sagas that match, newest first, older than `before`.
pub async fn list(
    pool: &PgPool,
    filter: &SagaFilter,
    before: Option<Uuid>,
    limit: i64,
) -> Result<Vec<Saga>, AskError> {
    Ok(saga_search::list(pool, &filter.to_store(), before, limit).await?)
}

/// How many sagas that match stand where.
pub async fn counts(pool: &PgPool, filter: &SagaFilter) -> Result<Vec<Count>, AskError> {
    Ok(saga_search::counts(pool, &filter.to_store()).await?)
}

/// One saga with its history, its steps and its way back.
pub async fn show(pool: &PgPool, registry: &WorkflowRegistry, id: Uuid) -> Result<SagaDetail, AskError> {
    let mut saga = store::sagas::get(pool, id).await?.ok_or(AskError::Unknown)?;
    store::flights::show_next_look(pool, std::slice::from_mut(&mut saga)).await?;
    let history = store::history::of_sagas(pool, &[id]).await?;
    store::definitions::learn(pool, registry, std::slice::from_ref(&saga)).await?;
    let definition = registry.get(&saga.workflow, saga.version);
    Ok(timeline::detail(definition.as_deref(), saga, history))
}
