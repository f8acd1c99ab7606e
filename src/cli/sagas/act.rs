//! `saga retry` and its like: one act on one saga, written down with who and why.

use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::super::{Context, Ending, Misuse, actor};
use super::about;
use super::acting::{Acting, Why, refused};
use crate::jsonb;
use crate::operations::refund::{self, RefundError, Refunded};
use crate::operations::{AskError, Repaired};
use crate::orchestrator::ActError;
use crate::saga::OperatorAction;
use crate::steps::{LeftToSettle, Settlement};

/// An act, and why.
#[derive(clap::Args, Debug)]
pub(in crate::cli) struct What {
    /// The saga
    id: Uuid,
    #[command(flatten)]
    why: Why,
}

/// A step's output, by hand.
#[derive(clap::Args, Debug)]
pub(in crate::cli) struct ByHand {
    #[command(flatten)]
    what: What,
    /// What the step has given, as a JSON object: later commands carry it
    #[arg(long, value_name = "JSON", default_value = "{}")]
    output: String,
    /// The step; only needed in a group of parallel steps, of which the saga is at several at once
    #[arg(long, value_name = "NAME")]
    step: Option<String>,
}

impl ByHand {
    /// The act with its output.
    pub(super) fn read(&self) -> Result<(OperatorAction, &What), Misuse> {
        let output: Map<String, Value> = serde_json::from_str(&self.output)
            .map_err(|error| Misuse(format!("--output must be a JSON object: {error}")))?;
        jsonb::check_object(&output).map_err(|error| Misuse(format!("--output cannot be kept: {error}")))?;
        Ok((OperatorAction::Complete { step: self.step.clone(), output }, &self.what))
    }
}

pub(super) async fn run(context: &Context, act: OperatorAction, what: &What) -> anyhow::Result<Ending> {
    what.why.check()?;
    let acting = Acting::begin(context).await?;
    let done = acting.engine.act(what.id, act, &acting.actor, &what.why.reason).await;
    acting.end().await;
    match done {
        Ok(acted) => {
            context.output.answer(&Repaired::from(acted), text)?;
            Ok(Ending::Good)
        }
        Err(ActError::Unknown) => Err(about(what.id)(AskError::Unknown)),
        Err(error) => refused(context, error),
    }
}

/// Gives points back that no saga gives back.
pub(super) async fn refund(context: &Context, what: &What) -> anyhow::Result<Ending> {
    what.why.check()?;
    let pool = context.database().await?;
    match refund::refund(&pool, what.id, &actor(), &what.why.reason).await {
        Ok(refunded) => {
            context.output.answer(
                &refunded,
                |Refunded { user_id, points, entry_id, was_refunded, .. }| {
                    let when = if *was_refunded { "had been given back before" } else { "are given back" };
                    format!("{points} points {when} to user {user_id}, by the ledger entry {entry_id}.")
                },
            )?;
            Ok(Ending::Good)
        }
        Err(RefundError::Unknown) => Err(about(what.id)(AskError::Unknown)),
        Err(RefundError::Database(error)) => Err(error.into()),
        Err(refusal) => {
            let refused = json!({ "code": "illegal_act", "detail": refusal.to_string() });
            context.output.answer(&refused, |_| refusal.to_string())?;
            Ok(Ending::Wrong)
        }
    }
}

/// How the saga is after the act.
pub(super) fn text(repaired: &Repaired) -> String {
    let saga = &repaired.saga;
    let paused = if saga.paused { " and paused" } else { "" };
    let mut text = format!("The saga is now {}{paused} in {}.", saga.status, saga.step);
    if !repaired.left_behind.is_empty() {
        text.push_str(&format!("\nLeft behind, for you to look after: {}.", repaired.left_behind.join(", ")));
    }
    if let Some(settlement) = &repaired.settlement {
        text.push_str(&settled(settlement));
    }
    text
}

/// What has become of the reservation, and what is left to settle.
fn settled(settlement: &Settlement) -> String {
    let Settlement { reservation_id, status, seats_freed, left_to_settle } = settlement;
    let mut text = format!("\nThe reservation {reservation_id} is {}", status.name());
    if !seats_freed.is_empty() {
        text.push_str(&format!("; these seats are free again: {}", listed(seats_freed)));
    }
    text.push('.');
    for left in left_to_settle {
        text.push_str("\nLeft to settle: ");
        text.push_str(&match left {
            LeftToSettle::PointsTaken { user_id, points } => {
                format!(
                    "{points} points were taken from user {user_id}, and there is no ticket for them. \
                         `saga refund` gives them back."
                )
            }
            LeftToSettle::PointsOwed { user_id, points } => {
                format!("user {user_id} has not paid the {points} points of this reservation.")
            }
            LeftToSettle::SeatsHeld { seats } => {
                format!("these seats could not be freed: {}.", listed(seats))
            }
        });
    }
    text
}

fn listed(seats: &[i32]) -> String {
    seats.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}
