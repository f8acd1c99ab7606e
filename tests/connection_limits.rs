//! How many connections and streams one client may have, how slow it may be, and how large its head.

use std::net::SocketAddr;
use std::time::Duration;

use reqwest::Method;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{Instant, sleep, timeout};

use crate::common::app::until;
use crate::common::http::{Caller, Entrance};

/// Longer than anything here should take.
const TEST_TIMEOUT: Duration = Duration::from_secs(20);

/// A connection on which nothing is sent but what a test says.
struct Raw(TcpStream);

impl Raw {
    async fn to(address: SocketAddr) -> Self {
        Self(TcpStream::connect(address).await.unwrap())
    }

    async fn send(&mut self, text: &str) {
        self.0.write_all(text.as_bytes()).await.unwrap();
    }

    /// All that comes until the other side closes, and how long that took.
    async fn rest(mut self) -> (String, Duration) {
        let begun = Instant::now();
        let mut bytes = Vec::new();
        // A connection that is reset has said what it had to say.
        let _ended = timeout(TEST_TIMEOUT, self.0.read_to_end(&mut bytes)).await.expect("it is closed");
        (String::from_utf8_lossy(&bytes).into_owned(), begun.elapsed())
    }

    /// What comes first, and then no more is wanted.
    async fn close(mut self) -> String {
        self.read().await
    }

    /// What comes next.
    async fn read(&mut self) -> String {
        let mut bytes = [0; 4_096];
        let length = timeout(TEST_TIMEOUT, self.0.read(&mut bytes)).await.expect("it is answered").unwrap();
        String::from_utf8_lossy(&bytes[..length]).into_owned()
    }

    /// Sends a byte every now and then, until the other side has had enough.
    async fn trickle(self, text: &str) -> (String, Duration) {
        let (mut reading, mut writing) = self.0.into_split();
        let text = text.as_bytes().to_vec();
        let sending = tokio::spawn(async move {
            for byte in text.iter().cycle() {
                sleep(Duration::from_millis(100)).await;
                if writing.write_all(&[*byte]).await.is_err() {
                    return;
                }
            }
        });
        let begun = Instant::now();
        let mut bytes = Vec::new();
        let _ended = timeout(TEST_TIMEOUT, reading.read_to_end(&mut bytes)).await.expect("it is closed");
        sending.abort();
        (String::from_utf8(bytes).unwrap(), begun.elapsed())
    }
}

fn head_of_an_order(caller: &Caller, length: usize) -> String {
    let bearer = caller.header("authorization");
    format!(
        "POST /v1/reservations HTTP/1.1\r\nHost: x\r\nAuthorization: {bearer}\r\nContent-Type: application/json\r\n\
         Content-Length: {length}\r\n\r\n"
    )
}

#[tokio::test]
async fn slow_clients_are_cut_off_others_served() {
    let entrance = Entrance::with(&["--client-seconds", "2", "--keep-alive-seconds", "2"]).await;
    let (user, address) = (entrance.user(0).await, entrance.test.app.address.unwrap());
    let silent = async { Raw::to(address).await.rest().await };
    let slow_head = async {
        let mut raw = Raw::to(address).await;
        raw.send("GET /livez HTTP/1.1\r\nHost: x\r\nX-Slow: ").await;
        raw.trickle("a").await
    };
    let slow_body = async {
        let mut raw = Raw::to(address).await;
        raw.send(&head_of_an_order(&user, 500)).await;
        raw.trickle(" ").await
    };
    let idle = async {
        let mut raw = Raw::to(address).await;
        raw.send("GET /livez HTTP/1.1\r\nHost: x\r\n\r\n").await;
        raw.rest().await
    };
    let others = async {
        for _ in 0..10 {
            entrance.get("/v1/points", &user).await.good(200);
            sleep(Duration::from_millis(150)).await;
        }
    };
    let ((nothing, silent), (head, slow), (body, slower), (good, idle), ()) =
        tokio::join!(silent, slow_head, slow_body, idle, others);
    assert_eq!((nothing.as_str(), head.as_str()), ("", ""), "there was no request to answer");
    assert!(good.starts_with("HTTP/1.1 200"), "{good}");
    assert!(body.starts_with("HTTP/1.1 408"), "{body}");
    let problem: Value = serde_json::from_str(body.split_once("\r\n\r\n").unwrap().1).unwrap();
    assert_eq!(problem["code"], "request_timeout");
    assert!(problem["detail"].as_str().unwrap().contains("2 s after the head"), "{problem}");
    for took in [silent, slow, slower, idle] {
        assert!((1_800..6_000).contains(&took.as_millis()), "{took:?}");
    }
}

