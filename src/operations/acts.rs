//! What operators did: who, when, why, from what to what.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sqlx::PgPool;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::AskError;
use crate::store::operations;

/// The longest name of an actor, in characters.
const ACTOR_CHARS_MAX: usize = 200;

/// An act as it was written down.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct OperatorAct {
    pub id: i64,
    pub at: DateTime<Utc>,
    /// The key's name, or `cli:` and the user of the command line.
    pub actor: String,
    pub act: String,
    /// The saga it was done to; null for an act on something else.
    pub saga_id: Option<Uuid>,
    /// What it was done to that is no saga: a workflow, a command, a parked message, the concert of a line.
    pub target: Option<String>,
    pub reason: String,
    /// The status before.
    #[serde(rename = "from")]
    pub from_status: String,
    /// The status after.
    #[serde(rename = "to")]
    pub to_status: String,
    /// What belongs to the act: a hand-made output, what was left behind.
    pub detail: Option<Value>,
}

impl From<operations::OperatorAct> for OperatorAct {
    fn from(act: operations::OperatorAct) -> Self {
        let operations::OperatorAct {
            id,
            at,
            actor,
            act,
            saga_id,
            target,
            reason,
            from_status,
            to_status,
            detail,
        } = act;
        Self { id, at, actor, act, saga_id, target, reason, from_status, to_status, detail }
    }
}

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
    /// Fields with impossible values, and what is wrong with each.
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
    let found = operations::acts(pool, filter.saga_id, actor, filter.since, before, limit).await?;
    Ok(found.into_iter().map(OperatorAct::from).collect())
}
