//! `migrate`: brings the schema up to date, and deploys the workflows of this release.

use serde_json::json;

use super::{Context, Ending};
use crate::app;
use crate::store;

pub(super) async fn run(context: &Context) -> anyhow::Result<Ending> {
    let pool = context.database().await?;
    app::migrate_on(&pool, &context.settings).await?;
    let fit = store::fit(&pool).await?;
    let answer = json!({ "migrated": true, "newer": fit.newer });
    context.output.answer(&answer, |_| match fit.newer.is_empty() {
        true => "The schema is up to date.".to_owned(),
        false => "The schema is newer than this release, which works with it.".to_owned(),
    })?;
    Ok(Ending::Good)
}
