//! The sales report of a date, and the list of dates to choose from.

use std::sync::Arc;

use axum::extract::State;
use chrono::{DateTime, Utc};
use serde::Deserialize;
use uuid::Uuid;

use super::admin_state::AdminState;
use super::answer::Answer;
use super::auth::{Admin, Staff};
use super::error::Code;
use super::page::{ListQuery, Page, Paged};
use super::problem::{Problem, Result, sentence};
use super::request::PathId;
use super::validation::Validate;
use crate::operations::sales_report::{REQUEST_TIMEOUT, ReportError, SalesReport, report};
use crate::store::sales_report::{self, ListedDate};

/// Which dates are meant.
#[derive(Clone, Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub struct DatesQuery {
    /// Only dates of this concert.
    concert_id: Option<Uuid>,
}

impl Validate for DatesQuery {}

/// Dates of one concert or of all, the latest first, on sale or not.
#[utoipa::path(get, path = "/v1/admin/performances", tag = "admin", params(DatesQuery, ListQuery),
    security(("key" = [])), responses((status = 200, body = Page<ListedDate>)),
    extensions(("x-problems" = json!(["forbidden"]))))]
pub async fn list(
    State(app): State<Arc<AdminState>>,
    _staff: Staff<Admin>,
    Paged { wanted, page }: Paged<DatesQuery>,
) -> Result<Answer> {
    let before: Option<(DateTime<Utc>, Uuid)> = page.after()?;
    let found = sales_report::dates(&app.pool, wanted.concert_id, before, page.limit() + 1).await?;
    Ok(Answer::ok(&Page::cut(found, page.limit(), |date| (date.starts_at, date.id))))
}

/// How a date sells: seats sold, held, blocked and free, revenue and refunds, by section and by hour, all of one moment.
#[utoipa::path(get, path = "/v1/admin/performances/{performance}/report", tag = "admin",
    params(("performance" = Uuid, Path)), security(("key" = [])), responses((status = 200, body = SalesReport)),
    extensions(("x-problems" = json!(["forbidden", "not_found"]))))]
pub async fn show(
    State(app): State<Arc<AdminState>>,
    _staff: Staff<Admin>,
    PathId(performance): PathId,
) -> Result<Answer> {
    Ok(Answer::ok(&report(&app.pool, performance, REQUEST_TIMEOUT).await?))
}

impl From<ReportError> for Problem {
    fn from(error: ReportError) -> Self {
        match error {
            ReportError::Unknown => Self::not_found("performance"),
            ReportError::TooSlow(_) => {
                let advice = "`boxoffice concert report` may take longer.";
                Self::new(Code::Unavailable, format!("{} {advice}", sentence(&error)))
            }
            ReportError::Database(error) => error.into(),
        }
    }
}
