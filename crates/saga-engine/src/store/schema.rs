//! The schema itself: whether this release can work on it, bringing it up to date, and what it looks like, for diagrams.

use std::collections::BTreeMap;
use std::time::Duration;

use sqlx::migrate::{Migrate, MigrateError, Migration, Migrator};
use sqlx::{Connection, PgConnection, PgExecutor, PgPool};
use tokio::time::{Instant, sleep};

use super::Result;

/// Where applied migrations are recorded.
const RECORD: &str = "_sqlx_migrations";
/// What this program calls itself.
const RELEASE: &str = env!("CARGO_PKG_VERSION");
/// The lock that a process has while it migrates.
const MIGRATION_LOCK: i64 = 0x0b0f_f1ce_0111;
/// How long a migration waits for a lock: requests that need the same table wait behind it.
pub const MIGRATION_LOCK_TIMEOUT: Duration = Duration::from_secs(1);
/// A migration that fills a table or an index may take long; waiting for a lock may not.
const MIGRATION_SETTINGS: &str = "set lock_timeout = '1s'; set statement_timeout = 0";
/// How long locks of others, and other processes that migrate, are waited for.
const MIGRATION_TIMEOUT: Duration = Duration::from_secs(300);
const RETRY_INTERVAL: Duration = Duration::from_millis(500);

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

/// How the schema of a database and this release fit together.
#[derive(Clone, Debug, Default)]
pub struct Fit {
    /// Migrations that the database lacks, by number and name.
    pub missing: Vec<String>,
    /// Migrations of newer releases that say that this one works with them.
    pub newer: Vec<i64>,
    /// Why this release cannot work on the schema whatever is migrated, in one sentence that says what to do.
    pub refusal: Option<String>,
}

/// What a migration says about older releases.
#[derive(Clone, Debug)]
struct Compatibility {
    migration: i64,
    oldest_level: i64,
    oldest_release: String,
}

/// Why the schema was not brought up to date.
#[derive(Debug, thiserror::Error)]
pub enum SchemaError {
    #[error("{0}")]
    Refused(String),
    #[error("another process has been migrating the database for {} s; look at it, then try again", .0.as_secs())]
    InUse(Duration),
    #[error(transparent)]
    Migrate(#[from] MigrateError),
    #[error(transparent)]
    Database(#[from] sqlx::Error),
}

/// The engine's own migrations: all that a program needs that has no tables of its own beside them.
pub fn migrator() -> Migrator {
    sqlx::migrate!()
}

/// Compares the migrations of this program with those that were applied.
pub async fn fit(pool: &PgPool, migrator: &Migrator) -> std::result::Result<Fit, SchemaError> {
    let mut conn = pool.acquire().await?;
    compare(&mut conn, migrator).await
}

/// Applies the migrations of `migrator` that the database lacks. One that does not get a lock within
/// [`MIGRATION_LOCK_TIMEOUT`] gives way to the requests that wait behind it, and is tried again.
pub async fn apply(pool: &PgPool, mut migrator: Migrator) -> std::result::Result<(), SchemaError> {
    migrator.set_ignore_missing(true);
    // Closed in the end, whatever happened: that gives back its locks and settings.
    let mut conn = pool.acquire().await?.detach();
    let applied = apply_alone(&mut conn, &migrator).await;
    conn.close().await?;
    applied
}

async fn apply_alone(conn: &mut PgConnection, migrator: &Migrator) -> std::result::Result<(), SchemaError> {
    let deadline = Instant::now() + MIGRATION_TIMEOUT;
    // Asked again and again: a session that waits for the lock in one statement would hold up `create index concurrently`.
    while !sqlx::query_scalar!(r#"select pg_try_advisory_lock($1) as "got!""#, MIGRATION_LOCK)
        .fetch_one(&mut *conn)
        .await?
    {
        if Instant::now() > deadline {
            return Err(SchemaError::InUse(MIGRATION_TIMEOUT));
        }
        sleep(RETRY_INTERVAL).await;
    }
    if let Some(refusal) = compare(conn, migrator).await?.refusal {
        return Err(SchemaError::Refused(refusal));
    }
    sqlx::raw_sql(MIGRATION_SETTINGS).execute(&mut *conn).await?;
    loop {
        match migrator.run(&mut *conn).await {
            Err(error) if is_lock_timeout(&error) && Instant::now() < deadline => {
                tracing::warn!(%error, "a migration did not get its lock; it is tried again");
                sleep(RETRY_INTERVAL).await;
            }
            done => return Ok(done?),
        }
    }
}

async fn compare(conn: &mut PgConnection, migrator: &Migrator) -> std::result::Result<Fit, SchemaError> {
    let applied = match conn.list_applied_migrations(RECORD).await {
        Err(MigrateError::Execute(error)) if is_undefined_table(&error) => Vec::new(),
        listed => listed?,
    };
    let known: BTreeMap<i64, &Migration> =
        migrator.iter().map(|migration| (migration.version, migration)).collect();
    let is_missing = |version: &i64| !applied.iter().any(|done| done.version == *version);
    let missing = known.iter().filter(|(version, _)| is_missing(version));
    let missing =
        missing.map(|(version, migration)| format!("{version:04} {}", migration.description)).collect();
    let altered = applied
        .iter()
        .find(|done| known.get(&done.version).is_some_and(|migration| migration.checksum != done.checksum));
    let newer: Vec<i64> =
        applied.iter().map(|done| done.version).filter(|version| !known.contains_key(version)).collect();
    let level = known.keys().next_back().copied().unwrap_or_default();
    let refusal = match altered {
        Some(altered) => Some(format!(
            "the database has migration {:04} in another form than this release ({RELEASE}); start the release that \
             applied it",
            altered.version
        )),
        None if newer.is_empty() => None,
        None => refuse_newer(&compatibilities(conn).await?, &newer, level),
    };
    Ok(Fit { missing, newer, refusal })
}

/// The first of the newer migrations that this release does not work with, and what to do.
fn refuse_newer(known: &[Compatibility], newer: &[i64], level: i64) -> Option<String> {
    newer.iter().find_map(|version| match known.iter().find(|row| row.migration == *version) {
        Some(row) if row.oldest_level <= level => None,
        Some(row) => Some(format!(
            "the database has migration {version:04}, which needs release {} or newer (this is {RELEASE}, which knows \
             migrations up to {level:04}); start that release",
            row.oldest_release
        )),
        None => Some(format!(
            "the database has migration {version:04} of a newer release, which older ones cannot work with (this is \
             {RELEASE}, which knows migrations up to {level:04}); start the release that applied it"
        )),
    })
}

async fn compatibilities(conn: &mut PgConnection) -> Result<Vec<Compatibility>> {
    let rows = sqlx::query_as!(
        Compatibility,
        "select migration, oldest_level, oldest_release from schema_compatibility",
    );
    match rows.fetch_all(conn).await {
        Err(error) if is_undefined_table(&error) => Ok(Vec::new()),
        rows => rows,
    }
}

fn is_undefined_table(error: &sqlx::Error) -> bool {
    has_code(error, "42P01")
}

fn is_lock_timeout(error: &MigrateError) -> bool {
    match error {
        MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => has_code(error, "55P03"),
        _ => false,
    }
}

fn has_code(error: &sqlx::Error, sqlstate: &str) -> bool {
    error.as_database_error().and_then(|error| error.code()).is_some_and(|code| code == sqlstate)
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
