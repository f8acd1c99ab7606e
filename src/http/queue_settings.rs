//! How a concert's line runs: reading its settings and changing them.

use std::sync::Arc;

use axum::extract::State;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Deserializer};
use utoipa::ToSchema;

use super::admin_state::AdminState;
use super::answer::Answer;
use super::auth::{Admin, Staff};
use super::problem::Result;
use super::request::{Bodied, Json, PathId};
use super::validation::{Validate, Validation};
use crate::operations::queues::By;
use crate::store::queue::{QueueSettings, SettingsChange};

/// How a concert's line runs.
#[utoipa::path(get, path = "/v1/admin/concerts/{concert}/queue", tag = "admin",
    params(("concert" = Uuid, Path)), security(("key" = [])), responses((status = 200, body = QueueSettings)),
    extensions(("x-problems" = json!(["forbidden", "not_found"]))))]
pub async fn show(
    State(app): State<Arc<AdminState>>,
    _staff: Staff<Admin>,
    PathId(concert): PathId,
) -> Result<Answer> {
    Ok(Answer::ok(&app.room()?.settings(concert).await?))
}

/// New settings of a line; what is left out stays as it is.
#[derive(Clone, Debug, Deserialize, ToSchema)]
pub struct SettingsWanted {
    /// Lowering it evicts no user.
    #[schema(minimum = 0, maximum = 1_000_000)]
    max_active: Option<i32>,
    #[schema(minimum = 0, maximum = 6_000_000)]
    admit_per_minute: Option<i32>,
    /// The slowest that the brake makes the admission; it is on if this and `max_rate` are set. Null takes it away.
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<i32>, minimum = 0, maximum = 6_000_000)]
    min_rate: Option<Option<i32>>,
    /// The fastest that the brake lets the admission become. Null takes it away.
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<i32>, minimum = 0, maximum = 6_000_000)]
    max_rate: Option<Option<i32>>,
    /// Null takes the time away.
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<DateTime<Utc>>)]
    pre_queue_at: Option<Option<DateTime<Utc>>>,
    /// Null: the sale opens with the first window of the concert's dates.
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<DateTime<Utc>>)]
    opens_at: Option<Option<DateTime<Utc>>>,
    paused: Option<bool>,
    /// Why; written down with the change.
    #[serde(default)]
    #[schema(format = "line", max_length = 1_000)]
    reason: Option<String>,
}

impl Bodied for SettingsWanted {}

/// Distinguishes a null in the body from a missing field.
fn given<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    value: D,
) -> std::result::Result<Option<Option<T>>, D::Error> {
    Option::deserialize(value).map(Some)
}

impl SettingsWanted {
    /// What is to change.
    pub fn change(&self) -> SettingsChange {
        SettingsChange {
            max_active: self.max_active,
            admit_per_minute: self.admit_per_minute,
            min_rate: self.min_rate,
            max_rate: self.max_rate,
            pre_queue_at: self.pre_queue_at,
            opens_at: self.opens_at,
            paused: self.paused,
        }
    }

    /// By whom, and why.
    pub fn by<'a>(&'a self, actor: &'a str) -> By<'a> {
        By { actor, reason: self.reason.as_deref().unwrap_or_default() }
    }
}

impl Validate for SettingsWanted {
    fn check(&self, faults: &mut Validation) {
        for (name, reason) in self.change().problems() {
            faults.expect(false, format!("/{name}"), reason);
        }
        faults.expect_line(self.reason.as_deref().unwrap_or_default(), 0..=1_000, "/reason");
        for (pointer, time) in [("/pre_queue_at", self.pre_queue_at), ("/opens_at", self.opens_at)] {
            if let Some(time) = time.flatten() {
                faults.expect_time(time, pointer);
            }
        }
    }
}

/// Changes how a concert's line runs, in force within a second.
#[utoipa::path(patch, path = "/v1/admin/concerts/{concert}/queue", tag = "admin", request_body = SettingsWanted,
    params(("concert" = Uuid, Path)), security(("key" = [])), responses((status = 200, body = QueueSettings)),
    extensions(("x-problems" = json!(["forbidden", "not_found"]))))]
pub async fn change(
    State(app): State<Arc<AdminState>>,
    staff: Staff<Admin>,
    PathId(concert): PathId,
    Json(wanted): Json<SettingsWanted>,
) -> Result<Answer> {
    let settings = app.room()?.change_settings(concert, &wanted.change(), wanted.by(&staff.key.name)).await?;
    Ok(Answer::ok(&settings))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn null_removes_a_time_absence_keeps_it() {
        let wanted: SettingsWanted = serde_json::from_str(r#"{ "opens_at": null }"#).unwrap();
        assert_eq!(wanted.change().opens_at, Some(None));
        assert_eq!(wanted.change().pre_queue_at, None);
    }
}
