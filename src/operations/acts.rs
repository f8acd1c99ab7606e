//! What operators did: who, when, why, from what to what.

use chrono::{DateTime, Utc};
use serde::Deserialize;
use sqlx::PgPool;
use utoipa::IntoParams;
use uuid::Uuid;

use super::AskError;
use crate::store::operations;
pub use crate::store::operations::OperatorAct;

/// The longest name of an actor, in characters.
const ACTOR_CHARS_MAX: usize = 200;

/// Which acts are meant; all that is given must hold.
#[derive(Clone, Debug, Default, Deserialize, IntoParams, clap::Args)]
#[into_params(parameter_in = Query)]
pub struct ActsFilter {
    /// Only acts on this saga
    #[arg(long = "saga", value_name = "ID")]
    pub saga_id: Option<Uuid>,
    /// Only acts of this key, or of this user of the command line (`cli:name`)
    #[arg(long)]
    pub actor: Option<String>,
    /// Only acts since this time (RFC 3339)
    #[arg(long, value_name = "TIME")]
    pub since: Option<DateTime<Utc>>,
}

impl ActsFilter {
    /// Fields with values that cannot be meant, and what is wrong with each.
    pub fn problems(&self) -> Vec<(&'static str, String)> {
        let actor = self.actor.as_deref().unwrap_or_default();
        let strange = actor.chars().count() > ACTOR_CHARS_MAX || actor.chars().any(char::is_control);
        let problem = format!("must have {ACTOR_CHARS_MAX} characters at most, and no control characters");
        if strange { vec![("actor", problem)] } else { Vec::new() }
    }
}

/// Acts that match, newest first, before the act `before`.
pub async fn list(
    pool: &PgPool,
    filter: &ActsFilter,
    before: Option<i64>,
    limit: i64,
) -> Result<Vec<OperatorAct>, AskError> {
    let actor = filter.actor.as_deref();
    Ok(operations::acts(pool, filter.saga_id, actor, filter.since, before, limit).await?)
}
