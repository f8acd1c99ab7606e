//! Tasks of this process, which are the engine's, and the periodic jobs of the service.

pub mod jobs;

pub use saga_engine::background::*;
