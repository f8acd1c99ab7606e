//! Tests in a real browser. A Rust test prepares the service; a script beside this file drives Chromium against it, by
//! Node's test runner. The script gets its input (addresses, keys, ids) from the Rust test.

mod api_page;
mod console;
mod other_origin;
mod script;
mod shop;

use script::run;
