//! Exports: all rows of a kind as one stream.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;

use super::admin_state::AdminState;
use super::auth::{Admin, Staff};
use super::error::Code;
use super::problem::{Problem, Result, sentence};
use super::request::{Params, PathName};
use super::validation::{Validate, Validation};
use crate::operations::exports::{Export, ExportError, ExportFormat, ExportOrder, Position};

/// The longest cursor that is looked at; those that are given out are shorter.
const CURSOR_CHARS_MAX: usize = 2_000;

/// In which form, and from where on.
#[derive(Clone, Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub struct ExportQuery {
    /// `csv` or `ndjson`; `ndjson` if it is left out.
    #[param(inline)]
    format: Option<ExportFormat>,
    /// The `cursor` of the last whole row that the client has: the export goes on after it, and CSV has no line of column names.
    #[param(min_length = 1, max_length = 2_000, pattern = "^[A-Za-z0-9_-]+$")]
    cursor: Option<String>,
}

impl Validate for ExportQuery {
    fn check(&self, faults: &mut Validation) {
        let fits = self.cursor.as_ref().is_none_or(|cursor| cursor.len() <= CURSOR_CHARS_MAX);
        faults.expect(fits, "/cursor", format!("must have {CURSOR_CHARS_MAX} characters or fewer"));
    }
}

/// All `reservations`, `ledger` entries, `tickets` or `redemptions` of one moment, in the order of their keys: ids, and of tickets the ids of their
/// reservations. Each row has a `cursor`. An answer that breaks off is incomplete; another request with the last cursor goes on, with
/// the rows of its own moment. Each export is written down as an act.
#[utoipa::path(get, path = "/v1/admin/exports/{export}", tag = "admin",
    params(("export" = inline(Export), Path), ExportQuery), security(("key" = [])),
    responses((status = 200, description = "Streamed rows, as an attachment", content(
        (String = "application/x-ndjson"), (String = "text/csv")))),
    extensions(("x-problems" = json!(["forbidden", "not_found", "rate_limited"]))))]
pub async fn export(
    State(app): State<Arc<AdminState>>,
    staff: Staff<Admin>,
    Params(query): Params<ExportQuery>,
    PathName(name): PathName,
) -> Result<Response> {
    let export = Export::named(&name).ok_or_else(|| Problem::not_found("export"))?;
    let format = query.format.unwrap_or_default();
    let after = query.cursor.as_deref().map(|cursor| Position::of_cursor(cursor, export));
    let mut faults = Validation::default();
    faults.expect(after != Some(None), "/cursor", "is not a cursor of this export");
    faults.finish()?;
    let order = ExportOrder { export, format, after: after.flatten() };
    let stream = app.exports.open(order, &staff.key.name).await?;
    let content_type = match format {
        ExportFormat::Ndjson => "application/x-ndjson",
        ExportFormat::Csv if order.after.is_some() => "text/csv; charset=utf-8; header=absent",
        ExportFormat::Csv => "text/csv; charset=utf-8; header=present",
    };
    let file = format!("{}-{}.{}", export.name(), app.clock.now().format("%Y%m%dT%H%M%SZ"), format.name());
    let headers = [
        (header::CONTENT_TYPE, content_type.to_owned()),
        (header::CONTENT_DISPOSITION, format!("attachment; filename=\"{file}\"")),
    ];
    Ok((headers, Body::from_stream(stream)).into_response())
}

impl From<ExportError> for Problem {
    fn from(error: ExportError) -> Self {
        match error {
            ExportError::TooMany(limit) => {
                Self::new(Code::RateLimited, sentence(&error)).with("limit", limit as u64)
            }
            ExportError::Database(error) => error.into(),
            ExportError::Format(error) => {
                tracing::error!(error, "an export could not be written");
                Self::new(Code::Internal, "The export could not be written.")
            }
        }
    }
}
