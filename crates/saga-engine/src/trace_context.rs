//! The span that caused what a task does: of the request that it answers, or of the message that it handles.

use saga_protocol::spans::SpanContext;

tokio::task_local! {
    static CURRENT: SpanContext;
}

/// Runs `work` as caused by a span.
pub async fn within<T>(cause: Option<SpanContext>, work: impl Future<Output = T>) -> T {
    match cause {
        Some(cause) => CURRENT.scope(cause, work).await,
        None => work.await,
    }
}

/// The span that caused what this task does, if traces are exported and it is known.
pub fn current() -> Option<SpanContext> {
    CURRENT.try_with(|cause| *cause).ok()
}
