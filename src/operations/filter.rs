//! The filter of sagas for lists, counts and batches, over the API and on the command line.

use chrono::{DateTime, Datelike, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use crate::saga::{Direction, Status};
use crate::store::saga_search;

/// The longest text that is searched for, in characters.
const TEXT_CHARS_MAX: usize = 200;
/// The longest age, in seconds: ten years.
const AGE_MAX: u64 = 10 * 366 * 24 * 3_600;

/// Which sagas are meant; all that is given must hold.
#[derive(
    Clone,
    Debug,
    Default,
    PartialEq,
    Eq,
    Serialize,
    Deserialize,
    utoipa::IntoParams,
    utoipa::ToSchema,
    clap::Args,
)]
#[into_params(parameter_in = Query)]
#[serde(default)]
pub struct SagaFilter {
    /// Only this workflow
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workflow: Option<String>,
    /// Only this version of the workflow
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<i32>,
    /// Only this status, for instance `stuck`
    #[arg(long, value_parser = status)]
    #[param(inline, value_type = Option<crate::schemas::SagaStatus>)]
    #[schema(value_type = Option<crate::schemas::SagaStatus>)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<Status>,
    /// Only sagas at this step
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,
    /// Only sagas that go forward (do) or back (undo)
    #[arg(long, value_parser = direction)]
    #[param(inline, value_type = Option<crate::schemas::StepDirection>)]
    #[schema(value_type = Option<crate::schemas::StepDirection>)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub direction: Option<Direction>,
    /// Only sagas that are paused (true), or that are not (false)
    #[arg(long, num_args = 0..=1, default_missing_value = "true")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub paused: Option<bool>,
    /// Only sagas that have not ended
    #[arg(long, num_args = 0..=1, default_missing_value = "true")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub open: Option<bool>,
    /// Only sagas about this reservation
    #[arg(long = "reservation", value_name = "ID")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reservation_id: Option<Uuid>,
    /// Only sagas of this user
    #[arg(long = "user", value_name = "ID")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_id: Option<Uuid>,
    /// Only sagas about this performance
    #[arg(long = "performance", value_name = "ID")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub performance_id: Option<Uuid>,
    /// Only sagas with this text in their reason, in capitals or not
    #[arg(long, value_name = "TEXT")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason_contains: Option<String>,
    /// Only sagas that were started so long ago or longer
    #[arg(long = "older-than", value_name = "AGE, for instance 10m", value_parser = seconds)]
    #[param(minimum = 0)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub older_than_seconds: Option<u64>,
    /// Only sagas to which nothing has happened for so long or longer
    #[arg(long = "idle-for", value_name = "AGE, for instance 10m", value_parser = seconds)]
    #[param(minimum = 0)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle_seconds: Option<u64>,
    /// Only sagas that were started at this time or later (RFC 3339)
    #[arg(long, value_name = "TIME")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started_after: Option<DateTime<Utc>>,
    /// Only sagas that were started at this time or earlier (RFC 3339)
    #[arg(long, value_name = "TIME")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started_before: Option<DateTime<Utc>>,
    /// Only sagas with this attribute, as `name=value`
    #[arg(long, value_name = "NAME=VALUE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attribute: Option<String>,
}

impl SagaFilter {
    /// Fields with impossible values, and what is wrong with each.
    pub fn problems(&self) -> Vec<(&'static str, String)> {
        let mut problems = Vec::new();
        let texts = [
            ("workflow", &self.workflow),
            ("step", &self.step),
            ("reason_contains", &self.reason_contains),
            ("attribute", &self.attribute),
        ];
        if self.attribute.as_ref().is_some_and(|text| !text.contains('=')) {
            problems.push(("attribute", "must be of the form name=value".to_owned()));
        }
        for (field, text) in texts {
            let text = text.as_deref().unwrap_or_default();
            if text.chars().count() > TEXT_CHARS_MAX {
                problems.push((field, format!("must have {TEXT_CHARS_MAX} characters at most")));
            }
            // Postgres has no text with a zero in it.
            if text.chars().any(char::is_control) {
                problems.push((field, "must not have control characters in it".to_owned()));
            }
        }
        if self.reason_contains.as_deref() == Some("") {
            problems.push(("reason_contains", "must not be empty".to_owned()));
        }
        if self.version.is_some_and(|version| version < 1) {
            problems.push(("version", "must be 1 or more".to_owned()));
        }
        for (field, age) in
            [("older_than_seconds", self.older_than_seconds), ("idle_seconds", self.idle_seconds)]
        {
            if age.is_some_and(|age| age > AGE_MAX) {
                problems.push((field, format!("must be {AGE_MAX} seconds (ten years) at most")));
            }
        }
        for (field, time) in [("started_after", self.started_after), ("started_before", self.started_before)]
        {
            if time.is_some_and(|time| !(1970..=9999).contains(&time.year())) {
                problems.push((field, "must be between the years 1970 and 9999".to_owned()));
            }
        }
        if let (Some(after), Some(before)) = (self.started_after, self.started_before)
            && after > before
        {
            problems.push(("started_after", "must not be later than started_before".to_owned()));
        }
        problems
    }

