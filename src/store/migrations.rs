//! The migrations of the engine and of the box office: whether a database has them, and applying them.

use sqlx::PgPool;
use sqlx::migrate::{Migration, Migrator};

use super::schema::{self, Fit, SchemaError};

/// All migrations, by number. The engine's and the box office's share one row of numbers, so that a number says which is older.
pub fn migrator() -> Migrator {
    let engine = schema::migrator();
    let mut all: Vec<Migration> = engine.iter().chain(sqlx::migrate!().iter()).cloned().collect();
    all.sort_by_key(|migration| migration.version);
    Migrator::with_migrations(all)
}

/// Compares the migrations of this release with those that were applied.
pub async fn fit(pool: &PgPool) -> Result<Fit, SchemaError> {
    schema::fit(pool, &migrator()).await
}

/// Brings the schema up to date. Several processes may do so at once.
pub async fn migrate(pool: &PgPool) -> Result<(), SchemaError> {
    schema::apply(pool, migrator()).await
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn migrations_of_both_folders_have_different_numbers() {
        let all = migrator();
        let numbers: BTreeSet<i64> = all.iter().map(|migration| migration.version).collect();
        assert_eq!(numbers.len(), all.iter().count());
    }
}
