//! The pure core of the engine: no async, no I/O, no clock, no randomness, and no knowledge of concerts.
//!
//! A [`Definition`] is data from `workflows/*.toml`. [`apply()`] takes a [`Saga`], an [`Event`] and the time, and returns
//! a [`Decision`]: a transition with its actions, `Stale` for a duplicate or late event, or `Illegal` for an event that
//! cannot be right. The service, the recovery after a crash, the model checker and the tests all call this function.
//!
//! ```text
//!              done                    signal                 last step done
//!   running ───────────▶ waiting ───────────────▶ running ─────────────────────▶ completed
//!      │  ▲                 │                        │
//!      │  └─ back_to ───────┼────────────────────────┤
//!      │ rejected, attempts │ deadline, cancel       │ rejected, attempts used up,
//!      ▼ used up, deadline  ▼                        ▼ deadline
//!   compensating ──────────────────────────────────────▶ compensated
//!      │ undo's attempts used up           ▲
//!      ▼                                   │
//!    stuck ── retry (operator) ── compensating / running
//! ```
//!
//! The members of a group of parallel steps run at the same time: see [`group`]. Their undos run one after the other.
//!
//! An operator can also complete a step, skip an undo, cancel, pause or abandon a saga. A pause holds back the next
//! forward command and nothing else: replies and signals count, deadlines apply, and undos run.

#[cfg(test)]
mod group_laws;
#[cfg(test)]
mod laws;
#[cfg(test)]
mod samples;
pub mod versions;
pub mod progress;
pub mod apply;
mod reply;
mod transition;
pub mod action;
pub mod command;
pub mod event;
pub mod operator;
pub mod group;
pub mod registry;
pub mod definition;
pub mod delay;
pub mod size;
pub mod state;
pub mod members;
pub mod jsonb;
pub mod range;

pub use action::{Action, Decision, Entry, Transition};
pub use apply::{STARTED, apply, apply_undefined, outstanding, start, start_in};
pub use command::{Command, command, commands, message_id};
pub use definition::{ABANDONED, Definition, DefinitionError, MAX_BYTES, MAX_STEPS, STUCK, Step, Work};
pub use event::{Event, Outcome, Poisoned, Reply, Signal};
pub use group::{focused, is_in_running_group, open_steps};
pub use members::{MAX_MEMBERS, Member, MemberState, Members};
pub use operator::{OperatorAction, allowed_actions, missing_outputs};
pub use progress::{NextTransition, Progress, Standing, StepProgress, StepRecord, next_transition, progress};
pub use registry::WorkflowRegistry;
pub use reply::DEADLINE_PASSED;
pub use size::too_large;
pub use state::{Direction, NewSaga, Saga, Status};
pub use transition::{carried_outputs, may_have_run};
pub use versions::{Change, compare};
