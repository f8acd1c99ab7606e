//! The migrations of the engine and of the box office: whether a database has them, and applying them.

use sqlx::PgPool;

use super::schema::{self, Fit, SchemaError};

/// Compares the migrations of this release with those that were applied.
pub async fn fit(pool: &PgPool) -> Result<Fit, SchemaError> {
    schema::fit(pool, &sqlx::migrate!()).await
}

/// Brings the schema up to date. Several processes may do so at once.
pub async fn migrate(pool: &PgPool) -> Result<(), SchemaError> {
    schema::apply(pool, sqlx::migrate!()).await
}
