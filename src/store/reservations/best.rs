//! A wish for seats that the service chooses.

use serde::{Deserialize, Serialize};

/// Seats that the service chooses: the best that are free.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BestSeats {
    pub count: i32,
    /// Any section, if it is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub section: Option<String>,
    /// Next to each other, or not at all.
    pub together: bool,
    /// At least one of them is accessible.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub accessible: bool,
}
