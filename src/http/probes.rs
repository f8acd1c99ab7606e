//! What machines ask about the service itself.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::admin_state::AdminState;
use super::error::Code;
use super::problem::{Problem, Result};
use crate::telemetry;

/// That the process runs, or that requests may be sent to it.
#[derive(Debug, ToSchema)]
#[allow(dead_code, reason = "it describes what the handlers answer")]
pub struct Probe {
    /// `alive` or `ready`.
    status: String,
}

/// The process runs.
#[utoipa::path(get, path = "/livez", tag = "service", responses((status = 200, description = "Alive", body = Probe)))]
pub async fn livez() -> Json<Value> {
    Json(json!({ "status": "alive" }))
}

/// Requests may be sent here: Postgres and NATS are there, and the line is known where the roles of the process need it.
#[utoipa::path(get, path = "/readyz", tag = "service",
    responses((status = 200, description = "Ready", body = Probe)), extensions(("x-problems" = json!(["unavailable"]))))]
pub async fn readyz(State(app): State<Arc<AdminState>>) -> Result<Json<Value>> {
    let complaints =
        app.health.complaints(&app.pool, app.room.as_ref().is_none_or(|room| room.ready())).await;
    if complaints.is_empty() {
        return Ok(Json(json!({ "status": "ready" })));
    }
    Err(Problem::new(Code::Unavailable, format!("Not ready: {}.", complaints.join("; "))))
}

/// What was counted, for Prometheus.
#[utoipa::path(get, path = "/metrics", tag = "service",
    responses((status = 200, body = String, description = "Prometheus text format", content_type = "text/plain")))]
pub async fn metrics(State(app): State<Arc<AdminState>>) -> impl IntoResponse {
    app.gauges.measure(&app.engine).await;
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], telemetry::render(&app.metrics))
}
