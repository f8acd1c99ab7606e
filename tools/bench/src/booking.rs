//! Bookings by people from the line: a hold, then its payment, each a request of its own.
//!
//! All buyers are admitted before the run; a payment ends the place in line, so each buyer books once. A hold sets its
//! alarm and extends the place in line, and the cost includes that.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use serde_json::{Value, json};
use uuid::Uuid;

use super::admitted::{self, Admitted};
use super::client::{Client, Wish};
use super::lanes::{self, Circle, Rounds};
use super::progress::Progress;
use super::report::{Goal, Measure, Report};
use super::stage::{ALL_ROLES, Stage, Wanted};
use super::{Plan, admitted::SETTINGS};

/// Callers at once, one number after the other, and how many bookings a second each may come to.
const CALLERS: [(u32, u32); 3] = [(256, 7_000), (32, 4_000), (1, 500)];
const SECONDS: u32 = 8;
const WARM_UP: Duration = Duration::from_secs(3);

pub(super) async fn run(plan: &Plan, progress: &Progress) -> anyhow::Result<Report> {
    let callers = match plan.concurrency {
        Some(callers) => vec![(callers, (callers * 500).min(7_000))],
        None => CALLERS.to_vec(),
    };
    let measured = Duration::from_secs(plan.seconds.unwrap_or(SECONDS).into());
    let span = (measured + WARM_UP).as_secs() as u32;
    let people = callers.iter().map(|(_, most)| most * span).sum();
    let stage = Stage::open(plan, Wanted { settings: &SETTINGS, ..Wanted::default() }).await?;
    let service = stage.serve(ALL_ROLES).await?;
    let admitted = Arc::new(admitted::gather(&stage, &service.client, people, progress).await?);
    let next = Arc::new(AtomicUsize::new(0));
    let mut all = Vec::new();
    for (callers, _) in callers {
        let circle = Circle { callers, warm_up: WARM_UP, measured };
        let (client, admitted, next) = (service.client.clone(), Arc::clone(&admitted), Arc::clone(&next));
        let rounds = circle
            .run(&stage, progress, move || {
                book(client.clone(), Arc::clone(&admitted), next.fetch_add(1, Ordering::Relaxed))
            })
            .await?;
        all.push(rounds);
    }
    let report = lanes::report("booking", &all, measures, goals, point);
    let report = report.with("people_admitted_before", admitted.people.len());
    stage.close(vec![service], report).await
}

/// One booking; how long the hold took, and the payment.
async fn book(client: Client, admitted: Arc<Admitted>, number: usize) -> anyhow::Result<[Duration; 2]> {
    let buyer =
        admitted.people.get(number).context("all buyers have booked: take fewer callers or seconds")?;
    let seat = admitted.halls.seat(number as u32);
    let (performance_id, seat) = seat.context("there is a seat for every buyer")?;
    let begun = Instant::now();
    let held = client.post_once("/v1/reservations", buyer, &Wish { performance_id, seats: [seat] }).await?;
    let hold = begun.elapsed();
    let reservation: Uuid = held.id()?;
    let begun = Instant::now();
    let paid =
        client.post_once(&format!("/v1/reservations/{reservation}/payment"), buyer, &json!({})).await?;
    let payment = begun.elapsed();
    match (held.status, paid.status) {
        (201, 201) => Ok([hold, payment]),
        (held, status) => bail!("a hold was answered {held}, its payment {status} {}", paid.body()),
    }
}

fn measures(rounds: &Rounds<2>) -> Vec<Measure> {
    let [hold, payment] = &rounds.parts;
    let names = match rounds.callers {
        1 => ["hold, one at a time", "payment, one at a time"],
        32 => ["hold, 32 at once", "payment, 32 at once"],
        256 => ["hold, 256 at once", "payment, 256 at once"],
        _ => ["hold", "payment"],
    };
    vec![Measure::without_goal(names[0], hold), Measure::without_goal(names[1], payment)]
}

fn goals(rounds: &Rounds<2>) -> Vec<Goal> {
    let (rate, cpu) = (rounds.per_second(), rounds.cost.server_cpu_s_per_1000);
    let [hold, payment] = rounds.parts.each_ref().map(|part| part.spread());
    match rounds.callers {
        256 => vec![
            Goal::at_least("bookings a second, 256 at once", rate, 4_000.0),
            Goal::at_most("p99 of a hold, 256 at once, ms", hold.map(|spread| spread.p99_ms), 100.0),
            Goal::at_most("p99 of a payment, 256 at once, ms", payment.map(|spread| spread.p99_ms), 100.0),
            Goal::at_most("processor seconds per thousand, 256 at once", cpu, 0.35),
        ],
        32 => vec![Goal::at_least("bookings a second, 32 at once", rate, 2_000.0)],
        1 => vec![
            Goal::at_most("p50 of a hold, one at a time, ms", hold.map(|spread| spread.p50_ms), 1.5),
            Goal::at_most("p50 of a payment, one at a time, ms", payment.map(|spread| spread.p50_ms), 2.5),
        ],
        _ => Vec::new(),
    }
}

fn point(rounds: &Rounds<2>) -> Value {
    let [hold, payment] = rounds.parts.each_ref().map(|part| part.spread());
    json!({
        "concurrency": rounds.callers,
        "per_second": rounds.per_second().round(),
        "hold_p50_ms": hold.map(|spread| spread.p50_ms),
        "hold_p99_ms": hold.map(|spread| spread.p99_ms),
        "payment_p50_ms": payment.map(|spread| spread.p50_ms),
        "payment_p99_ms": payment.map(|spread| spread.p99_ms),
        "cost": rounds.cost,
    })
}
