//! A thread for whoever stands for many people who have machines of their own: it gives way to what is measured beside
//! them.

use std::thread;

use tokio::runtime;
use tokio::sync::oneshot;

/// How much it gives way, from 0 to 19.
#[cfg(target_os = "linux")]
const NICE: i32 = 10;

/// Does `work` on a thread and a runtime of its own, at lower priority where the system is Linux. The work begins no
/// processes: they would inherit the priority. It is dropped when nobody waits for its end any more.
///
/// # Errors
/// When there is no such thread to be had, or the work panics.
pub(super) async fn aside<T, F>(work: impl FnOnce() -> F + Send + 'static) -> anyhow::Result<T>
where
    T: Send + 'static,
    F: Future<Output = T>,
{
    let (mut done, outcome) = oneshot::channel();
    let there = thread::Builder::new().name("aside".to_owned()).spawn(move || -> anyhow::Result<()> {
        give_way()?;
        runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
            tokio::select! {
                // Whoever waited may just have gone.
                outcome = work() => drop(done.send(outcome)),
                () = done.closed() => {}
            }
        });
        Ok(())
    })?;
    match outcome.await {
        Ok(outcome) => Ok(outcome),
        Err(_) => {
            there.join().map_err(|_| anyhow::anyhow!("what was done aside panicked"))??;
            anyhow::bail!("what was done aside has no outcome")
        }
    }
}

/// Lowers the priority of this thread.
#[cfg(target_os = "linux")]
fn give_way() -> anyhow::Result<()> {
    // No process: the thread that calls.
    Ok(rustix::process::setpriority_process(None, NICE)?)
}

/// Elsewhere a thread has no priority of its own.
#[cfg(not(target_os = "linux"))]
fn give_way() -> anyhow::Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn what_is_done_aside_gives_way_and_whoever_waits_for_it_does_not() {
        use rustix::process::getpriority_process;
        let before = getpriority_process(None).unwrap();
        let spawned = || async { tokio::spawn(async { getpriority_process(None).unwrap() }).await.unwrap() };
        assert_eq!(aside(spawned).await.unwrap(), NICE.max(before));
        assert_eq!(getpriority_process(None).unwrap(), before);
    }

    #[tokio::test]
    async fn it_ends_with_whoever_waits_for_it() {
        let (alive, ended) = oneshot::channel::<()>();
        let waiting = tokio::spawn(aside(|| async move {
            let _alive = alive;
            std::future::pending::<()>().await;
        }));
        tokio::task::yield_now().await;
        waiting.abort();
        assert!(ended.await.is_err());
    }

    #[tokio::test]
    async fn a_panic_is_an_error_of_whoever_waits() {
        let outcome = aside(|| async { panic!("it fails") }).await;
        assert!(outcome.is_err_and(|error: anyhow::Error| error.to_string().contains("panicked")));
    }
}
