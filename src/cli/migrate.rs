//! `migrate`: brings the schema up to date.

use anyhow::Context as _;
use serde_json::json;

use super::{Context, Ending};
use crate::store::{self, schema};

pub(super) async fn run(context: &Context) -> anyhow::Result<Ending> {
    let pool = context.database().await?;
    store::migrate(&pool).await.context("the schema cannot be brought up to date")?;
    let fit = schema::fit(&pool).await?;
    let answer = json!({ "migrated": true, "newer": fit.newer });
    context.output.answer(&answer, |_| match fit.newer.is_empty() {
        true => "The schema is up to date.".to_owned(),
        false => "The schema is newer than this release, which works with it.".to_owned(),
    })?;
    Ok(Ending::Good)
}
