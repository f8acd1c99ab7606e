//! What stands in files beside the program is what the program does: NATS, containers, the pinned server.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use boxoffice::bus::{Bus, subjects, topology};
use boxoffice::local::{postgres, programs};
use futures::TryStreamExt;

use crate::common::app::TestApp;
use crate::common::fresh_dir;

fn file(path: &str) -> String {
    let whole = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(&whole).unwrap_or_else(|error| panic!("{}: {error}", whole.display()))
}

/// The first and second cells of the table under a heading of a page, sorted.
fn rows(page: &str, heading: &str) -> BTreeSet<(String, String)> {
    let section =
        page.split("\n## ").find(|section| section.starts_with(heading)).expect("the heading is there");
    let lines = section.lines().filter(|line| line.starts_with('|') && !line.starts_with("|---"));
    let cell = |line: &str, at: usize| line.split('|').nth(at).unwrap().trim().replace('`', "");
    lines.skip(1).map(|line| (cell(line, 1), cell(line, 2))).collect()
}

/// The streams with their subjects, and the durable consumers with their streams, as the page names them.
async fn made(bus: &Bus) -> [BTreeSet<(String, String)>; 2] {
    let (mut streams, mut consumers) = (BTreeSet::new(), BTreeSet::new());
    let mut names = bus.jetstream.stream_names();
    while let Some(name) = names.try_next().await.unwrap() {
        let stream = bus.jetstream.get_stream(&name).await.unwrap();
        let shown = match name.strip_prefix("KV_") {
            Some(bucket) => format!("{bucket} (KV bucket, stream {name})"),
            None => name.clone(),
        };
        streams.insert((shown, stream.cached_info().config.subjects.join(", ")));
        let all: Vec<_> = stream.consumers().try_collect().await.unwrap();
        let durable = all.into_iter().filter_map(|info| info.config.durable_name);
        consumers.extend(durable.map(|consumer| (consumer, name.clone())));
    }
    [streams, consumers]
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_about_nats_lists_what_a_running_service_has_made() {
    let test = TestApp::start().await;
    let page = file("nats/README.md");
    let listed = ["Streams", "Consumers"].map(|heading| rows(&page, heading));
    // Each role makes its own when it first receives; one that the page leaves out is never equal.
    test.until(20, &format!("all that nats/README.md lists, and no more: {listed:#?}"), || async {
        made(&test.app.bus).await == listed
    })
    .await;
    let described = rows(&page, "Subjects");
    let source = file("src/bus/subjects.rs");
    for line in source.lines().filter(|line| line.starts_with("pub const")) {
        let name = line.split('"').nth(1).unwrap();
        let is_subject = name.contains('.') && name != subjects::QUEUE_LEASE;
        let shown = |listed: &str| listed.split(' ').next() == Some(&name.replace('>', "<saga>"));
        assert!(
            !is_subject
                || page.contains(&format!("`{name}`"))
                || described.iter().any(|(listed, _)| shown(listed)),
            "{name}"
        );
    }
}

#[test]
fn nats_accepts_its_configurations_and_a_cluster_syncs_always() {
    let server = programs::nats_server().expect("`make deps` has been run");
    for name in ["single", "cluster-1", "cluster-2", "cluster-3"] {
        let checked = Command::new(&server)
            .args(["-t", "-c", &format!("nats/{name}.conf")])
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .envs([
                ("NATS_PASSWORD", "a1"),
                ("NATS_ROUTE_PASSWORD", "b2"),
                ("NATS_ROUTES", "[\"nats://nats-1:6222\"]"),
            ])
            .output()
            .unwrap();
        assert!(checked.status.success(), "{name}: {}", String::from_utf8_lossy(&checked.stderr));
    }
    assert!(file("nats/cluster.conf").contains("sync_interval: always"));
    // The streams must fit.
    let most: i64 = topology::streams(1).iter().map(|stream| stream.max_bytes.max(0)).sum();
    for name in ["single", "cluster"] {
        assert!(
            file(&format!("nats/{name}.conf")).contains("max_file_store: 16GB") && most < 16 << 30,
            "{name}"
        );
    }
}

#[test]
fn the_containers_run_with_the_settings_of_the_private_servers() {
    let compose = file("docker-compose.yml");
    let lines: Vec<&str> = compose.lines().map(str::trim).collect();
    let given: Vec<&str> =
        lines.windows(2).filter(|pair| pair[0] == "- -c").map(|pair| &pair[1][2..]).collect();
    let wanted = postgres::SETTINGS.map(|(name, value)| format!("{name}={value}"));
    assert_eq!(given, wanted);
    assert!(compose.contains(&format!("POSTGRES_INITDB_ARGS: \"{}\"", postgres::INITDB.join(" "))));
    assert!(compose.contains("./nats/single.conf:/etc/nats/single.conf"));
    for role in ["api", "orchestrator", "worker", "scheduler"] {
        assert!(compose.contains(&format!("command: [\"serve\", \"--role\", \"{role}\"]")), "{role}");
    }
    // Every variable that the service is given is one that it knows.
    let config = file("src/config.rs") + &file("src/telemetry.rs");
    let variables = lines.iter().filter_map(|line| line.split_once(": ").map(|(name, _)| name));
    for variable in variables.filter(|name| name.starts_with("BOXOFFICE_") || name.ends_with("_URL")) {
        assert!(config.contains(&format!("\"{variable}\"")), "{variable}");
    }
}

#[test]
fn the_program_looks_for_the_server_that_make_deps_unpacks() {
    let script = file("scripts/deps.sh");
    assert!(script.contains(&format!("NATS_SERVER_VERSION={}\n", programs::NATS_SERVER_VERSION)));
    let place = fresh_dir("xdg");
    let output = Command::new("bash")
        .args(["-c", "source scripts/deps.sh; echo \"$nats_server\""])
        .env("XDG_DATA_HOME", &place)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    let name = format!("boxoffice/bin/nats-server-{}", programs::NATS_SERVER_VERSION);
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), place.join(name).to_str().unwrap());
}
