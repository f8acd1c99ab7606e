//! What a new Postgres needs before the first migration: the service's role, and a database that belongs to it.

use sqlx::{AssertSqlSafe, Connection, PgConnection, Result};

/// Makes the role and a database of the same name where they are missing. The role may do everything in its database and
/// nothing to the server. Its name and password go into the statement as they are: they must be plain words.
pub async fn make_database(superuser_url: &str, role: &str, password: &str) -> Result<()> {
    let (server, _database) = superuser_url.rsplit_once('/').unwrap_or((superuser_url, ""));
    let mut superuser = PgConnection::connect(&format!("{server}/postgres")).await?;
    let sql = "select exists (select from pg_roles where rolname = $1)";
    if !exists(&mut superuser, sql, role).await? {
        make(&mut superuser, format!("create role {role} login password '{password}'")).await?;
    }
    let sql = "select exists (select from pg_database where datname = $1)";
    if !exists(&mut superuser, sql, role).await? {
        make(&mut superuser, format!("create database {role} owner {role}")).await?;
    }
    superuser.close().await
}

async fn exists(superuser: &mut PgConnection, sql: &'static str, name: &str) -> Result<bool> {
    sqlx::query_scalar(sql).bind(name).fetch_one(superuser).await
}

/// Names and passwords of roles cannot be parameters.
async fn make(superuser: &mut PgConnection, sql: String) -> Result<()> {
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(superuser).await.map(drop)
}
