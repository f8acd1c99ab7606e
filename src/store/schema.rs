//! The schema itself: whether it is up to date.

use sqlx::PgPool;
use sqlx::migrate::{Migrate, MigrateError};

/// Where applied migrations are recorded.
const RECORD: &str = "_sqlx_migrations";

/// The migrations that the database lacks, by number and name; all of them if it was never migrated.
pub async fn missing(pool: &PgPool) -> Result<Vec<String>, MigrateError> {
    let migrator = sqlx::migrate!();
    let mut conn = pool.acquire().await?;
    let applied = match conn.list_applied_migrations(RECORD).await {
        Err(MigrateError::Execute(error)) if is_undefined_table(&error) => Vec::new(),
        listed => listed?,
    };
    let is_missing = |version: i64| !applied.iter().any(|done| done.version == version);
    let missing = migrator.iter().filter(|migration| is_missing(migration.version));
    Ok(missing
        .map(|migration| format!("{} {}", migration.version, migration.description))
        .collect())
}

fn is_undefined_table(error: &sqlx::Error) -> bool {
    error
        .as_database_error()
        .and_then(|error| error.code())
        .is_some_and(|code| code == "42P01")
}
