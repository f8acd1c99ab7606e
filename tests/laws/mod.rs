//! The laws of every workflow, run for every step of every definition against real servers: whatever happens to a
//! step, its saga ends as its definition says, with a clean slate and books that are right.
//!
//! | law | where |
//! |---|---|
//! | each step is refused, and fails until its attempts are used up; each undo too | `refused` |
//! | each step times out, and is answered late | `silent` |
//! | each command and each reply comes twice, and each undo runs twice | `repeated` |
//! | do and undo of a step meet, before each statement of the other | `interleaved` |
//! | the process is killed between commit, publish and acknowledgement of each step | `killed` |
//! | a backlog compensates no saga that is healthy | `backlog` |
//!
//! The cases come from the definitions: a new step or workflow is tried like the others. What must be known of it,
//! such as how its service comes to say no, is a row in `table`; without one the tests fail.

mod backlog;
mod interleaved;
mod killed;
mod parcels;
mod play;
mod post;
pub mod process;
mod refused;
mod repeated;
mod silent;
mod stage;
mod table;
mod wire;
