//! The waiting room against a real nats-server and a real Postgres: order, cap, leaders, ends, restarts.

mod cluster;
mod gate;
mod leaders;
mod line;
mod setting;
mod silence;
mod surroundings;
