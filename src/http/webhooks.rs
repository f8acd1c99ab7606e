//! Endpoints of webhooks: added, looked at, deleted; their secrets, and the log of their deliveries.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{FromRequestParts, Path, State};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::Response;
use serde::Deserialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::admin_state::AdminState;
use super::answer::Answer;
use super::auth::{Admin, Staff};
use super::error::Code;
use super::idempotency::once;
use super::page::{ListQuery, Page, Paged};
use super::problem::{Problem, Result, sentence};
use super::request::{Bodied, Command, NoBody, Params, PathId};
use super::validation::{Validate, Validation};
use crate::webhooks::endpoints::{
    self, EndpointError, FILTERS_MAX, NewEndpoint, OVERLAP_SECONDS, OVERLAP_SECONDS_MAX, STATUSES,
    WebhookDelivery, WebhookEndpoint, WebhookEndpointSecret,
};

/// An endpoint to be added.
#[derive(Clone, Debug, Deserialize, ToSchema)]
pub struct WebhookWanted {
    /// Begins with `https://`; without user, password or fragment.
    #[schema(min_length = 1, max_length = 2_000)]
    url: String,
    /// Names of events such as `reservation.confirmed`; one that ends with `*` stands for all that begin so. All events if it is left
    /// out or empty.
    #[serde(default)]
    #[schema(max_items = 50)]
    events: Vec<String>,
    #[serde(default)]
    #[schema(format = "line", max_length = 200)]
    description: String,
}

impl Bodied for WebhookWanted {}

impl Validate for WebhookWanted {
    fn check(&self, faults: &mut Validation) {
        faults.expect(
            self.events.len() <= FILTERS_MAX,
            "/events",
            format!("must have {FILTERS_MAX} names or fewer"),
        );
        if let Some((at, problem)) = endpoints::filters_problem(&self.events) {
            faults.expect(false, format!("/events/{at}"), problem);
        }
        faults.expect_line(&self.description, 0..=200, "/description");
    }
}

/// Adds an endpoint that events are posted to from now on. The answer has the secret of its signatures.
#[utoipa::path(post, path = "/v1/admin/webhooks", tag = "admin", request_body = WebhookWanted,
    security(("key" = [])), responses((status = 201, body = WebhookEndpointSecret)),
    extensions(("x-problems" = json!(["forbidden", "rate_limited", "request_in_progress", "idempotency_key_reused"]))))]
pub async fn add(
    State(app): State<Arc<AdminState>>,
    staff: Staff<Admin>,
    command: Command<WebhookWanted>,
) -> Result<Response> {
    if let Some(problem) = app.webhook_rules.problem(&command.body.url) {
        let mut faults = Validation::default();
        faults.expect(false, "/url", problem);
        faults.finish()?;
    }
    once(&app.repeats, staff.caller(), command, async |wanted, effect| {
        let new = NewEndpoint {
            id: effect.id,
            url: &wanted.url,
            events: &wanted.events,
            description: &wanted.description,
        };
        Ok(Answer::created(&endpoints::add(&app.pool, new, &staff.key.name).await?))
    })
    .await
}

/// Endpoints, newest first.
#[utoipa::path(get, path = "/v1/admin/webhooks", tag = "admin", params(ListQuery), security(("key" = [])),
    responses((status = 200, body = Page<WebhookEndpoint>)), extensions(("x-problems" = json!(["forbidden"]))))]
pub async fn list(
    State(app): State<Arc<AdminState>>,
    _staff: Staff<Admin>,
    Params(page): Params<ListQuery>,
) -> Result<Answer> {
    let before: Option<Uuid> = page.after()?;
    let found = endpoints::list(&app.pool, before, page.limit() + 1).await?;
    Ok(Answer::ok(&Page::cut(found, page.limit(), |endpoint| endpoint.id)))
}

/// One endpoint.
#[utoipa::path(get, path = "/v1/admin/webhooks/{webhook}", tag = "admin", params(("webhook" = Uuid, Path)),
    security(("key" = [])), responses((status = 200, body = WebhookEndpoint)),
    extensions(("x-problems" = json!(["forbidden", "not_found"]))))]
pub async fn show(
    State(app): State<Arc<AdminState>>,
    _staff: Staff<Admin>,
    PathId(id): PathId,
) -> Result<Answer> {
    Ok(Answer::ok(&endpoints::show(&app.pool, id).await?))
}

/// Deletes an endpoint and its log. What is being sent to it may still arrive.
#[utoipa::path(delete, path = "/v1/admin/webhooks/{webhook}", tag = "admin", params(("webhook" = Uuid, Path)),
    security(("key" = [])), responses((status = 204)),
    extensions(("x-problems" = json!(["forbidden", "not_found"]))))]
pub async fn delete(
    State(app): State<Arc<AdminState>>,
    staff: Staff<Admin>,
    PathId(id): PathId,
) -> Result<StatusCode> {
    endpoints::delete(&app.pool, id, &staff.key.name).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// How long both secrets sign.
#[derive(Clone, Copy, Debug, Default, Deserialize, ToSchema)]
pub struct WebhookRotation {
    /// How long the secret before the new one signs too, 0 to 604,800 seconds; a day if it is left out.
    #[serde(default)]
    #[schema(minimum = 0, maximum = 604_800)]
    overlap_seconds: Option<u32>,
}

impl WebhookRotation {
    fn overlap_seconds(self) -> u32 {
        self.overlap_seconds.unwrap_or(OVERLAP_SECONDS)
    }
}

impl Bodied for WebhookRotation {
    const MAY_BE_EMPTY: bool = true;
}

impl Validate for WebhookRotation {
    fn check(&self, faults: &mut Validation) {
        let good = self.overlap_seconds() <= OVERLAP_SECONDS_MAX;
        faults.expect(good, "/overlap_seconds", format!("must be between 0 and {OVERLAP_SECONDS_MAX}"));
    }
}

/// Gives an endpoint a new secret, which the answer has. Deliveries carry the signatures of both secrets for a while.
#[utoipa::path(post, path = "/v1/admin/webhooks/{webhook}/secrets", tag = "admin", request_body = WebhookRotation,
    params(("webhook" = Uuid, Path)), security(("key" = [])), responses((status = 201, body = WebhookEndpointSecret)),
    extensions(("x-problems" = json!(["forbidden", "not_found", "request_in_progress", "idempotency_key_reused"]))))]
