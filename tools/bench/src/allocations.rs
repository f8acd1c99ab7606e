//! How often the service under measurement asks its allocator for memory.
//!
//! The service is this program with the command `serve`, so this program's allocator counts for it; the product's own program has no
//! counter. A process counts only where the scenario wants it, and says how often over a connection to the scenario's process.

use std::alloc::{GlobalAlloc, Layout};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context;
use mimalloc::MiMalloc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::time::timeout;

/// Where a process of the service connects to, if it is to count.
pub(super) const COUNT_FOR: &str = "BENCH_COUNT_ALLOCATIONS_FOR";
const CONNECT_TIMEOUT: Duration = Duration::from_secs(60);
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

static COUNTS: AtomicBool = AtomicBool::new(false);
static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

/// The service's allocator, with a counter that is off at first. Something that grows in place counts as well.
#[derive(Debug)]
pub struct CountingAllocator;

impl CountingAllocator {
    fn count(&self) {
        if COUNTS.load(Ordering::Relaxed) {
            ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[allow(unsafe_code, reason = "the trait of allocators is unsafe; each call is passed on as it came")]
unsafe impl GlobalAlloc for CountingAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        self.count();
        unsafe { MiMalloc.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        self.count();
        unsafe { MiMalloc.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        self.count();
        unsafe { MiMalloc.realloc(block, layout, size) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        unsafe { MiMalloc.dealloc(block, layout) }
    }
}

/// In a process of the service: begins to count if the scenario wants it, and answers whenever it asks.
pub fn count_if_wanted() {
    let Ok(address) = std::env::var(COUNT_FOR) else {
        return;
    };
    COUNTS.store(true, Ordering::Relaxed);
    std::thread::spawn(move || {
        // It ends with the connection: the scenario is over then.
        let _ended = answer(&address);
    });
}

fn answer(address: &str) -> std::io::Result<()> {
    let mut scenario = TcpStream::connect(address)?;
    loop {
        scenario.read_exact(&mut [0])?;
        scenario.write_all(&ALLOCATIONS.load(Ordering::Relaxed).to_be_bytes())?;
    }
}

/// The scenario's end of the connection to one process.
#[derive(Debug)]
pub(super) struct Counter(tokio::net::TcpStream);

impl Counter {
    /// Where the next process is to connect to.
    pub(super) async fn listen() -> anyhow::Result<TcpListener> {
        Ok(TcpListener::bind("127.0.0.1:0").await?)
    }

    /// Waits for the process.
    pub(super) async fn accept(listener: TcpListener) -> anyhow::Result<Self> {
        let accepted = timeout(CONNECT_TIMEOUT, listener.accept()).await;
        Ok(Self(accepted.context("the service does not count its allocations")??.0))
    }

    /// The allocations since the process began.
    pub(super) async fn read(&mut self) -> anyhow::Result<u64> {
        let mut count = [0; 8];
        let exchange = async {
            self.0.write_all(&[1]).await?;
            self.0.read_exact(&mut count).await
        };
        timeout(ANSWER_TIMEOUT, exchange).await.context("the service does not say what it counted")??;
        Ok(u64::from_be_bytes(count))
    }
}
