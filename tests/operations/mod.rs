//! What operators ask and do, over the API and on the command line: the same powers, the same answers.

mod reading;
mod tail;
mod why;
