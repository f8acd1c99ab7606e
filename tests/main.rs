//! Every integration test, as one binary: against a real Postgres and real NATS servers that it starts itself.

// A test says what is wrong by falling over.
#![allow(clippy::unwrap_used)]

mod common;

mod asyncapi;
mod audit;
mod audited_rows;
mod badge_printer;
mod booking;
mod browser;
mod checking;
mod cli;
mod command_batches;
mod connection_limits;
mod consumers;
mod counter;
mod decoders;
mod deployment;
mod docs;
mod events;
mod faults;
mod fence;
mod flights;
mod forged;
mod hold_limits;
mod hot_rows;
mod http_access;
mod http_booking;
mod http_brake;
mod http_catalog;
mod http_keys;
mod http_outage;
mod http_payment;
mod http_points;
mod http_queue;
mod http_sagas;
mod keeping;
mod laws;
mod local;
mod monitoring;
mod nats_rights;
mod notifier;
mod openapi;
mod operations;
mod operators;
mod outages;
mod pgbouncer;
mod postgres;
mod process;
mod queue_keys;
mod reads;
mod recent_audit;
mod refusals;
mod refused_requests;
mod replay;
mod sale_times;
mod sqlx_data;
mod terminal;
mod tidy;
mod two_listeners;
mod undelivered;
mod upgrade;
mod waiting_room;
mod worker_sdk;
mod workers;
