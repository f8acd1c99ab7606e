//! When a client should ask again, and how long its silence means nothing.

use std::time::Duration;

/// The shortest pause that a client is ever asked for, in milliseconds.
const SHORTEST: f64 = 300.0;
/// The pause in front, and what the one at the back is longer by, in milliseconds.
const FRONT: f64 = 1_250.0;
const BACK: f64 = 30_000.0 - FRONT;
/// From this rank on clients ask as rarely as it gets.
const FAR: f64 = 10_000.0;
/// How many of its pauses a client may miss.
const MISSED: u64 = 3;
/// In seconds: seconds are whole here, and a word takes a moment to come from another instance.
const DELAY: u32 = 1;

/// When to ask again, in milliseconds: 1 to 2 s in front, up to 30 s at the back, never more than a third of the
/// estimate. `jitter` in -1..=1 spreads clients that joined together by a fifth.
pub fn poll_after(rank: u64, eta_seconds: Option<u64>, jitter: f64) -> u64 {
    let third = eta_seconds.map_or(f64::MAX, |eta| eta as f64 * 1_000.0 / 3.0);
    by_rank(rank, jitter).min(third).max(SHORTEST).floor() as u64
}

/// When to ask again before the draw, in milliseconds: by how many wait, since any of them may be the first. The last
/// look before the draw is put off until after it, and spread over as long a time as there are people to look.
pub fn poll_early(waiting: u64, until_draw: Option<Duration>, jitter: f64) -> u64 {
    let pause = poll_after(waiting, None, jitter);
    let until_draw =
        until_draw.map_or(u64::MAX, |until| u64::try_from(until.as_millis()).unwrap_or(u64::MAX));
    if until_draw > pause {
        return pause;
    }
    let spread = pause as f64 * f64::midpoint(jitter, 1.0);
    (until_draw + spread as u64).clamp(SHORTEST as u64, 30_000)
}

/// For how many seconds nothing needs to be heard of somebody who was asked for such a pause, in milliseconds: for three
/// of them, and at least for `shortest`.
pub fn patience(pause: u64, shortest: Duration) -> u32 {
    let missed = Duration::from_millis(pause.saturating_mul(MISSED));
    seconds(missed.max(shortest) + Duration::from_millis(999)) + DELAY
}

/// The same for somebody of whom is known only that so many wait: nobody among them is asked for a longer pause.
pub fn longest_patience(waiting: usize, shortest: Duration) -> u32 {
    patience(by_rank(waiting as u64, 1.0).ceil() as u64, shortest)
}

/// Whole seconds, of time since the start of this process.
pub fn seconds(since_start: Duration) -> u32 {
    u32::try_from(since_start.as_secs()).unwrap_or(u32::MAX)
}

fn by_rank(rank: u64, jitter: f64) -> f64 {
    let by_rank = FRONT + BACK * (rank as f64 / FAR).min(1.0).powf(0.75);
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
            prop_assert!(longest_patience(rank as usize, Duration::ZERO) >= patience(pause, Duration::ZERO));
        }
    }

    #[test]
    fn early_comers_look_seldom_and_then_after_the_draw_one_after_another() {
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
    fn two_hundred_thousand_who_follow_the_hints_ask_less_than_ten_thousand_times_a_second() {
        // 2,000 are admitted a minute.
        let per_second =
            |rank: u64, jitter| 1_000.0 / poll_after(rank, Some(rank * 60 / 2_000 + 1), jitter) as f64;
        let load = |jitter| (1..=200_000).map(|rank| per_second(rank, jitter)).sum::<f64>();
        // Jitter is even: the mean of its ends is close to the mean of all.
        let mean = f64::midpoint(load(-1.0), load(1.0));
        assert!(mean < 10_000.0, "{mean} requests a second");
    }

    #[test]
    fn three_pauses_and_at_least_the_shortest_silence_mean_nothing() {
        let minute = Duration::from_secs(60);
        assert_eq!((patience(300, minute), patience(20_000, minute)), (61, 61));
        assert_eq!((patience(29_999, minute), patience(30_000, minute)), (91, 91));
        assert_eq!(patience(1_000, Duration::from_secs(300)), 301);
        assert_eq!((longest_patience(100, minute), longest_patience(1_000_000, minute)), (61, 91));
    }
}
