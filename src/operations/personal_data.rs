//! What is kept about one user: exporting all of it, and removing the name and the free texts. Both are written down as acts.

use serde::Serialize;
use serde_json::{Value, json};
use sqlx::{PgConnection, PgPool};
use utoipa::ToSchema;
use uuid::Uuid;

use super::queues::By;
use crate::store;
use crate::store::audit::snapshot;
use crate::store::operations::{self, ActRow};
use crate::store::personal_data::{self as rows, UserIds};

/// Most rows of one list of an export.
pub const LIST_ROWS_MAX: usize = 50_000;

/// All that is kept about a user, as it stands in the tables; each list is that of a table or view of its name.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct UserData {
    pub user_id: Uuid,
    /// The user's name, in local mode; null in production, and after it was removed.
    #[schema(value_type = Option<Object>)]
    pub user: Option<Value>,
    /// The user's points.
    #[schema(value_type = Option<Object>)]
    pub account: Option<Value>,
    #[schema(value_type = Vec<Object>)]
    pub reservations: Vec<Value>,
    #[schema(value_type = Vec<Object>)]
    pub payments: Vec<Value>,
    #[schema(value_type = Vec<Object>)]
    pub tickets: Vec<Value>,
    /// Seats that support took off the user's reservations.
    #[schema(value_type = Vec<Object>)]
    pub seat_refunds: Vec<Value>,
    /// Points that support gave as goodwill.
    #[schema(value_type = Vec<Object>)]
    pub goodwill_grants: Vec<Value>,
    /// Events about the user's reservations that no saga announces.
    #[schema(value_type = Vec<Object>)]
    pub direct_events: Vec<Value>,
    /// Scans of the tickets at the entrance.
    #[schema(value_type = Vec<Object>)]
    pub redemptions: Vec<Value>,
    #[schema(value_type = Vec<Object>)]
    pub ledger_entries: Vec<Value>,
    /// Sagas of the user's reservations and cancellations, and those whose subject is the user, with their input.
    #[schema(value_type = Vec<Object>)]
    pub sagas: Vec<Value>,
    #[schema(value_type = Vec<Object>)]
    pub saga_history: Vec<Value>,
    #[schema(value_type = Vec<Object>)]
    pub saga_attributes: Vec<Value>,
    /// Places in line.
    #[schema(value_type = Vec<Object>)]
    pub queue_places: Vec<Value>,
    /// Acts of operators on any of this.
    #[schema(value_type = Vec<Object>)]
    pub operator_acts: Vec<Value>,
    /// Requests under an `Idempotency-Key` of the last 24 hours.
    #[schema(value_type = Vec<Object>)]
    pub requests: Vec<Value>,
    #[schema(value_type = Vec<Object>)]
    pub parked_messages: Vec<Value>,
    #[schema(value_type = Vec<Object>)]
    pub batch_jobs: Vec<Value>,
    /// Events that were or are to be posted to webhook endpoints.
    #[schema(value_type = Vec<Object>)]
    pub webhook_deliveries: Vec<Value>,
}

/// What was removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct UserForgotten {
    pub user_id: Uuid,
    /// Whether there was a name.
    pub name_removed: bool,
    /// Reasons of operators' acts that were removed.
    pub act_reasons_removed: u64,
    pub batch_reasons_removed: u64,
    /// Reasons of refunds of seats and of goodwill.
    pub support_reasons_removed: i64,
    /// Reasons why scans of tickets were undone.
    pub redemption_reasons_removed: u64,
    /// Attributes of ended sagas that were removed.
    pub attributes_removed: u64,
}

