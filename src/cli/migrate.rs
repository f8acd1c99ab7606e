//! `migrate`: brings the schema up to date.

use anyhow::Context as _;
use serde_json::json;

use super::{Context, Ending};
use crate::store;

pub(super) async fn run(context: &Context) -> anyhow::Result<Ending> {
    let pool = context.database().await?;
    store::migrate(&pool).await.context("the schema cannot be brought up to date")?;
    context.output.answer(&json!({ "migrated": true }), |_| "The schema is up to date.".to_owned())?;
    Ok(Ending::Good)
}