#[tokio::test]
async fn client_that_reads_no_answer_is_disconnected() {
    let entrance = Entrance::with(&["--client-seconds", "2"]).await;
    let page = entrance.get("/openapi.json", &Caller::anonymous()).await.body.to_string();
    // Some fifty megabytes: more than the system keeps for a connection.
    let times = (50 << 20) / page.len();
    let mut raw = Raw::to(entrance.test.app.address.unwrap()).await;
    raw.send(&"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n".repeat(times)).await;
    sleep(Duration::from_secs(8)).await;
    let answers = raw.rest().await.0.matches("HTTP/1.1 200").count();
    assert!((1..times / 2).contains(&answers), "{answers} of {times}");
}

#[tokio::test]
async fn connection_over_the_limit_gets_a_503() {
    let entrance = Entrance::with(&["--max-connections", "3"]).await;
    let address = entrance.test.app.address.unwrap();
    const ASK: &str = "GET /livez HTTP/1.1\r\nHost: x\r\n\r\n";
    let mut open = Vec::new();
    for _ in 0..3 {
        let mut raw = Raw::to(address).await;
        raw.send(ASK).await;
        assert!(raw.read().await.starts_with("HTTP/1.1 200"));
        open.push(raw);
    }
    let ask = async || {
        let mut raw = Raw::to(address).await;
        raw.send(ASK).await;
        raw.rest().await
    };
    let (answer, took) = ask().await;
    assert!(took < Duration::from_secs(2), "{took:?}");
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 503") && head.to_lowercase().contains("connection: close"), "{head}");
    assert!(head.contains("application/problem+json") && head.to_lowercase().contains("retry-after: 1"));
    let problem: Value = serde_json::from_str(body).unwrap();
    assert_eq!(problem["code"], "unavailable");
    let detail = problem["detail"].as_str().unwrap();
    assert!(detail.starts_with("3 connections") && detail.contains("BOXOFFICE_MAX_CONNECTIONS"), "{detail}");
    let (nothing, took) = Raw::to(address).await.rest().await;
    assert!(nothing.is_empty() && took < Duration::from_secs(5), "who says nothing is closed too: {took:?}");
    drop(open.pop());
    until(5, "there to be room for one", || async {
        timeout(TEST_TIMEOUT, opens(address, ASK)).await.unwrap()
    })
    .await;
}

/// Whether a connection is served and stays open.
async fn opens(address: SocketAddr, ask: &str) -> bool {
    let mut raw = Raw::to(address).await;
    raw.send(ask).await;
    raw.close().await.starts_with("HTTP/1.1 200")
}

/// A connection from another address of this machine.
async fn from(local: [u8; 4], address: SocketAddr) -> Raw {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((local, 0).into()).unwrap();
    Raw(socket.connect(address).await.unwrap())
}

#[tokio::test]
async fn idle_connections_outlive_the_time_for_a_head() {
    let entrance = Entrance::with(&["--client-seconds", "1", "--keep-alive-seconds", "6"]).await;
    let address = entrance.test.app.address.unwrap();
    const ASK: &str = "GET /livez HTTP/1.1\r\nHost: x\r\n\r\n";
    let mut raw = Raw::to(address).await;
    for _ in 0..2 {
        raw.send(ASK).await;
        assert!(raw.read().await.starts_with("HTTP/1.1 200"));
        sleep(Duration::from_millis(2_500)).await;
    }
    // From the first byte of the next head its own time counts.
    raw.send("GET /livez").await;
    let (nothing, took) = raw.rest().await;
    assert!(nothing.is_empty() && took < Duration::from_secs(3), "{nothing} {took:?}");
    let mut idle = Raw::to(address).await;
    idle.send(ASK).await;
    assert!((5_500..12_000).contains(&idle.rest().await.1.as_millis()));
}

