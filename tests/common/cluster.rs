//! Three nats-servers of a test's own, as one cluster.

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use boxoffice::bus::{self, Bus, topology};
use dev_servers::programs;

use super::fresh_dir;

/// Waits for the end of its input, which only this process holds open, and then ends the server.
const KEEPER: &str = r#""$@" & read -r _; kill -9 $!; wait $!"#;

pub struct Cluster {
    pub urls: Vec<String>,
    dir: PathBuf,
    servers: Vec<Child>,
}

impl Cluster {
    pub async fn start() -> Self {
        let free = || TcpListener::bind("127.0.0.1:0").unwrap();
        let listeners: Vec<_> = (0..6).map(|_| free()).collect();
        let ports: Vec<u16> = listeners.iter().map(|one| one.local_addr().unwrap().port()).collect();
        drop(listeners);
        let (clients, routes) = ports.split_at(3);
        let peers: Vec<_> = routes.iter().map(|port| format!("nats-route://127.0.0.1:{port}")).collect();
        let (dir, peers) = (fresh_dir("cluster"), peers.join(","));
        std::fs::create_dir_all(&dir).unwrap();
        for (n, (client, route)) in clients.iter().zip(routes).enumerate() {
            let text = format!(
                "server_name: n{n}\nlisten: 127.0.0.1:{client}\njetstream {{ store_dir: {:?} }}\n\
                 cluster {{ name: test, listen: 127.0.0.1:{route}, routes: [{peers}] }}\n",
                dir.join(format!("store-{n}"))
            );
            std::fs::write(dir.join(format!("{n}.conf")), text).unwrap();
        }
        let urls = clients.iter().map(|port| format!("nats://127.0.0.1:{port}")).collect();
        let mut cluster = Self { urls, dir, servers: Vec::new() };
        cluster.servers = (0..3).map(|n| cluster.launch(n)).collect();
        cluster
    }

    fn launch(&self, n: usize) -> Child {
        Command::new("/bin/sh")
            .args(["-c", KEEPER, "keeper"])
            .arg(programs::nats_server().unwrap())
            .arg("-c")
            .arg(self.dir.join(format!("{n}.conf")))
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap()
    }

    /// Ends one server as `kill -9` does.
    pub fn kill(&mut self, n: usize) {
        drop(self.servers[n].stdin.take());
        self.servers[n].wait().unwrap();
    }

    /// Starts a server again that was killed.
    pub fn restart(&mut self, n: usize) {
        self.servers[n] = self.launch(n);
    }

    /// The address of all of them.
    pub fn url(&self) -> String {
        self.urls.join(",")
    }

    /// Waits until the cluster has a leader and the streams.
    pub async fn connect(&self) -> Bus {
        for _ in 0..300 {
            if let Ok(bus) = bus::connect(&self.url(), "test", 3).await
                && topology::ensure_with_bucket(&bus).await.is_ok()
            {
                return bus;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("the cluster does not come up");
    }
}
