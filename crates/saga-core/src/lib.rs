//! The pure core of the engine: no async, no I/O, no clock, no randomness, and no idea what a seat is.
//!
//! A [`Definition`] is data from `workflows/*.toml`. [`apply()`] looks at a [`Saga`], an [`Event`] and the time
//! and answers with a [`Decision`]: a transition and what to do about it, `Stale` for what comes twice or
//! late, `Illegal` for what cannot be. Live running, recovery and tests all call the same function.
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
//! An operator may also complete a step by hand, skip an undo, turn a saga back, pause it or give it up (`abandoned`).
//! A pause holds back the next forward command and nothing else: answers and signals are taken, clocks go on, and
//! what has to be undone is undone.

#[cfg(test)]
mod laws;
#[cfg(test)]
mod samples;
pub mod versions;
pub mod outlook;
pub mod apply;
mod acts;
mod halts;
mod moves;
mod permits;
pub mod action;
pub mod definition;
pub mod delay;
pub mod event;
pub mod size;
pub mod state;
pub mod jsonb;
pub mod range;

pub use action::{Action, Command, Decision, Entry, Transition, message_id};
pub use apply::{DEADLINE_PASSED, STARTED, apply, lost_definition, outstanding, start, start_in};
pub use definition::{ABANDONED, Definition, STUCK, Step, Work, WorkflowRegistry};
pub use event::{Act, Event, Outcome, Poisoned, Reply};
pub use moves::{command, kept, may_have_run};
pub use outlook::{Outlook, Prospect, Standing, StepAhead, Told, outlook, prospect};
pub use permits::{allowed_acts, lacking};
pub use size::too_large;
pub use state::{Direction, NewSaga, Saga, Status};
pub use versions::{Change, compare};