pub async fn rotate(
    State(app): State<Arc<AdminState>>,
    staff: Staff<Admin>,
    PathId(id): PathId,
    command: Command<WebhookRotation>,
) -> Result<Response> {
    once(&app.repeats, staff.caller(), command, async |wanted, effect| {
        let overlap = Duration::from_secs(wanted.overlap_seconds().into());
        let mut tx = app.pool.begin().await?;
        let rotated = endpoints::rotate(&mut tx, id, overlap, &staff.key.name).await?;
        let answer = Answer::created(&rotated);
        effect.save(&mut *tx, &answer).await?;
        tx.commit().await?;
        Ok(answer)
    })
    .await
}

/// Lets a disabled endpoint have deliveries again: those that wait for it, and new events. Events that happened meanwhile were
/// not queued for it.
#[utoipa::path(post, path = "/v1/admin/webhooks/{webhook}/enabling", tag = "admin",
    params(("webhook" = Uuid, Path)), security(("key" = [])), responses((status = 200, body = WebhookEndpoint)),
    extensions(("x-problems" = json!(["forbidden", "not_found", "request_in_progress", "idempotency_key_reused"]))))]
pub async fn enable(
    State(app): State<Arc<AdminState>>,
    staff: Staff<Admin>,
    PathId(id): PathId,
    command: Command<NoBody>,
) -> Result<Response> {
    once(&app.repeats, staff.caller(), command, async |_, _| {
        Ok(Answer::ok(&endpoints::enable(&app.pool, id, &staff.key.name).await?))
    })
    .await
}

/// Which deliveries are meant.
#[derive(Clone, Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub struct DeliveriesQuery {
    /// `pending`, `delivered` or `failed`.
    status: Option<String>,
}

impl Validate for DeliveriesQuery {
    fn check(&self, faults: &mut Validation) {
        let good = self.status.as_deref().is_none_or(|status| STATUSES.contains(&status));
        faults.expect(good, "/status", format!("must be one of {}", STATUSES.join(", ")));
    }
}

/// The deliveries of an endpoint, newest first: those that wait, and those that ended in the last seven days.
#[utoipa::path(get, path = "/v1/admin/webhooks/{webhook}/deliveries", tag = "admin",
    params(("webhook" = Uuid, Path), DeliveriesQuery, ListQuery), security(("key" = [])),
    responses((status = 200, body = Page<WebhookDelivery>)),
    extensions(("x-problems" = json!(["forbidden", "not_found"]))))]
pub async fn log(
    State(app): State<Arc<AdminState>>,
    _staff: Staff<Admin>,
    PathId(id): PathId,
    Paged { wanted, page }: Paged<DeliveriesQuery>,
) -> Result<Answer> {
    let before: Option<Uuid> = page.after()?;
    let found = endpoints::log(&app.pool, id, wanted.status.as_deref(), before, page.limit() + 1).await?;
    Ok(Answer::ok(&Page::cut(found, page.limit(), |delivery| delivery.id)))
}

/// The ids of an endpoint and of one of its deliveries; malformed ones name nothing.
#[derive(Clone, Copy, Debug)]
pub struct DeliveryPath(Uuid, Uuid);

impl<S: Send + Sync> FromRequestParts<S> for DeliveryPath {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self> {
        let segments = Path::<(String, String)>::from_request_parts(parts, state).await;
        let Ok(Path((endpoint, delivery))) = segments else { return Ok(Self(Uuid::nil(), Uuid::nil())) };
        let id = |text: &str| Some(text).filter(|text| text.len() == 36).and_then(|text| text.parse().ok());
        Ok(Self(id(&endpoint).unwrap_or_default(), id(&delivery).unwrap_or_default()))
    }
}

/// Attempts a delivery anew, whatever came of it before, with all its attempts. Later events about the same reservation wait for it.
#[utoipa::path(post, path = "/v1/admin/webhooks/{webhook}/deliveries/{delivery}/replay", tag = "admin",
    params(("webhook" = Uuid, Path), ("delivery" = Uuid, Path)), security(("key" = [])),
    responses((status = 200, body = WebhookDelivery)),
    extensions(("x-problems" = json!(["forbidden", "not_found", "request_in_progress", "idempotency_key_reused"]))))]
pub async fn replay(
    State(app): State<Arc<AdminState>>,
    staff: Staff<Admin>,
    DeliveryPath(endpoint, delivery): DeliveryPath,
    command: Command<NoBody>,
) -> Result<Response> {
    once(&app.repeats, staff.caller(), command, async |_, _| {
        let replayed = endpoints::replay(&app.pool, endpoint, delivery, &staff.key.name).await?;
        Ok(Answer::ok(&replayed))
    })
    .await
}

impl From<EndpointError> for Problem {
    fn from(error: EndpointError) -> Self {
        match error {
            EndpointError::Unknown => Self::not_found("webhook endpoint or delivery"),
            EndpointError::TooMany => Self::new(Code::RateLimited, sentence(&error)),
            EndpointError::Database(error) => error.into(),
        }
    }
}
