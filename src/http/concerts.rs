//! The catalog: concerts are public; dates and seats are for admitted users.

use std::sync::Arc;

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use super::answer::Answer;
use super::auth::AuthUser;
use super::etag::with_etag;
use super::gate::QueuePass;
use super::page::{ListQuery, Page};
use super::problem::Result;
use super::request::{Params, PathId};
use super::state::AppState;
use super::validation::{Validate, Validation};
use crate::catalog::{Document, SeatMapBody};
use crate::store::catalog::{Concert, OpenPerformance, SeatStatus};
use crate::waiting_room::SaleView;

/// Concerts, by name.
#[utoipa::path(get, path = "/v1/concerts", tag = "concerts",
    params(ListQuery, ("If-None-Match" = Option<String>, Header)),
    responses(
        (status = 200, body = Page<Concert>, headers(("ETag" = String, description = "Hash of the body"))),
        (status = 304, description = "Nothing has changed since the ETag that was sent")))]
pub async fn list(
    State(app): State<Arc<AppState>>,
    Params(query): Params<ListQuery>,
    headers: HeaderMap,
) -> Result<Response> {
    let rows = app.catalog.concerts(query.after()?, query.limit() + 1).await?;
    let page = Page::cut(rows.to_vec(), query.limit(), |concert| (concert.name.clone(), concert.id));
    Ok(with_etag(&headers, &Document::render(&page)).await)
}

/// A concert, how its sale stands, and the draw among those who come before it opens.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ConcertView {
    #[serde(flatten)]
    concert: Concert,
    #[serde(flatten)]
    sale: SaleView,
}

/// One concert and how its sale stands.
#[utoipa::path(get, path = "/v1/concerts/{concert}", tag = "concerts", params(("concert" = Uuid, Path)),
    responses((status = 200, body = ConcertView)), extensions(("x-problems" = json!(["not_found"]))))]
pub async fn show(State(app): State<Arc<AppState>>, PathId(concert): PathId) -> Result<Answer> {
    let known = app.catalog.concert(concert).await?;
    let sale = app.room.sale(concert).await?;
    Ok(Answer::ok(&ConcertView { concert: Concert::clone(&known), sale }))
}

/// A concert's dates that are on sale now and have free seats, by when they start.
#[utoipa::path(get, path = "/v1/concerts/{concert}/performances", tag = "concerts",
    params(("concert" = Uuid, Path), ListQuery, ("If-None-Match" = Option<String>, Header)),
    security(("user" = [], "queue_token" = [])),
    responses(
        (status = 200, body = Page<OpenPerformance>, headers(("ETag" = String, description = "Hash of the body"))),
        (status = 304, description = "Nothing has changed since the ETag that was sent")),
    extensions(("x-problems" = json!(["not_found", "queue_token"]))))]
pub async fn performances(
    State(app): State<Arc<AppState>>,
    user: AuthUser,
    PathId(concert): PathId,
    Params(query): Params<ListQuery>,
    pass: QueuePass,
    headers: HeaderMap,
) -> Result<Response> {
    let after: Option<(DateTime<Utc>, Uuid)> = query.after()?;
    app.catalog.known_concert(concert).await?;
    app.room.pass(pass.token(), user.id, concert)?;
    let all = app.catalog.performances(concert).await?;
    let place = |performance: &OpenPerformance| (performance.starts_at, performance.id);
    let rest = all.iter().filter(|performance| after.is_none_or(|after| place(performance) > after));
    let wanted = usize::try_from(query.limit() + 1).unwrap_or_default();
    let page = Page::cut(rest.take(wanted).cloned().collect(), query.limit(), place);
    Ok(with_etag(&headers, &Document::render(&page)).await)
}

/// Which seats are asked for.
#[derive(Clone, Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub struct SeatsQuery {
    /// Only seats with this status.
    #[param(inline)]
    status: Option<SeatStatus>,
    /// The `version` of an earlier answer: only the seats that changed since are sent, with `since` in the answer. Where this
    /// instance does not know that version any more, or too much changed, the whole map is sent, without `since`.
    #[param(inline)]
    since: Option<String>,
}

impl Validate for SeatsQuery {
    fn check(&self, faults: &mut Validation) {
        let one = self.status.is_none() || self.since.is_none();
        faults.expect(one, "/since", "cannot be combined with status");
    }
}

/// The seats of a date, by number; at most a second old. A long answer is compressed where `Accept-Encoding` names gzip.
#[utoipa::path(get, path = "/v1/performances/{performance}/seats", tag = "concerts",
    params(("performance" = Uuid, Path), SeatsQuery, ("If-None-Match" = Option<String>, Header)),
    security(("user" = [], "queue_token" = [])),
    responses(
        (status = 200, body = SeatMapBody<'static>, headers(("ETag" = String, description = "Hash of the body"))),
        (status = 304, description = "Nothing has changed since the ETag that was sent")),
    extensions(("x-problems" = json!(["not_found", "queue_token"]))))]
pub async fn seats(
    State(app): State<Arc<AppState>>,
    user: AuthUser,
    PathId(performance): PathId,
    Params(query): Params<SeatsQuery>,
    pass: QueuePass,
    headers: HeaderMap,
) -> Result<Response> {
    let concert = app.catalog.concert_of(performance).await?;
    app.room.pass(pass.token(), user.id, concert)?;
    let map = app.catalog.seats(performance).await?;
    let changes = query.since.and_then(|since| map.changes(&since));
    let document = match changes {
        Some(changes) => changes,
        None => map.document(query.status).await,
    };
    Ok(with_etag(&headers, &document).await)
}
