//! The schema itself: whether it is up to date, and what it looks like, for diagrams.

use sqlx::migrate::{Migrate, MigrateError};
use sqlx::{PgExecutor, PgPool};

use super::Result;

/// Where applied migrations are recorded.
const RECORD: &str = "_sqlx_migrations";

/// A column of a table, in the order of the table.
#[derive(Clone, Debug)]
pub struct Column {
    pub table: String,
    pub name: String,
    /// Postgres' name of the type, such as `bigint`.
    pub kind: String,
    pub required: bool,
    pub primary: bool,
}

/// A table and what it is for.
#[derive(Clone, Debug)]
pub struct Table {
    pub name: String,
    pub comment: Option<String>,
}

/// A foreign key: rows of `child` name a row of `parent`.
#[derive(Clone, Debug)]
pub struct Reference {
    pub child: String,
    pub parent: String,
    /// The columns of the child, separated by commas.
    pub columns: String,
    /// At most one row of the child names the same row of the parent.
    pub unique: bool,
    /// A row of the child may name none.
    pub optional: bool,
}

/// The migrations that the database lacks, by number and name; all of them if it was never migrated.
pub async fn missing(pool: &PgPool) -> std::result::Result<Vec<String>, MigrateError> {
    let migrator = sqlx::migrate!();
    let mut conn = pool.acquire().await?;
    let applied = match conn.list_applied_migrations(RECORD).await {
        Err(MigrateError::Execute(error)) if is_undefined_table(&error) => Vec::new(),
        listed => listed?,
    };
    let is_missing = |version: i64| !applied.iter().any(|done| done.version == version);
    let missing = migrator.iter().filter(|migration| is_missing(migration.version));
    Ok(missing.map(|migration| format!("{} {}", migration.version, migration.description)).collect())
}

fn is_undefined_table(error: &sqlx::Error) -> bool {
    error.as_database_error().and_then(|error| error.code()).is_some_and(|code| code == "42P01")
}

/// All tables, by name. One that is kept in parts counts as one.
pub async fn tables(db: impl PgExecutor<'_>) -> Result<Vec<Table>> {
    sqlx::query_as!(
        Table,
        r#"
        select c.relname::text as "name!", obj_description(c.oid, 'pg_class') as comment
        from pg_class c
        where c.relnamespace = current_schema()::regnamespace and c.relkind in ('r', 'p') and not c.relispartition
            and c.relname <> $1
        order by c.relname
        "#,
        RECORD,
    )
    .fetch_all(db)
    .await
}

/// All columns, by table and position.
pub async fn columns(db: impl PgExecutor<'_>) -> Result<Vec<Column>> {
    sqlx::query_as!(
        Column,
        r#"
        select c.relname::text as "table!", a.attname::text as "name!",
            replace(format_type(a.atttypid, a.atttypmod), 'timestamp with time zone', 'timestamptz') as "kind!",
            a.attnotnull as "required!",
            exists (select from pg_index i
                    where i.indrelid = c.oid and i.indisprimary and a.attnum = any (i.indkey)) as "primary!"
        from pg_class c
        join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
        where c.relnamespace = current_schema()::regnamespace and c.relkind in ('r', 'p') and not c.relispartition
            and c.relname <> $1
        order by c.relname, a.attnum
        "#,
        RECORD,
    )
    .fetch_all(db)
    .await
}

/// All foreign keys, by child and columns.
pub async fn references(db: impl PgExecutor<'_>) -> Result<Vec<Reference>> {
    sqlx::query_as!(
        Reference,
        r#"
        select child.relname::text as "child!", parent.relname::text as "parent!", named.columns as "columns!",
            exists (select from pg_index i
                    where i.indrelid = f.conrelid and i.indisunique and i.indpred is null
                        and i.indkey::int2[] @> f.conkey and i.indkey::int2[] <@ f.conkey) as "unique!",
            named.optional as "optional!"
        from pg_constraint f
        join pg_class child on child.oid = f.conrelid
        join pg_class parent on parent.oid = f.confrelid
        cross join lateral (
            select string_agg(a.attname::text, ', ' order by a.attnum) as columns, bool_or(not a.attnotnull) as optional
            from pg_attribute a where a.attrelid = f.conrelid and a.attnum = any (f.conkey)
        ) as named
        where f.contype = 'f' and f.connamespace = current_schema()::regnamespace
        order by 1, 3
        "#,
    )
    .fetch_all(db)
    .await
}
