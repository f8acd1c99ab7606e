//! The waiting room against a real nats-server and a real Postgres: order, cap, leaders, ends, restarts.

mod cluster;
mod closing;
mod gate;
mod gauges;
mod hostile;
mod journal;
mod kills;
mod leaders;
mod line;
mod openings;
mod restoring;
mod setting;
mod silence;
mod starting;
mod surroundings;
mod traces;
