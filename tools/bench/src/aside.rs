//! A low-priority thread for a generator that simulates many users. In production they have machines of their own, so the
//! thread must not take processor time from what is measured.

use std::thread;

use tokio::runtime;
use tokio::sync::oneshot;

/// Does `work` on a thread and a runtime of its own; where the system is Linux, only while nothing else wants its processor.
/// The work begins no processes: they would inherit that. It is dropped when the caller no longer waits for its end.
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
                // The caller may just have gone.
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

/// Lets this thread have a processor only while no other wants it, and lose it to the first that does.
#[cfg(target_os = "linux")]
fn give_way() -> anyhow::Result<()> {
    use thread_priority::{NormalThreadSchedulePolicy, ThreadPriority, ThreadSchedulePolicy};
    let idle = ThreadSchedulePolicy::Normal(NormalThreadSchedulePolicy::Idle);
    let this = thread_priority::thread_native_id();
    Ok(thread_priority::set_thread_priority_and_policy(this, ThreadPriority::Min, idle)?)
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
    async fn idle_priority_work_gives_way() {
        use thread_priority::{NormalThreadSchedulePolicy, ThreadSchedulePolicy, thread_schedule_policy};
        let before = thread_schedule_policy().unwrap();
        let spawned = || async { tokio::spawn(async { thread_schedule_policy().unwrap() }).await.unwrap() };
        let idle = ThreadSchedulePolicy::Normal(NormalThreadSchedulePolicy::Idle);
        assert_eq!(aside(spawned).await.unwrap(), idle);
        assert_eq!(thread_schedule_policy().unwrap(), before);
        assert_ne!(before, idle);
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
