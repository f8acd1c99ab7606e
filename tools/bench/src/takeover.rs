//! One of two processes is killed under load: how long until everything that it had in hand goes on at the other.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::bail;
use chrono::{DateTime, TimeDelta, Utc};
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use super::client::{Caller, Client};
use super::load::steadily;
use super::progress::Progress;
use super::report::{Measure, Quantile, Report};
use super::stage::{ALL_ROLES, Meter, Stage, Wanted};
use super::timing::Timings;
use super::watch::Watch;
use super::{Plan, comes_true, crowd};
use boxoffice::store;
use boxoffice::store::history::HistoryRow;

const GOAL_MS: f64 = 5_000.0;
/// How long what was in hand is waited for.
const PATIENCE: Duration = Duration::from_secs(60);
/// The pause between two looks at a reservation that is pending.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// What was measured over all rounds.
#[derive(Debug, Default)]
struct Rounds {
    /// The longest gap of each round.
    longest: Timings,
    /// Every saga that was on its way when the process died.
    on_its_way: Timings,
    bookings: u64,
    errors: u64,
    late: Timings,
    gaps_ms: Vec<i64>,
}

pub(super) async fn run(plan: &Plan, progress: &Progress) -> anyhow::Result<Report> {
    let (rate, seconds) = (plan.rate.unwrap_or(100), plan.seconds.unwrap_or(8));
    let repeats = plan.repeats.unwrap_or(5);
    let stage = Stage::open(plan, Wanted::default()).await?;
    let survivor = stage.serve(ALL_ROLES).await?;
    let (begun, meter) = (Instant::now(), Meter::start());
    let mut rounds = Rounds::default();
    for _ in 0..repeats {
        round(&stage, &survivor.client, rate, seconds, progress, &mut rounds).await?;
    }
    let (elapsed, cpu) = (begun.elapsed().as_secs_f64(), meter.read());
    let measures = vec![
        Measure::with_goal(
            "kill -9 to the last saga on its way going on, by round",
            &rounds.longest,
            Quantile::Max,
            GOAL_MS,
        ),
        Measure::without_goal("kill -9 to each saga on its way going on", &rounds.on_its_way),
    ];
    let mut report = Report::new("takeover", measures).work(rounds.bookings, elapsed, cpu);
    report.errors = rounds.errors;
    report.generator_late = rounds.late.spread();
    let report = report
        .with("rate", rate)
        .with("seconds", seconds)
        .with("repeats", repeats)
        .with("longest_gap_ms", rounds.gaps_ms);
    stage.close(vec![survivor], report).await
}

async fn round(
    stage: &Stage,
    client: &Client,
    rate: u32,
    seconds: u32,
    progress: &Progress,
    rounds: &mut Rounds,
) -> anyhow::Result<()> {
    let total = rate * seconds;
    let seen = Watch::transitions(&stage.bus, &stage.clock, |_| true).await?;
    let crowd = crowd::gather(stage, client, total, total, progress).await?;
    let victim = stage.serve(ALL_ROLES).await?;
    progress.begin("bookings while a process is killed", total.into());
    let load = steadily(rate, total, progress, |number| {
        book(client.clone(), crowd.buyers[number as usize].clone(), crowd.performance, number + 1)
    });
    let death = async {
        sleep(Duration::from_secs(seconds.into()) / 2).await;
        let killed = stage.clock.now();
        victim.kill().await?;
        anyhow::Ok(killed)
    };
    let (loaded, killed) = tokio::join!(load, death);
    let killed = killed?;
    let at_rest = comes_true(PATIENCE, async || {
        let open = store::sagas::count_open(&stage.pool).await?;
        Ok(open.iter().all(|(_, status, _)| status == "waiting"))
    });
    let at_rest = at_rest.await?;
    let ids: Vec<Uuid> = seen.all().into_keys().collect();
    let history = store::history::of_sagas(&stage.pool, &ids).await?;
    let (on_its_way, longest) = gaps(&history, killed);
    on_its_way.into_iter().for_each(|gap| rounds.on_its_way.add(gap));
    rounds.longest.add(longest);
    rounds.gaps_ms.push(longest.num_milliseconds());
    rounds.bookings += u64::from(total);
    rounds.errors += loaded.errors + u64::from(!at_rest);
    rounds.late.extend(loaded.late);
    Ok(())
}

/// How long each saga that was on its way at `killed` stood still from then on, and the longest that any saga stood
/// still after it. A saga that waits for its buyer does not stand still.
fn gaps(history: &[HistoryRow], killed: DateTime<Utc>) -> (Vec<TimeDelta>, TimeDelta) {
    let mut last: BTreeMap<Uuid, &HistoryRow> = BTreeMap::new();
    let (mut on_its_way, mut longest) = (Vec::new(), TimeDelta::zero());
    for row in history {
        let before = last.insert(row.saga_id, row);
        let Some(before) = before.filter(|_| row.at > killed && !row.event.starts_with("signal:")) else {
            continue;
        };
        let gap = row.at - before.at.max(killed);
        if before.at <= killed {
            on_its_way.push(gap);
        }
        longest = longest.max(gap);
    }
    (on_its_way, longest)
}

async fn book(client: Client, buyer: Caller, performance: Uuid, seat: u32) -> anyhow::Result<()> {
    let reservation = client.reserve(&buyer, performance, seat).await?.id()?;
    // Sagas of the killed process may take longer than the service lets a caller wait.
    let (path, end) = (format!("/v1/reservations/{reservation}"), Instant::now() + PATIENCE);
    while client.get(&path, &buyer).await?.body()["status"] == "pending" && Instant::now() < end {
        sleep(LOOK_EVERY).await;
    }
    let paid = client.pay(&buyer, reservation).await?;
    match paid.status {
        200..=202 => Ok(()),
        status => bail!("a payment was answered {status} {}", paid.body()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use boxoffice::saga::Direction;

    fn row(saga: u128, seq: i64, at_ms: i64, event: &str) -> HistoryRow {
        HistoryRow {
            saga_id: Uuid::from_u128(saga),
            seq,
            at: DateTime::from_timestamp_millis(at_ms).unwrap(),
            event: event.to_owned(),
            step: "reserve".to_owned(),
            direction: Direction::Do,
            visit: 1,
            attempt: 0,
            detail: None,
            worker: None,
            emits: Vec::new(),
        }
    }

    #[test]
    fn only_what_stands_still_is_a_gap() {
        let killed = DateTime::from_timestamp_millis(1_000).unwrap();
        let history = [
            row(1, 1, 900, "started"),
            row(1, 2, 1_300, "done"),
            row(1, 3, 9_000, "signal:pay"),
            row(1, 4, 9_010, "done"),
            row(2, 1, 2_000, "started"),
            row(2, 2, 2_700, "done"),
        ];
        let (on_its_way, longest) = gaps(&history, killed);
        assert_eq!(on_its_way, [TimeDelta::milliseconds(300)]);
        assert_eq!(longest, TimeDelta::milliseconds(700));
    }
}
