//! Trying again what failed for a moment: the one place that uses the `backoff` crate.

use std::fmt::Display;
use std::future::Future;
use std::time::Duration;

use backoff::backoff::Backoff;
use backoff::{Error, ExponentialBackoff, ExponentialBackoffBuilder};

fn policy(patience: Option<Duration>) -> ExponentialBackoff {
    ExponentialBackoffBuilder::new()
        .with_initial_interval(Duration::from_millis(50))
        .with_multiplier(2.0)
        .with_randomization_factor(0.3)
        .with_max_interval(Duration::from_secs(1))
        .with_max_elapsed_time(patience)
        .build()
}

/// Repeats `attempt` with growing, jittered pauses until it succeeds or `patience` is used up; the last error is returned.
/// Without patience it goes on until it is dropped.
pub async fn retry<T, E, F, Fut>(what: &str, patience: Option<Duration>, mut attempt: F) -> Result<T, E>
where
    E: Display,
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<T, E>>,
{
    let notify = |error: E, pause: Duration| tracing::warn!(%error, ?pause, "{what} failed, trying again");
    let operation = || {
        let result = attempt();
        async move { result.await.map_err(Error::transient) }
    };
    backoff::future::retry_notify(policy(patience), operation, notify).await
}

/// The pause before the `n`th attempt to reconnect, counted from 0.
pub fn reconnect_delay(n: usize) -> Duration {
    let mut policy = policy(None);
    let mut delay = Duration::ZERO;
    for _ in 0..=n.min(8) {
        delay = policy.next_backoff().unwrap_or(Duration::from_secs(1));
    }
    delay
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn it_tries_again_until_it_succeeds() {
        let mut left = 3;
        let result: Result<&str, String> = retry("a test", Some(Duration::from_secs(5)), || {
            left -= 1;
            let answer = if left == 0 { Ok("done") } else { Err("not yet".to_owned()) };
            async { answer }
        })
        .await;
        assert_eq!(result, Ok("done"));
    }

    #[tokio::test]
    async fn last_error_is_returned_after_the_timeout() {
        let result: Result<(), &str> =
            retry("a test", Some(Duration::from_millis(120)), || async { Err("no") }).await;
        assert_eq!(result, Err("no"));
    }

    #[test]
    fn reconnecting_starts_fast_and_never_waits_long() {
        assert!(reconnect_delay(0) < Duration::from_millis(100));
        assert!(reconnect_delay(1_000) < Duration::from_millis(1_400));
    }
}
