//! The time of a booking beside no finished bookings and beside very many, in turn.
//!
//! The speed of a machine varies. So both databases run at once, on servers of their own, and bookings are
//! made in one and then in the other, again and again. What counts is the median of the rounds.

use serde::Serialize;

use super::{book, open};
use crate::client::Client;
use crate::progress::Progress;
use crate::report::Report;
use crate::stage::{ALL_ROLES, Stage};
use crate::timing::Timings;
use crate::{Plan, crowd};

/// Bookings of a round at most, and those before them.
const BOOKINGS: u32 = 300;
const WARM_UP: u32 = 30;

/// What bookings took beside so many finished ones: the middle one of each round, and the median of these.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Times {
    pub finished: u64,
    hold_p50_ms: Vec<f64>,
    payment_p50_ms: Vec<f64>,
    pub hold_ms: Option<f64>,
    pub payment_ms: Option<f64>,
}

/// Where bookings are made.
struct Place<'a> {
    stage: &'a Stage,
    client: &'a Client,
    times: Times,
}

/// So many rounds of bookings in a new database and beside the `finished` ones of this stage. Nothing where the servers are given:
/// there is one database then.
pub(super) async fn alternate(
    plan: &Plan,
    (stage, client): (&Stage, &Client),
    finished: u64,
    (rounds, bookings): (u32, u32),
    progress: &Progress,
) -> anyhow::Result<Vec<Times>> {
    if plan.database_url.is_some() || plan.nats_url.is_some() {
        return Ok(Vec::new());
    }
    let beside = Plan { data_dir: plan.data_dir.with_extension("empty"), ..plan.clone() };
    let empty = open(&beside).await?;
    let service = empty.serve(ALL_ROLES).await?;
    let mut places = [
        Place { stage: &empty, client: &service.client, times: Times::default() },
        Place { stage, client, times: Times { finished, ..Times::default() } },
    ];
    for round in 1..=rounds {
        for place in &mut places {
            progress.begin(&format!("round {round} beside {}", place.times.finished), 0);
            place.round(bookings.min(BOOKINGS)).await?;
        }
    }
    let times = places.map(|place| place.times.judged()).into();
    let judged = empty.close(vec![service], Report::new("growth", Vec::new())).await?;
    anyhow::ensure!(judged.good, "the audit of the small database: {}", judged.audit);
    Ok(times)
}

impl Place<'_> {
    async fn round(&mut self, bookings: u32) -> anyhow::Result<()> {
        let (quiet, warm_up) = (Progress::new(true), WARM_UP.min(bookings));
        let all = bookings + warm_up;
        let crowd = crowd::gather(self.stage, self.client, all, all, &quiet).await?;
        let (warm, buyers) = crowd.buyers.split_at(warm_up as usize);
        book(self.client, warm, (crowd.performance, 1), 1, &quiet).await?;
        let (_, hold, payment) =
            book(self.client, buyers, (crowd.performance, warm_up + 1), 1, &quiet).await?;
        let middle = |timings: &Timings| timings.spread().map(|spread| spread.p50_ms);
        self.times.hold_p50_ms.extend(middle(&hold));
        self.times.payment_p50_ms.extend(middle(&payment));
        Ok(())
    }
}

impl Times {
    fn judged(self) -> Self {
        Self { hold_ms: median(&self.hold_p50_ms), payment_ms: median(&self.payment_p50_ms), ..self }
    }
}

/// The one in the middle, or what lies between the two.
fn median(figures: &[f64]) -> Option<f64> {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    let last = sorted.len().checked_sub(1)?;
    Some(f64::midpoint(sorted[last / 2], sorted[last.div_ceil(2)]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_does_not_mind_one_slow_round() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[3.0, 900.0, 1.0, 2.0, 4.0]), Some(3.0));
        assert_eq!(median(&[4.0, 2.0]), Some(3.0));
    }
}
