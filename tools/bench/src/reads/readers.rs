//! Callers who ask for the same without a pause.

use std::time::Duration;

use anyhow::bail;
use futures::future::try_join_all;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::client::{Caller, Client};
use crate::stage::Meter;
use crate::timing::Timings;

/// The answers of a first while, so many times shorter than what is measured, are not counted.
const WARM_UP: u32 = 5;

/// What so many callers asked for, and what came of it.
#[derive(Clone, Debug, Default)]
pub(super) struct Load {
    pub what: &'static str,
    /// The service keeps what it reads.
    pub cache: bool,
    /// The callers name the version that they have.
    pub knows: bool,
    pub count: u64,
    pub errors: u64,
    pub seconds: f64,
    pub timings: Timings,
    /// Processor seconds of the servers.
    pub cpu: Option<f64>,
    /// The size of a body.
    pub bytes: usize,
}

impl Load {
    /// Lets so many callers ask for so long.
    pub(super) async fn measure(
        mut self,
        client: &Client,
        caller: &Caller,
        path: &str,
        callers: u32,
        seconds: u32,
    ) -> anyhow::Result<Self> {
        let first = client.read(path, caller, None).await?;
        if first.status != 200 {
            bail!("GET {path} was answered {}", first.status);
        }
        self.bytes = first.bytes.len();
        let known = first.etag.as_deref().filter(|_| self.knows);
        let ask = |length| try_join_all((0..callers).map(move |_| asks(client, caller, path, known, length)));
        let length = Duration::from_secs(seconds.into());
        ask(length / WARM_UP).await?;
        let (meter, begun) = (Meter::start(), Instant::now());
        let asked = ask(length).await?;
        self.seconds = begun.elapsed().as_secs_f64();
        self.cpu = meter.read();
        for (timings, errors) in asked {
            self.count += timings.count();
            self.errors += errors;
            self.timings.extend(timings);
        }
        Ok(self)
    }

    /// As it stands in the report.
    pub(super) fn summary(&self) -> Value {
        let spread = self.timings.spread();
        json!({
            "what": self.what,
            "cache": if self.cache { "on" } else { "off" },
            "if_none_match": self.knows,
            "bytes": self.bytes,
            "per_second": (self.count as f64 / self.seconds).round(),
            "p50_ms": spread.map(|spread| spread.p50_ms),
            "p95_ms": spread.map(|spread| spread.p95_ms),
            "p99_ms": spread.map(|spread| spread.p99_ms),
            "errors": self.errors,
            "server_cpu_s_per_1000": self.cpu.map(|cpu| (cpu * 1e6 / self.count as f64).round() / 1e3),
        })
    }
}

/// One caller: how long each answer took, and how many were not what they should be.
async fn asks(
    client: &Client,
    caller: &Caller,
    path: &str,
    known: Option<&str>,
    length: Duration,
) -> anyhow::Result<(Timings, u64)> {
    let (mut timings, mut errors, end) = (Timings::default(), 0, Instant::now() + length);
    let expected = if known.is_some() { 304 } else { 200 };
    while Instant::now() < end {
        let begun = Instant::now();
        let answer = client.read(path, caller, known).await?;
        timings.add_duration(begun.elapsed());
        errors += u64::from(answer.status != expected);
    }
    Ok((timings, errors))
}