/// Why nothing was exported or removed.
#[derive(Debug, thiserror::Error)]
pub enum PersonalDataError {
    #[error("nothing is kept about this user")]
    Unknown,
    #[error(
        "the user has more than {LIST_ROWS_MAX} {0}, and an export of one user has no list that is longer; filter an export of all"
    )]
    TooMuch(&'static str),
    #[error(transparent)]
    Database(#[from] sqlx::Error),
}

/// All that is kept about a user, as of one moment.
pub async fn export(pool: &PgPool, user: Uuid, by: By<'_>) -> Result<UserData, PersonalDataError> {
    if !rows::is_known(pool, user).await? {
        return Err(PersonalDataError::Unknown);
    }
    record(pool, user, "user.export", by, "exported", None).await?;
    let mut tx = snapshot(pool).await?;
    let data = read(&mut tx, user).await?;
    tx.commit().await?;
    Ok(data)
}

async fn read(conn: &mut PgConnection, user: Uuid) -> Result<UserData, PersonalDataError> {
    let limit = LIST_ROWS_MAX as i64 + 1;
    let ids = rows::ids(&mut *conn, user).await?;
    let caller = format!("user:{user}");
    Ok(UserData {
        user_id: user,
        user: rows::profile(&mut *conn, user).await?,
        account: rows::account(&mut *conn, user).await?,
        reservations: whole("reservations", rows::reservations(&mut *conn, user, limit).await?)?,
        payments: whole("payments", rows::payments(&mut *conn, user, limit).await?)?,
        tickets: whole("tickets", rows::tickets(&mut *conn, user, limit).await?)?,
        seat_refunds: whole("refunds of seats", rows::seat_refunds(&mut *conn, user, limit).await?)?,
        goodwill_grants: whole("goodwill grants", rows::goodwill_grants(&mut *conn, user, limit).await?)?,
        direct_events: whole("events", rows::direct_events(&mut *conn, user, &ids.sagas, limit).await?)?,
        redemptions: whole("redemptions", rows::redemptions(&mut *conn, user, limit).await?)?,
        ledger_entries: whole("ledger entries", rows::ledger_entries(&mut *conn, user, limit).await?)?,
        sagas: whole("sagas", rows::sagas(&mut *conn, &ids.sagas, limit).await?)?,
        saga_history: whole("rows of history", rows::saga_history(&mut *conn, &ids.sagas, limit).await?)?,
        saga_attributes: whole("attributes", rows::saga_attributes(&mut *conn, &ids.sagas, limit).await?)?,
        queue_places: whole("places in line", rows::queue_places(&mut *conn, user, limit).await?)?,
        operator_acts: whole("acts", rows::acts(&mut *conn, &ids, limit).await?)?,
        requests: whole("requests", rows::requests(&mut *conn, &caller, limit).await?)?,
        parked_messages: whole("parked messages", rows::parked_messages(&mut *conn, &ids, limit).await?)?,
        webhook_deliveries: whole(
            "deliveries to webhook endpoints",
            rows::webhook_deliveries(&mut *conn, user, &ids.sagas, limit).await?,
        )?,
        batch_jobs: whole("batches", rows::batches(&mut *conn, &ids, limit).await?)?,
    })
}

/// The list, unless rows of it would be left out.
fn whole(what: &'static str, rows: Vec<Value>) -> Result<Vec<Value>, PersonalDataError> {
    if rows.len() > LIST_ROWS_MAX { Err(PersonalDataError::TooMuch(what)) } else { Ok(rows) }
}

/// Removes the user's name and the free texts about the user. What the books need stays: reservations, ledger entries, tickets and
/// sagas, which name the user by id only.
pub async fn forget(pool: &PgPool, user: Uuid, by: By<'_>) -> Result<UserForgotten, PersonalDataError> {
    let mut tx = pool.begin().await?;
    if !rows::is_known(&mut *tx, user).await? {
        return Err(PersonalDataError::Unknown);
    }
    let ids: UserIds = rows::ids(&mut tx, user).await?;
    let forgotten = UserForgotten {
        user_id: user,
        name_removed: rows::remove_name(&mut *tx, user).await?,
        act_reasons_removed: rows::remove_act_reasons(&mut *tx, &ids).await?,
        batch_reasons_removed: rows::remove_batch_reasons(&mut *tx, &ids).await?,
        support_reasons_removed: rows::remove_support_reasons(&mut *tx, user).await?,
        redemption_reasons_removed: rows::remove_redemption_reasons(&mut *tx, user).await?,
        attributes_removed: rows::remove_attributes(&mut *tx, &ids.sagas).await?,
    };
    record(&mut *tx, user, "user.forget", by, "forgotten", Some(&json!(forgotten))).await?;
    tx.commit().await?;
    Ok(forgotten)
}

async fn record(
    db: impl sqlx::PgExecutor<'_>,
    user: Uuid,
    act: &str,
    by: By<'_>,
    to: &str,
    detail: Option<&Value>,
) -> store::Result<()> {
    let target = format!("user {user}");
    let row = ActRow {
        actor: by.actor,
        act,
        saga_id: None,
        target: Some(&target),
        reason: by.reason,
        from: "",
        to,
        detail,
    };
    operations::record_act(db, &row).await
}
