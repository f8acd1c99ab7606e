//! REST.
pub mod observe;
pub mod idempotency;
pub mod answer;
pub mod page;
pub mod request;
pub mod auth;
pub mod error;