#[tokio::test]
async fn silent_connection_ends_after_ten_seconds() {
    let entrance = Entrance::start().await;
    let (nothing, took) = Raw::to(entrance.test.app.address.unwrap()).await.rest().await;
    assert!(nothing.is_empty() && (9_500..16_000).contains(&took.as_millis()), "{took:?}");
}

#[tokio::test]
async fn silent_connections_do_not_lock_others_out() {
    let entrance = Entrance::with(&["--max-connections", "60"]).await;
    let address = entrance.test.app.address.unwrap();
    const ASK: &str = "GET /livez HTTP/1.1\r\nHost: x\r\n\r\n";
    let mut kept = Raw::to(address).await;
    kept.send(ASK).await;
    assert!(kept.read().await.starts_with("HTTP/1.1 200"));
    let mut silent = Vec::new();
    for number in 0..150 {
        let mut raw = Raw::to(address).await;
        if number % 2 == 0 {
            raw.send("GET /livez HTTP/1.1\r\nHost:").await;
        }
        silent.push(raw);
    }
    sleep(Duration::from_millis(500)).await;
    for _ in 0..20 {
        let begun = Instant::now();
        let mut raw = Raw::to(address).await;
        raw.send(ASK).await;
        assert!(raw.read().await.starts_with("HTTP/1.1 200"));
        assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
        silent.push(raw);
    }
    kept.send(ASK).await;
    assert!(kept.read().await.starts_with("HTTP/1.1 200"), "a connection that had a request stays");
    assert!(silent.remove(0).rest().await.1 < Duration::from_secs(5), "the oldest silent one is closed");
}

#[tokio::test]
async fn idle_connections_make_room_for_other_addresses() {
    let entrance = Entrance::with(&["--max-connections", "20"]).await;
    let address = entrance.test.app.address.unwrap();
    const ASK: &str = "GET /livez HTTP/1.1\r\nHost: x\r\n\r\n";
    let mut idle = Vec::new();
    for _ in 0..20 {
        let mut raw = from([127, 0, 0, 2], address).await;
        raw.send(ASK).await;
        assert!(raw.read().await.starts_with("HTTP/1.1 200"));
        idle.push(raw);
    }
    for _ in 0..5 {
        let mut raw = from([127, 0, 0, 3], address).await;
        raw.send(ASK).await;
        assert!(raw.read().await.starts_with("HTTP/1.1 200"));
        idle.push(raw);
    }
    assert!(
        idle.remove(0).rest().await.1 < Duration::from_secs(5),
        "the one that was idle longest is closed"
    );
}

#[tokio::test]
async fn address_has_its_own_connection_limit() {
    let flags = ["--max-connections-per-address", "3", "--trusted-proxies", "127.0.0.9"];
    let entrance = Entrance::with(&flags).await;
    let (user, address) = (entrance.user(0).await, entrance.test.app.address.unwrap());
    const ASK: &str = "GET /livez HTTP/1.1\r\nHost: x\r\n\r\n";
    let half = |by: &str| head_of_an_order(&user, 500).replace("Host: x", &format!("Host: x{by}"));
    let forwarded = |by: &str| format!("\r\nX-Forwarded-For: {by}");
    let mut open = Vec::new();
    for _ in 0..3 {
        let mut raw = from([127, 0, 0, 2], address).await;
        raw.send(&half(&forwarded("198.51.100.5"))).await;
        open.push(raw);
        let mut proxied = from([127, 0, 0, 9], address).await;
        proxied.send(&half(&forwarded("198.51.100.1"))).await;
        open.push(proxied);
    }
    sleep(Duration::from_millis(500)).await;
    let ask = async |local: [u8; 4], by: &str| {
        let mut raw = from(local, address).await;
        raw.send(&ASK.replace("Host: x", &format!("Host: x{by}"))).await;
        raw.read().await
    };
    let refused = ask([127, 0, 0, 2], "").await;
    assert!(
        refused.starts_with("HTTP/1.1 429") && refused.contains("MAX_CONNECTIONS_PER_ADDRESS"),
        "{refused}"
    );
    assert!(refused.contains("3 connections of this address"), "{refused}");
    assert!(ask([127, 0, 0, 3], "").await.starts_with("HTTP/1.1 200"), "another address");
    let refused = ask([127, 0, 0, 9], &forwarded("198.51.100.1")).await;
    assert!(
        refused.starts_with("HTTP/1.1 429") && refused.contains("3 requests of this address"),
        "{refused}"
    );
    assert!(ask([127, 0, 0, 9], &forwarded("198.51.100.2")).await.starts_with("HTTP/1.1 200"));
    drop(open);
    until(10, "there to be room again", || async {
        ask([127, 0, 0, 2], "").await.starts_with("HTTP/1.1 200")
            && ask([127, 0, 0, 9], &forwarded("198.51.100.1")).await.starts_with("HTTP/1.1 200")
    })
    .await;
}

