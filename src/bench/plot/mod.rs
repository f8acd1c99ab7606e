//! A figure of saved results: throughput and latency against how many ask at once, latency against load.
//!
//! Any result with a list `points` can be drawn: each point names `concurrency` or `rate`, and has `per_second`, `p50_ms` and
//! `p99_ms`, or the latter for its parts, such as `hold_p99_ms`.

mod draw;
mod axes;
mod lines;

use serde_json::Value;

/// A saved result, and what its lines are called.
#[derive(Clone, Debug)]
pub struct Named {
    pub name: String,
    pub result: Value,
}

/// Why nothing can be drawn.
#[derive(Debug, thiserror::Error)]
pub enum PlotError {
    #[error(
        "{0} has no list `points` with `concurrency` or `rate`; results of sagas, booking and rate have one"
    )]
    NoPoints(String),
    #[error("the figure cannot be drawn: {0}")]
    Drawing(String),
}

/// The figure of these results, as SVG.
///
/// # Errors
/// When a result has nothing that could be drawn.
pub fn svg(results: &[Named]) -> Result<String, PlotError> {
    let panels = lines::panels(results)?;
    draw::svg(&panels).map_err(|error| PlotError::Drawing(error.to_string()))
}
