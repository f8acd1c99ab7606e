//! Holds a running worker against the worker protocol (`docs/workers.md`). `boxoffice worker test` runs it.
//!
//! The suite sends commands of made-up sagas over NATS, as the engine does, and reads the replies and the acknowledgements of the
//! worker. It knows neither the worker's language nor its database, and uses no database of the engine.
//!
//! Whether an effect exists cannot be seen on NATS. With [`Options::count`] a command of the user counts the effects of a
//! saga, and each case looks at this number too.
//!
//! Every message carries the step [`saga_protocol::messages::WORKER_TEST_STEP`] unless the user names another one. No workflow can
//! have a step of this name, and an engine on the same server ignores replies about it.

mod run;
mod cases;
mod tester;
mod traffic;
mod setup;
mod shell;
mod report;
mod options;

pub use options::{Contexts, Options};
pub use report::{CaseReport, Report, Verdict};
pub use run::run;
pub use setup::SuiteError;
