//! What a piece of work costs the servers: processor time by process, commits and log of Postgres, messages of JetStream.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::TryStreamExt;
use serde::Serialize;

use super::cpu;
use super::stage::Stage;
use crate::store::rehearsal::{self, Counters};

/// The counters of all servers at a moment.
#[derive(Clone, Debug)]
pub(super) struct Reading {
    cpu: Option<BTreeMap<String, f64>>,
    postgres: Counters,
    messages: u64,
}

/// The mean cost of one piece of work.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Cost {
    /// Processor seconds per thousand, of each kind of process; none where the system does not report them.
    pub cpu_s_per_1000: Option<BTreeMap<String, f64>>,
    /// Their sum.
    pub server_cpu_s_per_1000: Option<f64>,
    /// Transactions that were committed.
    pub commits: f64,
    /// How often the log was forced to disk: commits that came together share one.
    pub syncs: f64,
    /// Bytes of Postgres's log.
    pub wal_bytes: f64,
    /// Whole pages among them, which follow a checkpoint.
    pub wal_pages: f64,
    /// Messages that JetStream stored.
    pub jetstream_messages: f64,
}

impl Reading {
    /// Reads all of them now. Postgres's own may be a second old.
    pub(super) async fn take(stage: &Stage) -> anyhow::Result<Self> {
        let streams: Vec<_> = stage.bus.jetstream.streams().try_collect().await?;
        let messages = streams.iter().map(|stream| stream.state.last_sequence).sum();
        let postgres = rehearsal::counters(&stage.pool).await?;
        Ok(Self { cpu: cpu::by_server(), postgres, messages })
    }

    /// How many cores each kind of process kept busy since an earlier reading; none where the system does not report it.
    pub(super) fn cores_since(&self, earlier: &Self, span: Duration) -> Option<BTreeMap<String, f64>> {
        let (now, before) = (self.cpu.as_ref()?, earlier.cpu.as_ref()?);
        let busy = |(name, seconds): (&String, &f64)| {
            let used = seconds - before.get(name).unwrap_or(&0.0);
            (name.clone(), rounded(used / span.as_secs_f64().max(0.001)))
        };
        Some(now.iter().map(busy).collect())
    }

    /// What each of `count` pieces of work cost since an earlier reading.
    pub(super) fn since(&self, earlier: &Self, count: u64) -> Cost {
        let each = |figure: f64| figure / count.max(1) as f64;
        let grown = |now: i64, before: i64| rounded(each((now - before) as f64));
        let per_1000 = |seconds: f64| rounded(each(seconds * 1_000.0));
        let cpu_s_per_1000 = self.cpu.as_ref().zip(earlier.cpu.as_ref()).map(|(now, before)| {
            let of = |(name, seconds): (&String, &f64)| {
                (name.clone(), per_1000(seconds - before.get(name).unwrap_or(&0.0)))
            };
            now.iter().map(of).collect::<BTreeMap<_, _>>()
        });
        Cost {
            server_cpu_s_per_1000: cpu_s_per_1000.as_ref().map(|all| rounded(all.values().sum())),
            cpu_s_per_1000,
            commits: grown(self.postgres.commits, earlier.postgres.commits),
            syncs: grown(self.postgres.syncs, earlier.postgres.syncs),
            wal_bytes: grown(self.postgres.wal_bytes, earlier.postgres.wal_bytes).round(),
            wal_pages: grown(self.postgres.wal_pages, earlier.postgres.wal_pages),
            jetstream_messages: rounded(each(self.messages.saturating_sub(earlier.messages) as f64)),
        }
    }
}

fn rounded(figure: f64) -> f64 {
    (figure * 1_000.0).round() / 1_000.0
}
