//! When a service has to stop: at Ctrl-C, at SIGTERM, or when the process that started it ends.

use std::future::Future;

use tokio::io::AsyncReadExt;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Ends when this process is asked to stop. Signals count from the call on, not only once it is awaited.
pub fn stopped(with_stdin: bool) -> std::io::Result<impl Future<Output = ()>> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            () = stdin_ended(), if with_stdin => {}
        }
    })
}

/// A token that is cancelled when this process is asked to stop.
pub fn stop_token() -> std::io::Result<CancellationToken> {
    let (stop, stopped) = (CancellationToken::new(), stopped(false)?);
    tokio::spawn({
        let stop = stop.clone();
        async move {
            stopped.await;
            stop.cancel();
        }
    });
    Ok(stop)
}

async fn stdin_ended() {
    let mut scrap = [0; 64];
    let mut stdin = tokio::io::stdin();
    // Zero bytes or an error mean that the other end of the pipe is closed.
    while matches!(stdin.read(&mut scrap).await, Ok(1..)) {}
}