    /// Whether it narrows nothing: every saga there is.
    pub fn is_everything(&self) -> bool {
        *self == Self::default() || *self == Self { open: Some(false), ..Self::default() }
    }

    /// As the store asks.
    pub(super) fn to_store(&self) -> saga_search::Filter {
        let age = |seconds: Option<u64>| Some(TimeDelta::seconds(i64::try_from(seconds?).ok()?));
        saga_search::Filter {
            workflow: self.workflow.clone(),
            version: self.version,
            status: self.status,
            step: self.step.clone(),
            direction: self.direction,
            paused: self.paused,
            open: self.open == Some(true),
            subject_id: self.reservation_id,
            user_id: self.user_id,
            performance_id: self.performance_id,
            reason: self.reason_contains.clone(),
            older_than: age(self.older_than_seconds),
            idle_for: age(self.idle_seconds),
            started_after: self.started_after,
            started_before: self.started_before,
            attribute: self.attribute.as_deref().and_then(attribute),
        }
    }
}

/// A value that is an integer is one, or the text of one.
fn attribute(text: &str) -> Option<saga_search::Attribute> {
    let (name, value) = text.split_once('=')?;
    let number = value.parse::<i64>().ok().map(Value::from);
    let values = [Value::from(value)].into_iter().chain(number).collect();
    Some(saga_search::Attribute { name: name.to_owned(), values })
}

fn status(text: &str) -> Result<Status, String> {
    text.parse().map_err(|_| format!("possible values: {}", Status::ALL.map(Status::name).join(", ")))
}

fn direction(text: &str) -> Result<Direction, String> {
    text.parse().map_err(|_| "possible values: do, undo".to_owned())
}

/// An age such as `90`, `10m` or `1h 30m`, in seconds.
fn seconds(text: &str) -> Result<u64, String> {
    if let Ok(seconds) = text.parse() {
        return Ok(seconds);
    }
    humantime::parse_duration(text)
        .map(|age| age.as_secs())
        .map_err(|error| format!("{error}; for instance 90s, 10m, 2h or 1d"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_read_as_people_write_them() {
        for (text, expected) in [("90", 90), ("90s", 90), ("10m", 600), ("1h 30m", 5_400), ("2d", 172_800)] {
            assert_eq!(seconds(text), Ok(expected), "{text}");
        }
        assert!(seconds("soon").unwrap_err().contains("10m"));
    }

    #[test]
    fn values_that_cannot_be_meant_are_named() {
        let filter = SagaFilter {
            step: Some("a\0".to_owned()),
            reason_contains: Some("x".repeat(201)),
            version: Some(0),
            idle_seconds: Some(u64::MAX),
            ..SagaFilter::default()
        };
        let fields: Vec<&str> = filter.problems().into_iter().map(|(field, _)| field).collect();
        assert_eq!(fields, ["step", "reason_contains", "version", "idle_seconds"]);
        assert!(SagaFilter::default().problems().is_empty());
    }

    #[test]
    fn time_range_must_not_be_reversed() {
        let at = |seconds| DateTime::from_timestamp(seconds, 0);
        let filter = |after, before| SagaFilter {
            started_after: at(after),
            started_before: at(before),
            ..SagaFilter::default()
        };
        assert!(filter(5, 5).problems().is_empty());
        let fields: Vec<&str> = filter(6, 5).problems().into_iter().map(|(field, _)| field).collect();
        assert_eq!(fields, ["started_after"]);
        assert_eq!(filter(0, 253_402_300_800).problems().len(), 1);
    }

    #[test]
    fn a_filter_that_narrows_nothing_is_known() {
        assert!(SagaFilter::default().is_everything());
        assert!(SagaFilter { open: Some(false), ..SagaFilter::default() }.is_everything());
        assert!(!SagaFilter { open: Some(true), ..SagaFilter::default() }.is_everything());
    }
}