#[tokio::test]
async fn sixth_stream_ends_the_oldest() {
    let entrance = Entrance::with(&["--queue-streams", "7"]).await;
    let (greedy, other) = (entrance.admitted(0).await, entrance.admitted(0).await);
    const EVENTS: &str = "/v1/queue-tokens/current/events";
    let open = async |caller: &Caller| {
        let answer = entrance.request(Method::GET, EVENTS, caller).send().await.unwrap();
        assert_eq!(answer.status(), 200);
        answer
    };
    let mut streams = Vec::new();
    for _ in 0..12 {
        streams.push(open(&greedy).await);
    }
    let _of_other = open(&other).await;
    for mut ended in streams.drain(..7) {
        while timeout(TEST_TIMEOUT, ended.chunk()).await.expect("it ends").unwrap().is_some() {}
    }
    for mut going_on in streams {
        going_on.chunk().await.unwrap().expect("the place at once");
        assert!(timeout(Duration::from_millis(100), going_on.chunk()).await.is_err(), "it stays open");
    }
}

#[tokio::test]
async fn a_head_that_is_too_large_is_refused() {
    let entrance = Entrance::start().await;
    let address = entrance.test.app.address.unwrap();
    let ask = async |fields: String| {
        let mut raw = Raw::to(address).await;
        raw.send(&format!("GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{fields}\r\n")).await;
        raw.rest().await.0
    };
    let long = |length: usize| format!("X-Long: {}\r\n", "x".repeat(length));
    assert!(ask(long(24 << 10)).await.starts_with("HTTP/1.1 200"));
    assert!(!ask(long(64 << 10)).await.starts_with("HTTP/1.1 200"));
    // As much as may come, and no end of it: with nothing left unread the answer is not lost with the connection.
    let mut raw = Raw::to(address).await;
    raw.send(&format!("{:x<1$}", "GET /livez HTTP/1.1\r\nHost: x\r\nX-Long: ", 32 << 10)).await;
    assert!(raw.rest().await.0.starts_with("HTTP/1.1 431"));
    let many = |count: usize| (0..count).map(|number| format!("X-{number}: x\r\n")).collect::<String>();
    assert!(ask(many(90)).await.starts_with("HTTP/1.1 200"));
    assert!(ask(many(110)).await.starts_with("HTTP/1.1 431"));
}

#[tokio::test]
async fn stop_waits_for_running_answers_not_idle_connections() {
    let entrance = Entrance::start().await;
    let address = entrance.test.app.address.unwrap();
    let mut idle = Raw::to(address).await;
    idle.send("GET /livez HTTP/1.1\r\nHost: x\r\n\r\n").await;
    let user = entrance.user(0).await;
    let mut half = Raw::to(address).await;
    half.send(&head_of_an_order(&user, 2)).await;
    sleep(Duration::from_millis(200)).await;
    let begun = Instant::now();
    let stopping = tokio::spawn(entrance.test.app.stop());
    sleep(Duration::from_millis(300)).await;
    assert!(!stopping.is_finished(), "a request is under way");
    half.send("{}").await;
    let (answer, _) = half.rest().await;
    assert!(answer.starts_with("HTTP/1.1 422"), "{answer}");
    stopping.await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    assert!(idle.rest().await.0.starts_with("HTTP/1.1 200"));
}
