//! How long an attempt may take, how long a delivery waits after each that failed, and when its endpoint is given up.

use std::time::Duration;

use chrono::TimeDelta;

/// How long an endpoint may take to answer, the connection included.
pub(super) const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(15);
/// An endpoint that has failed for so long is disabled.
pub(super) const FAILURE_MAX: TimeDelta = TimeDelta::hours(24);

const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;
/// Seconds before each further attempt; 71.6 hours together. After the last attempt the delivery has failed.
const WAITS: [u64; 10] =
    [5, 30, 5 * MINUTE, 30 * MINUTE, 2 * HOUR, 5 * HOUR, 10 * HOUR, 14 * HOUR, 20 * HOUR, 20 * HOUR];
/// Waits differ by so much at random, so that deliveries that failed together do not all come back together.
const JITTER: f64 = 0.1;

/// How long a delivery waits after so many attempts; none: it is not attempted again.
pub(super) fn wait_after(attempts: i32) -> Option<Duration> {
    let index = usize::try_from(attempts).ok()?.checked_sub(1)?;
    let seconds = *WAITS.get(index)?;
    let factor = 1.0 + JITTER * (2.0 * rand::random::<f64>() - 1.0);
    Some(Duration::from_secs(seconds).mul_f64(factor))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_three_days() {
        let waits: Vec<Duration> = (1..=20).map_while(wait_after).collect();
        assert_eq!(waits.len(), WAITS.len());
        assert!(
            waits[0] < Duration::from_secs(6) && waits.is_sorted_by(|one, next| *one < next.mul_f64(1.25))
        );
        let total: Duration = waits.iter().sum();
        let days = total.as_secs_f64() / 86_400.0;
        assert!((2.5..=3.4).contains(&days), "{days}");
        assert_eq!((wait_after(0), wait_after(11)), (None, None));
    }
}
