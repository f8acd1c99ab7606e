//! REST.
pub mod page;
pub mod request;
pub mod auth;
pub mod error;
