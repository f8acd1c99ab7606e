//! Users made in local mode. In production they live with the identity provider, and no row is needed.

use sqlx::PgExecutor;
use uuid::Uuid;

use super::Result;

/// Adds a user; one that is there already (the same request once more) stays as it is.
pub async fn insert(db: impl PgExecutor<'_>, id: Uuid, name: &str) -> Result<()> {
    sqlx::query!(r#"insert into users (id, name) values ($1, $2) on conflict (id) do nothing"#, id, name)
        .execute(db)
        .await?;
    Ok(())
}
