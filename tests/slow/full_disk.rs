//! JetStream's file system is full for a while. Nothing may be left behind once there is space and nats-server was
//! restarted. Only root can make such a file system; without it the test does nothing.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use boxoffice::app::Role;
use boxoffice::store;
use boxoffice::store::reservations::ReservationStatus;
use tokio::time::sleep;

use super::common::Env;
use super::common::app::{TestApp, add_concert, add_performance, assert_good, start, until};

/// How long the file system stays full.
const FULL: Duration = Duration::from_secs(30);
const FLAGS: &[&str] = &["--hold-seconds", "5", "--payment-grace-seconds", "1"];

/// A small file system in memory; it goes with this.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(at: &Path) -> Self {
        std::fs::create_dir_all(at).unwrap();
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=48m", "tmpfs"]).arg(at).status();
        assert!(mounted.unwrap().success(), "cannot mount at {}", at.display());
        Self(at.to_owned())
    }

    /// Takes all the space there is, to the last page.
    fn fill(&self) {
        for block in ["bs=64k", "bs=1k"] {
            let filled = Command::new("dd")
                .args(["if=/dev/zero", block, "oflag=append", "conv=notrunc"])
                .arg(format!("of={}", self.ballast()))
                .output();
            assert!(!filled.unwrap().status.success(), "it is not full");
        }
    }

    fn free(&self) {
        std::fs::remove_file(self.ballast()).unwrap();
    }

    fn ballast(&self) -> String {
        format!("{}/ballast", self.0.display())
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: a server may still have files open.
        let _unmounted = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[tokio::test]
async fn sagas_end_after_jetstreams_disk_was_full() {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let mut disk = None;
    let env = Env::start_prepared(|dir| disk = Some(SmallDisk::mount(&dir.join("nats/store")))).await;
    let disk = disk.unwrap();
    let app = start(&env, FLAGS, &Role::ALL).await;
    let concert = add_concert(&app).await;
    let performance = add_performance(&app, concert, 2_000, 1).await;
    let test = TestApp { app, env, concert, performance };
    let other = test.another(FLAGS).await;
    let user = test.user(100_000).await;

    disk.fill();
    let (begin, mut seat) = (tokio::time::Instant::now(), 0);
    let mut problem = None;
    while begin.elapsed() < FULL {
        seat += 1;
        test.charge(user, 1).await;
        // While nothing is stored a booking may be refused or take its time.
        if let Ok(boxoffice::booking::Answer::Settled(held)) =
            test.app.booking.reserve(test.order(test.user(10).await, &[seat])).await
            && seat % 3 == 0
            && held.status == ReservationStatus::Held
        {
            let _paid = test.app.booking.pay(held.id).await;
        }
        problem = problem
            .or_else(|| test.app.bus.health.problem().filter(|_| begin.elapsed() < Duration::from_secs(12)));
        sleep(Duration::from_millis(100)).await;
    }
    let problem = problem.expect("the instance notices within seconds");
    assert!(problem.advice.contains("restart"), "{problem:?}");
    println!("{problem:?}, {seat} buyers");

    disk.free();
    let TestApp { app, env, concert, performance } = test;
    let test = TestApp { app, env: env.restart_nats().await, concert, performance };
    let overdue = || async { store::queue::overdue_sagas(&test.app.pool).await.unwrap() };
    until(60, "every due saga to be looked at", || async { overdue().await == 0 }).await;
    until(60, "every hold to end", || async {
        let open = store::sagas::count_open(&test.app.pool).await.unwrap();
        open.is_empty()
    })
    .await;
    until(30, "the charges to be announced", || async {
        !store::pulse::pulse(&test.app.pool).await.unwrap().charges
    })
    .await;
    until(20, "JetStream to work", || async { !test.app.bus.health.is_failing() }).await;
    assert_good(&test.app).await;
    other.stop().await;
    test.app.stop().await;
    drop(disk);
}
