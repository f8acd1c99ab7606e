//! Users join at a fixed rate, whether or not answers come.

use std::sync::Arc;

use anyhow::bail;
use chrono::TimeDelta;
use tokio::sync::mpsc;
use tokio::time::Instant;
use uuid::Uuid;

use super::Load;
use crate::client::{Caller, Client};
use crate::load::steadily;
use crate::people::{self, People};
use crate::progress::Progress;
use crate::timing::Timings;

/// A user who joined.
#[derive(Clone, Debug)]
pub(super) struct Arrival {
    pub begun: Instant,
    pub answered: Instant,
    /// The order of arrival, as the token says it.
    pub place: u64,
    pub caller: Caller,
    /// When to ask for the first time, in milliseconds from the answer.
    pub poll_after_ms: u64,
}

/// Has `total` join, `rate` in every second, spread over the instances.
pub(super) async fn run(
    clients: &[Client],
    people: &Arc<People>,
    concert: Uuid,
    rate: u32,
    total: u32,
    progress: &Progress,
) -> (Vec<Arrival>, Load) {
    progress.begin("people join", total.into());
    let (arrived, mut arrivals) = mpsc::unbounded_channel();
    let loaded = steadily(rate, total, progress, |number| {
        let client = clients[number as usize % clients.len()].clone();
        let (people, arrived) = (Arc::clone(people), arrived.clone());
        async move {
            // The receiver lives until all have arrived.
            let _received = arrived.send(join(&client, people.newcomer()?, concert).await?);
            Ok(())
        }
    })
    .await;
    arrivals.close();
    let mut all = Vec::with_capacity(total as usize);
    while let Some(arrival) = arrivals.recv().await {
        all.push(arrival);
    }
    let timings = all.iter().map(took).collect();
    let (errors, seconds) = (loaded.errors, loaded.seconds);
    (all, Load { timings, late: loaded.late, errors, seconds, slowest: Vec::new() })
}

/// One newcomer joins.
pub(super) async fn join(client: &Client, mut caller: Caller, concert: Uuid) -> anyhow::Result<Arrival> {
    let begun = Instant::now();
    let (status, look) = client.join(concert, &caller).await?;
    let answered = Instant::now();
    if status != 201 {
        bail!("a newcomer was answered {status}");
    }
    let place = people::place(&look.token)?;
    caller.queue_token = look.token;
    Ok(Arrival { begun, answered, place, caller, poll_after_ms: look.poll_after_ms })
}

fn took(arrival: &Arrival) -> TimeDelta {
    TimeDelta::from_std(arrival.answered - arrival.begun).unwrap_or_default()
}

/// Counts users whose place is behind a user who joined only after they had got theirs: none in a fair line.
pub(super) fn overtaken(arrivals: &[Arrival]) -> u64 {
    let mut begun: Vec<&Arrival> = arrivals.iter().collect();
    begun.sort_by_key(|arrival| arrival.begun);
    let mut answered = begun.clone();
    answered.sort_by_key(|arrival| arrival.answered);
    let mut before = answered.into_iter().peekable();
    let (mut last, mut count) = (0, 0);
    for arrival in begun {
        while let Some(earlier) = before.next_if(|earlier| earlier.answered < arrival.begun) {
            last = last.max(earlier.place);
        }
        count += u64::from(arrival.place < last);
    }
    count
}

/// For each, by how much the latest comer who was put before them came after them.
pub(super) fn unfairness(arrivals: &[Arrival]) -> Timings {
    let mut in_line: Vec<&Arrival> = arrivals.iter().collect();
    in_line.sort_by_key(|arrival| arrival.place);
    let mut latest: Option<Instant> = None;
    in_line
        .into_iter()
        .map(|arrival| {
            let before = latest.map_or(arrival.begun, |latest| latest.max(arrival.begun));
            latest = Some(before);
            TimeDelta::from_std(before - arrival.begun).unwrap_or_default()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn arrivals(all: &[(u64, u64, u64)]) -> Vec<Arrival> {
        let zero = Instant::now();
        let at = |ms| zero + Duration::from_millis(ms);
        let arrival = |&(begun, answered, place)| Arrival {
            begun: at(begun),
            answered: at(answered),
            place,
            caller: Caller::default(),
            poll_after_ms: 0,
        };
        all.iter().map(arrival).collect()
    }

    #[test]
    fn overtaking_is_counted_after_an_answer() {
        let fair = arrivals(&[(0, 10, 2), (5, 12, 1), (11, 20, 3)]);
        assert_eq!(overtaken(&fair), 0);
        assert_eq!(unfairness(&fair).spread().map(|spread| spread.max_ms.round()), Some(5.0));
        let unfair = arrivals(&[(0, 10, 7), (11, 20, 3)]);
        assert_eq!(overtaken(&unfair), 1);
    }
}
