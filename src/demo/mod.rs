//! The on-sale that the program plays against itself.
