//! The waiting room against a real nats-server and a real Postgres: order, cap, leaders, ends, restarts.

mod cluster;
mod closing;
mod gate;
mod gauges;
mod journal;
mod kills;
mod leaders;
mod line;
mod openings;
mod restoring;
mod setting;
mod silence;
mod surroundings;
