//! One attempt of a delivery: signed, posted, and its end written down.

use chrono::{DateTime, Utc};
use reqwest::StatusCode;
use reqwest::header::CONTENT_TYPE;
use sqlx::PgPool;
use url::Url;

use super::UrlRules;
use super::retries::{FAILURE_MAX, wait_after};
use super::signature::{message_id, signatures};
use crate::store::webhook_deliveries::{self as rows, AttemptEnd, DueDelivery};
use crate::store::{self, webhooks};

/// The longest error in the log, in characters.
const ERROR_CHARS_MAX: usize = 500;

/// Posts a delivery and writes down what came of it. If this fails, the delivery is due again when its claim is over.
pub(super) async fn run(
    pool: &PgPool,
    client: &reqwest::Client,
    rules: UrlRules,
    due: &DueDelivery,
    now: DateTime<Utc>,
) {
    let answer = post(client, rules, due, now).await;
    let outcome = if answer.is_ok() { "delivered" } else { "failed" };
    metrics::counter!("boxoffice_webhook_attempts_total", "outcome" => outcome).increment(1);
    if let Err(error) = store::bounded(write(pool, due, answer, now)).await {
        tracing::warn!(%error, delivery = %due.id, "the end of a delivery could not be written; it is attempted again");
    }
}

/// Why an endpoint has not taken a delivery.
struct Refusal {
    status: Option<StatusCode>,
    error: String,
}

async fn post(
    client: &reqwest::Client,
    rules: UrlRules,
    due: &DueDelivery,
    now: DateTime<Utc>,
) -> Result<StatusCode, Refusal> {
    let refused = |error: &dyn std::fmt::Display| Refusal { status: None, error: error.to_string() };
    let url = Url::parse(&due.url).map_err(|error| refused(&error))?;
    if !rules.allows_literal(&url) {
        return Err(refused(&"the address is private"));
    }
    let id = message_id(&due.event_id);
    let secrets = [Some(&due.secret), due.previous_secret.as_ref()].into_iter().flatten().map(Vec::as_slice);
    let request = client
        .post(url)
        .header(CONTENT_TYPE, "application/json")
        .header("webhook-id", &id)
        .header("webhook-timestamp", now.timestamp().to_string())
        .header("webhook-signature", signatures(secrets, &id, now, &due.body))
        .body(due.body.clone());
    let answer = request.send().await.map_err(|error| Refusal { status: None, error: causes(&error) })?;
    let status = answer.status();
    if status.is_success() {
        return Ok(status);
    }
    let error =
        if status.is_redirection() { "redirects are not followed" } else { "the endpoint refused it" };
    Err(Refusal { status: Some(status), error: format!("{status}: {error}") })
}

/// An error with its causes. The address is left out: its query may have a secret.
fn causes(error: &reqwest::Error) -> String {
    let what = if error.is_timeout() { "no answer in time" } else { "no answer" };
    let mut text = what.to_owned();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text.chars().take(ERROR_CHARS_MAX).collect()
}

async fn write(
    pool: &PgPool,
    due: &DueDelivery,
    answer: Result<StatusCode, Refusal>,
    now: DateTime<Utc>,
) -> store::Result<()> {
    let number = |status: StatusCode| i16::try_from(status.as_u16()).ok();
    let mut tx = pool.begin().await?;
    match answer {
        Ok(status) => {
            let end = AttemptEnd { id: due.id, response_status: number(status), error: None };
            rows::delivered(&mut tx, &end).await?;
        }
        Err(Refusal { status, error }) => {
            let end =
                AttemptEnd { id: due.id, response_status: status.and_then(number), error: Some(&error) };
            let failing_since = match wait_after(due.attempts) {
                Some(wait) => rows::put_off(&mut tx, &end, wait).await?,
                None => rows::failed(&mut tx, &end).await?,
            };
            if let Some(reason) = disabling_reason(status, failing_since, now)
                && webhooks::disable(&mut *tx, due.endpoint_id, reason).await?
            {
                tracing::warn!(endpoint = %due.endpoint_id, reason, "a webhook endpoint was disabled");
            }
        }
    }
    tx.commit().await
}

/// Why an endpoint is to have no more deliveries, if it is.
fn disabling_reason(
    status: Option<StatusCode>,
    failing_since: Option<DateTime<Utc>>,
    now: DateTime<Utc>,
) -> Option<&'static str> {
    if status == Some(StatusCode::GONE) {
        return Some("it answered 410 Gone");
    }
    let is_over = failing_since.is_some_and(|since| now - since >= FAILURE_MAX);
    is_over.then_some("all attempts of 24 hours failed")
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;

    use super::*;

    #[test]
    fn endpoint_is_disabled_after_a_day_or_when_gone() {
        let now = DateTime::UNIX_EPOCH + TimeDelta::days(10);
        let error = Some(StatusCode::INTERNAL_SERVER_ERROR);
        assert_eq!(disabling_reason(error, Some(now - TimeDelta::hours(23)), now), None);
        assert!(disabling_reason(error, Some(now - TimeDelta::hours(24)), now).is_some());
        assert!(disabling_reason(Some(StatusCode::GONE), Some(now), now).is_some());
        assert_eq!(disabling_reason(None, None, now), None);
    }
}
