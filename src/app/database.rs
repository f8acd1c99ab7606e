//! The database at the start of a process: whether it answers, keeps sessions, and has a schema that this release can use.

use anyhow::{Context, bail, ensure};
use sqlx::PgPool;

use super::PATIENCE;
use crate::bus::retry;
use crate::config::Settings;
use crate::operations::deployments::deploy_texts;
use crate::store;
use crate::workflows;

pub(super) const NO_ADDRESS: &str = "DATABASE_URL is not an address of Postgres";

/// Brings the schema of the database that the settings name up to date.
pub async fn migrate(settings: &Settings) -> anyhow::Result<()> {
    let pool = store::open(address(settings)?, 1).context(NO_ADDRESS)?;
    reach(&pool).await?;
    let migrated = migrate_on(&pool, settings).await;
    pool.close().await;
    migrated
}

/// Brings the schema up to date, and deploys the workflows of this release and of the folder that the settings name.
pub async fn migrate_on(pool: &PgPool, settings: &Settings) -> anyhow::Result<()> {
    let texts = workflows::with_folder(settings.engine.workflows.as_deref())?;
    store::migrate(pool).await.context("the schema cannot be brought up to date")?;
    deploy_texts(pool, &texts).await
}

pub(super) fn address(settings: &Settings) -> anyhow::Result<&str> {
    settings.servers.database_url.as_deref().context("DATABASE_URL is needed: the address of Postgres")
}

/// Waits until Postgres answers, and sees that it keeps sessions.
pub(super) async fn reach(pool: &PgPool) -> anyhow::Result<()> {
    let are_kept = retry::retry("reaching Postgres", Some(PATIENCE), || store::session::are_kept(pool))
        .await
        .context("Postgres does not answer; is DATABASE_URL right and the server running?")?;
    ensure!(are_kept, store::session::NOT_KEPT);
    Ok(())
}

/// Fails unless this release can work on the schema as it is.
pub(super) async fn check_schema(pool: &PgPool) -> anyhow::Result<()> {
    let fit = store::fit(pool).await.context("the schema cannot be looked at")?;
    if let Some(refusal) = fit.refusal {
        bail!(refusal);
    }
    ensure!(
        fit.missing.is_empty(),
        "the database's schema is too old for this release, it lacks {}; run `boxoffice migrate`, or start with --migrate",
        fit.missing.join(", ")
    );
    if !fit.newer.is_empty() {
        tracing::info!(migrations = ?fit.newer, "the schema is newer than this release, which works with it");
    }
    Ok(())
}
