//! Views of the lines: a place for its owner and the gate, a line for operators and gauges.

pub mod overview;
mod place;
