//! Laws of every workflow, tested for every step of every definition against real servers: whatever happens to a step,
//! its saga ends as defined, with the right effects and a good audit.
//!
//! | law | where |
//! |---|---|
//! | each step is rejected, and fails until its attempts are used up; so does each undo | `refused` |
//! | each step misses its deadline, and gets a late reply | `silent` |
//! | each command and each reply is delivered twice, and each undo runs twice | `repeated` |
//! | do and undo of a step run at the same time, at each statement | `interleaved` |
//! | the process is killed between commit, publish and acknowledgement of each step | `killed` |
//! | a backlog does not make a healthy saga compensate | `tests/slow/frozen_worker.rs` |
//!
//! The cases come from the definitions, so a new step or workflow is tested too. The facts that a test needs about it,
//! such as why its service rejects, are an entry in `table`; without one the tests fail.

mod interleaved;
mod killed;
mod sample_workflow;
mod case;
mod command_proxy;
pub mod process;
mod refused;
mod repeated;
mod silent;
mod harness;
mod table;
mod link;
