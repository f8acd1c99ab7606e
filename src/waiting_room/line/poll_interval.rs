//! The interval at which a client should poll, and how long it is trusted to be there after a poll.

use std::time::Duration;

const MIN_POLL_MS: f64 = 300.0;
/// The interval at the front, and how much longer the one at the back is.
const FRONT_POLL_MS: f64 = 1_250.0;
const BACK_EXTRA_MS: f64 = 30_000.0 - FRONT_POLL_MS;
/// From this rank on the interval no longer grows.
const MAX_POLL_RANK: f64 = 10_000.0;
/// How many polls a client may miss.
const MISSED_POLLS: u64 = 3;
/// Whole seconds lose up to one, and a report takes a moment to arrive from another instance.
const ROUNDING_SECONDS: u32 = 1;

/// When to poll again, in milliseconds: 1 to 2 s at the front, up to 30 s at the back, and at most a third of the
/// estimate. `jitter` in -1..=1 changes it by up to a fifth, to spread clients that joined together.
pub fn poll_after(rank: u64, eta_seconds: Option<u64>, jitter: f64) -> u64 {
    let third = eta_seconds.map_or(f64::MAX, |eta| eta as f64 * 1_000.0 / 3.0);
    by_rank(rank, jitter).min(third).max(MIN_POLL_MS).floor() as u64
}

/// When to poll again before the lottery, in milliseconds. The interval depends on the number of users, since each of
/// them may become first. The last poll before the draw is moved behind it, and spread over one interval.
pub fn poll_early(waiting: u64, until_draw: Option<Duration>, jitter: f64) -> u64 {
    let pause = poll_after(waiting, None, jitter);
    let until_draw =
        until_draw.map_or(u64::MAX, |until| u64::try_from(until.as_millis()).unwrap_or(u64::MAX));
    if until_draw > pause {
        return pause;
    }
    let spread = pause as f64 * f64::midpoint(jitter, 1.0);
    (until_draw + spread as u64).clamp(MIN_POLL_MS as u64, 30_000)
}

/// How long a client is trusted, in seconds, that was asked to poll after `pause` milliseconds: three intervals, and
/// at least `shortest`.
pub fn trust_seconds(pause: u64, shortest: Duration) -> u32 {
    let missed = Duration::from_millis(pause.saturating_mul(MISSED_POLLS));
    seconds(missed.max(shortest) + Duration::from_millis(999)) + ROUNDING_SECONDS
}

/// An upper bound of [`trust_seconds`] for any of `waiting` users.
pub fn longest_trust(waiting: usize, shortest: Duration) -> u32 {
    trust_seconds(by_rank(waiting as u64, 1.0).ceil() as u64, shortest)
}

/// Whole seconds since the start of this process.
pub fn seconds(since_start: Duration) -> u32 {
    u32::try_from(since_start.as_secs()).unwrap_or(u32::MAX)
}

fn by_rank(rank: u64, jitter: f64) -> f64 {
    let by_rank = FRONT_POLL_MS + BACK_EXTRA_MS * (rank as f64 / MAX_POLL_RANK).min(1.0).powf(0.75);
    (by_rank * (1.0 + jitter / 5.0)).clamp(1_000.0, 30_000.0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn pauses_keep_their_bounds(rank in 1u64..2_000_000, eta in prop::option::of(1u64..100_000), jitter in -1.0f64..=1.0) {
            let pause = poll_after(rank, eta, jitter);
            prop_assert!((300..=30_000).contains(&pause));
            if let Some(eta) = eta {
                prop_assert!(pause * 3 <= eta * 1_000);
            } else {
                prop_assert!(pause >= 1_000);
            }
            if rank <= 10 {
                prop_assert!(pause <= 2_000);
            }
            prop_assert!(longest_trust(rank as usize, Duration::ZERO) >= trust_seconds(pause, Duration::ZERO));
        }
    }

    #[test]
    fn early_users_poll_rarely_and_spread_out() {
        let seconds = |seconds| Some(Duration::from_secs(seconds));
        assert_eq!(poll_early(200_000, seconds(3_600), 0.0), 30_000);
        assert!(poll_early(3, seconds(3_600), 1.0) <= 2_000);
        let looks = [-1.0, -0.5, 0.0, 0.5, 1.0].map(|jitter| poll_early(5_000, seconds(4), jitter));
        assert!(looks.is_sorted() && looks[0] == 4_000 && looks[4] > 20_000, "{looks:?}");
        assert_eq!(poll_early(200_000, None, 0.0), 30_000, "nothing is known of an opening");
    }

    #[test]
    fn the_back_of_a_long_line_asks_rarely() {
        assert!(poll_after(1_000_000, None, 0.0) == 30_000);
        assert!(poll_after(1_000, Some(10_000), 0.0) > 4_000);
    }

    #[test]
    fn poll_intervals_limit_requests_of_two_hundred_thousand() {
        // The cap admits 2,000 a minute.
        let per_second =
            |rank: u64, jitter| 1_000.0 / poll_after(rank, Some(rank * 60 / 2_000 + 1), jitter) as f64;
        let load = |jitter| (1..=200_000).map(|rank| per_second(rank, jitter)).sum::<f64>();
        // The jitter is uniform, so the mean of its ends is close to the mean of all.
        let mean = f64::midpoint(load(-1.0), load(1.0));
        assert!(mean < 10_000.0, "{mean} requests a second");
    }

    #[test]
    fn client_is_trusted_for_three_poll_intervals() {
        let minute = Duration::from_secs(60);
        assert_eq!((trust_seconds(300, minute), trust_seconds(20_000, minute)), (61, 61));
        assert_eq!((trust_seconds(29_999, minute), trust_seconds(30_000, minute)), (91, 91));
        assert_eq!(trust_seconds(1_000, Duration::from_secs(300)), 301);
        assert_eq!((longest_trust(100, minute), longest_trust(1_000_000, minute)), (61, 91));
    }
}
