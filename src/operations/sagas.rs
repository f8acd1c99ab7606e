//! Reads of sagas: the list, the counts, and one saga with its history and steps.

use sqlx::PgPool;
use uuid::Uuid;

use super::{AskError, SagaDetail, SagaFilter, SagaView, timeline};
use crate::saga::{Saga, WorkflowRegistry};
use crate::store;
use crate::store::saga_search::{self, Count};
use saga_engine::store::attributes;

/// Sagas that match, newest first, older than `before`.
pub async fn list(
    pool: &PgPool,
    filter: &SagaFilter,
    before: Option<Uuid>,
    limit: i64,
) -> Result<Vec<Saga>, AskError> {
    Ok(saga_search::list(pool, &filter.to_store(), before, limit).await?)
}

/// The same as they are shown, with their attributes.
pub async fn list_views(
    pool: &PgPool,
    filter: &SagaFilter,
    before: Option<Uuid>,
    limit: i64,
) -> Result<Vec<SagaView>, AskError> {
    let found = list(pool, filter, before, limit).await?;
    let ids: Vec<Uuid> = found.iter().map(|saga| saga.id).collect();
    let mut attributes = attributes::of_sagas(pool, &ids).await?;
    let view = |saga: Saga| {
        let own = attributes.remove(&saga.id).unwrap_or_default();
        SagaView::from(saga).with_attributes(own)
    };
    Ok(found.into_iter().map(view).collect())
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
    let mut detail = timeline::detail(definition.as_deref(), saga, history);
    detail.saga.attributes = Some(attributes::of_saga(pool, id).await?);
    Ok(detail)
}
