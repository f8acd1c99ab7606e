//! What is known of one user in one line.

use super::super::place::{Entry, Place};
use super::ends::End;

/// Everything known of one user in this line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct View {
    /// The place as last written, unless its key was deleted.
    pub entry: Option<Entry>,
    /// Which places are over.
    pub end: Option<End>,
    /// 1 is next; nothing unless waiting.
    pub rank: Option<usize>,
}

impl View {
    /// Whether this place is known to be over.
    pub fn is_over(&self, place: Place) -> bool {
        self.end.is_some_and(|end| end.up_to >= place)
    }
}
