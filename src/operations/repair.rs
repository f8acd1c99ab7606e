//! An operator's act on one saga, and what it has led to.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::view::SagaView;
use crate::orchestrator::{Acted, SETTLEMENT};
use crate::steps::Settlement;
use crate::text;

/// The longest reason of an act, in characters.
pub const REASON_CHARS_MAX: usize = 1_000;

/// A saga after an act.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Repaired {
    #[serde(flatten)]
    pub saga: SagaView,
    /// The steps whose effects may still be there and that the engine will not undo: of a saga that was given up, or
    /// of an undo that was skipped.
    pub left_behind: Vec<String>,
    /// What the act has changed about the reservation, and what of it is left to settle by hand; null if neither.
    pub settlement: Option<Settlement>,
}

impl From<Acted> for Repaired {
    fn from(acted: Acted) -> Self {
        let left = acted.detail.as_ref().and_then(|detail| detail.get("left")?.as_array());
        let names = left.into_iter().flatten().filter_map(|name| name.as_str().map(str::to_owned));
        let settlement = acted.detail.as_ref().and_then(|detail| detail.get(SETTLEMENT));
        let settlement = settlement.and_then(|settlement| Settlement::deserialize(settlement).ok());
        Self { left_behind: names.collect(), settlement, saga: acted.saga.into() }
    }
}

/// What is wrong with a reason, if anything is.
pub fn reason_problem(reason: &str) -> Option<String> {
    text::line_problem(reason, &(1..=REASON_CHARS_MAX))
}
