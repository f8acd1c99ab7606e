//! How long a request may take: no caller waits longer than five seconds for a server behind this one.
//!
//! This is the last bound, for all routes at one place: what waits for Postgres or NATS has shorter bounds of its own, and better
//! words. The time that a client takes to send its body does not count; it has a limit of its own. Streams are not cut off:
//! only the beginning of an answer is waited for. A request that is cut off is dropped where it stands: what it has
//! claimed or begun is found by the next request under the same `Idempotency-Key`, as after a client that hangs up.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::body::{Body, HttpBody};
use axum::extract::{MatchedPath, Request};
use axum::http::Method;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use tokio::time::{Instant, sleep_until};

use super::error::Code;
use super::passing_body::{PassingBody, Polled};
use super::problem::{Outdated, Problem};

/// The longest wait for an answer, a little less than the five seconds of the contract.
const ANSWER_TIME: Duration = Duration::from_millis(4_500);
/// What may take longer, and how long: an operator's act on thousands of sagas, a date with a hundred thousand seats, the check of
/// a definition, and a start that waits for its saga.
const LONG: [(&str, Duration); 4] = [
    ("/v1/ops/sagas/batch", Duration::from_secs(70)),
    ("/v1/admin/concerts/{concert}/performances", Duration::from_secs(60)),
    ("/v1/workflows", Duration::from_secs(70)),
    ("/v1/workflows/{workflow}/sagas", Duration::from_secs(35)),
];

/// Answers 503 for a request that has no answer in time. One that only reads is tried once more, if it met a connection that was of
/// no use any more.
pub async fn limit(request: Request, next: Next) -> Response {
    if *request.method() != Method::GET || !request.body().is_end_stream() {
        return limited(request, next, Instant::now()).await;
    }
    let begun = Instant::now();
    let (parts, body) = request.into_parts();
    let again = (parts.clone(), next.clone());
    let answer = limited(Request::from_parts(parts, body), next, begun).await;
    if answer.extensions().get::<Outdated>().is_none() {
        return answer;
    }
    let (parts, next) = again;
    limited(Request::from_parts(parts, Body::empty()), next, begun).await
}

async fn limited(request: Request, next: Next, since: Instant) -> Response {
    let time = time_for(&request);
    let waits = Arc::new(Mutex::new(Waits { for_client: false, since }));
    let request = match request.body().is_end_stream() {
        true => request,
        false => {
            let waits = Arc::clone(&waits);
            request.map(|body| Body::new(PassingBody { body, kept: waits, note: note_wait }))
        }
    };
    let mut answer = std::pin::pin!(next.run(request));
    loop {
        let until = end(&waits, time);
        tokio::select! {
            biased;
            answer = &mut answer => return answer,
            () = sleep_until(until) => {}
        }
        if Instant::now() >= end(&waits, time) {
            metrics::counter!("boxoffice_http_requests_cut_off_total").increment(1);
            tracing::warn!(?time, "a request had no answer in time and was cut off");
            return no_answer().into_response();
        }
    }
}

fn time_for(request: &Request) -> Duration {
    let route = request.extensions().get::<MatchedPath>().map_or("", MatchedPath::as_str);
    let long = LONG.iter().find(|(long, _)| *request.method() == Method::POST && *long == route);
    long.map_or(ANSWER_TIME, |(_, time)| *time)
}

fn no_answer() -> Problem {
    let detail = "A server behind this one does not answer; try again. With an Idempotency-Key that is safe even for what \
                  may have been done.";
    Problem::new(Code::Unavailable, detail)
}

/// What a request waits for.
struct Waits {
    for_client: bool,
    since: Instant,
}

/// Notes whether the client is waited for, and since when.
fn note_wait(waits: &Arc<Mutex<Waits>>, polled: &Polled) {
    let mut waits = waits.lock().unwrap_or_else(PoisonError::into_inner);
    *waits = Waits { for_client: polled.is_pending(), since: Instant::now() };
}

/// When the time for an answer is over. While the client sends its body, not now.
fn end(waits: &Mutex<Waits>, time: Duration) -> Instant {
    let waits = waits.lock().unwrap_or_else(PoisonError::into_inner);
    let since = if waits.for_client { Instant::now() } else { waits.since };
    since + time
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::body::Bytes;
    use axum::middleware::from_fn;
    use axum::routing::post;
    use futures::stream;
    use tower::ServiceExt;

    use super::*;

    async fn answered(route: &str, body: Body, work: Duration) -> (u16, Duration) {
        let handler = move |bytes: Bytes| async move {
            tokio::time::sleep(work).await;
            bytes.len().to_string()
        };
        let router = Router::new().route(route, post(handler)).layer(from_fn(limit));
        let path = route.replace("{concert}", "1");
        let begun = Instant::now();
        let response = router.oneshot(Request::post(path).body(body).unwrap()).await.unwrap();
        (response.status().as_u16(), begun.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_is_answered_in_time_or_503() {
        assert_eq!(answered("/a", Body::empty(), Duration::from_secs(4)).await.0, 200);
        assert_eq!(answered("/a", "body".into(), Duration::from_secs(60)).await, (503, ANSWER_TIME));
        let long = answered(LONG[1].0, "body".into(), Duration::from_secs(30)).await;
        assert_eq!(long, (200, Duration::from_secs(30)));
    }

    #[tokio::test(start_paused = true)]
    async fn time_limit_excludes_reading_the_body() {
        let slow = || {
            let pieces = stream::unfold(0, |n| async move {
                tokio::time::sleep(Duration::from_secs(10)).await;
                (n < 3).then_some((Ok::<_, std::io::Error>("piece"), n + 1))
            });
            Body::from_stream(pieces)
        };
        assert_eq!(answered("/a", slow(), Duration::from_secs(1)).await.0, 200);
        let (status, took) = answered("/a", slow(), Duration::from_secs(60)).await;
        assert_eq!((status, took), (503, Duration::from_secs(40) + ANSWER_TIME));
    }
}
