//! The body of a request: its bytes in time and size, and that they are JSON.

use std::time::Duration;

use axum::body::Body;
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};
use futures::StreamExt;
use serde::de::IgnoredAny;
use tokio::time::timeout_at;

use super::connections::BodyTime;
use super::error::Code;
use super::problem::Problem;

/// The largest body that is read, in bytes.
const BODY_BYTES_MAX: usize = 1 << 20;
/// How much more of a body that is too large is thrown away, so that its sender gets to read the answer.
const DRAINED_BYTES_MAX: usize = 16 << 20;
const DRAIN_TIMEOUT: Duration = Duration::from_secs(2);

/// The body as JSON text: 408 if it comes too slowly, 413 if it is too large, 400 if it is not JSON. An empty body is an
/// empty object where there may be none.
///
/// The text is only looked over. A tree of its values would take thirty times the memory, and a body that is refused is
/// not worth that.
pub async fn json(head: &Parts, body: Body, may_be_empty: bool) -> Result<String, Problem> {
    let bytes = match head.extensions.get::<BodyTime>() {
        Some(time) => timeout_at(time.until, collect(body)).await.unwrap_or_else(|_| Err(too_slow(*time)))?,
        None => collect(body).await?,
    };
    if bytes.is_empty() && may_be_empty {
        return Ok("{}".to_owned());
    }
    if !is_json(&head.headers) {
        let detail = "Send JSON with `Content-Type: application/json`.";
        return Err(Problem::new(Code::MalformedRequest, detail));
    }
    let malformed = |error: &dyn std::fmt::Display| {
        Problem::new(Code::MalformedRequest, format!("The body is not JSON: {error}."))
    };
    let text = String::from_utf8(bytes).map_err(|error| malformed(&error))?;
    serde_json::from_str::<IgnoredAny>(&text).map_err(|error| malformed(&error))?;
    Ok(text)
}

fn too_slow(time: BodyTime) -> Problem {
    let seconds = time.whole.as_secs();
    let detail = format!("The body must be here {seconds} s after the head of the request.");
    Problem::new(Code::RequestTimeout, detail)
}

fn is_json(headers: &HeaderMap) -> bool {
    let value = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    essence == "application/json" || (essence.starts_with("application/") && essence.ends_with("+json"))
}

/// The whole body, or 413. What is too much is read and dropped for a while: an answer that is sent while
/// the other side still writes is lost with the connection.
async fn collect(body: Body) -> Result<Vec<u8>, Problem> {
    let mut stream = body.into_data_stream();
    let mut bytes = Vec::new();
    while let Some(chunk) = stream.next().await {
        let chunk =
            chunk.map_err(|_| Problem::new(Code::MalformedRequest, "The body ended before it was whole."))?;
        if bytes.len() + chunk.len() > BODY_BYTES_MAX {
            let drain = async {
                let mut left = DRAINED_BYTES_MAX;
                while let (1.., Some(Ok(chunk))) = (left, stream.next().await) {
                    left = left.saturating_sub(chunk.len());
                }
            };
            let _in_time = tokio::time::timeout(DRAIN_TIMEOUT, drain).await;
            return Err(Problem::new(
                Code::PayloadTooLarge,
                "A body may have 1 MiB (1048576 bytes) at most.",
            ));
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}
