//! `saga tail`: live transitions.

use std::time::Duration;

use boxoffice::operations::tail::{TailFilter, open};
use boxoffice::store::api_keys::Role;
use futures::StreamExt;
use reqwest::Method;
use serde_json::Value;
use tokio::time::timeout;

use crate::common::http::{Caller, Entrance};
use crate::common::program::Program;

const PATIENCE: Duration = Duration::from_secs(10);

#[tokio::test]
async fn tail_shows_recorded_transitions_in_order() {
    let entrance = Entrance::start().await;
    let bus = &entrance.test.env.bus;
    let mut told = open(&bus.client, &TailFilter::default()).await.unwrap();
    bus.client.flush().await.unwrap();
    let buyer = entrance.admitted(1_000).await;
    let held = entrance.reserve(&buyer, &[1]).await.good(201).clone();
    entrance.pay(&buyer, &held).await.good(201);
    let viewer = entrance.key(Role::Viewer).await;
    let path = format!("/v1/ops/sagas/{}", held["id"].as_str().unwrap());
    let saga = entrance.get(&path, &viewer).await.good(200).clone();
    for row in saga["history"].as_array().unwrap() {
        let next = timeout(PATIENCE, told.next()).await.expect("a transition comes in time").unwrap();
        let next = serde_json::to_value(next).unwrap();
        for field in ["seq", "at", "event", "step", "direction", "visit", "attempt"] {
            assert_eq!(next[field], row[field], "{field}: {next}");
        }
        assert_eq!((&next["saga_id"], &next["workflow"]), (&saga["id"], &saga["workflow"]));
    }
}

#[tokio::test]
async fn the_api_streams_what_the_filter_lets_through() {
    let entrance = Entrance::start().await;
    let viewer = entrance.key(Role::Viewer).await;
    entrance.get("/v1/ops/sagas/tail", &Caller::anonymous()).await.is(401, "unauthenticated");
    assert_eq!(entrance.get("/v1/ops/sagas/tail?saga_id=x", &viewer).await.pointers(), ["/saga_id"]);

    let path = "/v1/ops/sagas/tail?workflow=cancellation";
    let answer = entrance.request(Method::GET, path, &viewer).send().await.unwrap();
    assert_eq!(answer.headers()["content-type"], "text/event-stream");
    let buyer = entrance.admitted(1_000).await;
    let held = entrance.reserve(&buyer, &[1]).await.good(201).clone();
    entrance.pay(&buyer, &held).await.good(201);
    entrance.cancel(&buyer, &held).await.good(200);
    let first = first_event(answer).await;
    assert_eq!((&first["workflow"], &first["event"]), (&"cancellation".into(), &"started".into()));
}

/// The first event of a stream.
async fn first_event(mut answer: reqwest::Response) -> Value {
    let mut text = String::new();
    while !text.contains("\n\n") {
        let chunk = timeout(PATIENCE, answer.chunk()).await.expect("in time").unwrap().expect("it goes on");
        text.push_str(std::str::from_utf8(&chunk).unwrap());
    }
    serde_json::from_str(text.lines().next().unwrap().strip_prefix("data: ").unwrap()).unwrap()
}

#[tokio::test]
async fn watchers_are_bounded_and_slots_are_freed() {
    let entrance = Entrance::start().await;
    let viewer = entrance.key(Role::Viewer).await;
    let mut open = Vec::new();
    for _ in 0..32 {
        let answer = entrance.request(Method::GET, "/v1/ops/sagas/tail", &viewer).send().await.unwrap();
        assert_eq!(answer.status(), 200);
        open.push(answer);
    }
    let full = entrance.get("/v1/ops/sagas/tail", &viewer).await;
    assert!(full.is(429, "rate_limited")["detail"].as_str().unwrap().contains("32"));
    drop(open);
    entrance
        .test
        .until(10, "a place to be free", || async {
            let answer = entrance.request(Method::GET, "/v1/ops/sagas/tail", &viewer).send().await.unwrap();
            answer.status() == 200
        })
        .await;
}

#[tokio::test]
async fn the_terminal_shows_one_line_for_each_transition() {
    let entrance = Entrance::start().await;
    let program = Program::of(&entrance.test.env);
    let buyer = entrance.admitted(0).await;
    // The program may begin to listen a little late, so seats are held until it has seen one.
    let holding = async {
        for seat in 1..=40 {
            entrance.reserve(&buyer, &[seat]).await;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let watching = program.run("saga tail --workflow booking --count 1 --json");
    let ran = tokio::select! {
        ran = watching => ran,
        () = holding => panic!("nothing was seen"),
    };
    assert_eq!(ran.code, 0, "{}", ran.err);
    let told: Value = serde_json::from_str(ran.out.trim_end()).unwrap();
    assert_eq!(told["workflow"], "booking");
}
