//! What is told of a line: to whoever stands in it, and to its operators.

pub mod overview;
mod prospects;
