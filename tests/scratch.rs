mod common {
    pub struct Env {
        pub database_url: String,
        pub nats_url: String,
        child: std::process::Child,
        dir: tempfile::TempDir,
    }
    impl Env {
        pub async fn start() -> Self {
            let name = format!("s{}", boxoffice::ids::new().simple());
            let pool = sqlx::PgPool::connect("postgres://boxoffice@127.0.0.1:5499/postgres")
                .await
                .unwrap();
            sqlx::query(sqlx::AssertSqlSafe(format!("create database {name}")))
                .execute(&pool)
                .await
                .unwrap();
            let dir = tempfile::tempdir().unwrap();
            let port = std::net::TcpListener::bind("127.0.0.1:0")
                .unwrap()
                .local_addr()
                .unwrap()
                .port();
            let child = std::process::Command::new("/tmp/dev/nats-server")
                .args([
                    "-js",
                    "-a",
                    "127.0.0.1",
                    "-p",
                    &port.to_string(),
                    "-sd",
                    dir.path().to_str().unwrap(),
                ])
                .stderr(std::process::Stdio::null())
                .spawn()
                .unwrap();
            for _ in 0..100 {
                if std::net::TcpStream::connect(("127.0.0.1", port)).is_ok() {
                    break;
                }
                std::thread::sleep(std::time::Duration::from_millis(20));
            }
            Self {
                database_url: format!("postgres://boxoffice@127.0.0.1:5499/{name}"),
                nats_url: format!("nats://127.0.0.1:{port}"),
                child,
                dir,
            }
        }
    }
    impl Drop for Env {
        fn drop(&mut self) {
            let _ = self.child.kill();
            let _ = self.child.wait();
            let _ = &self.dir;
        }
    }
    #[path = "/work/main/tests/common/app.rs"]
    pub mod app;
}
mod booking;
