//! Files beside the program agree with it: NATS configuration, containers, the pinned server.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use boxoffice::bus::{Bus, subjects, topology};
use dev_servers::{Given, postgres, programs};
use futures::TryStreamExt;
use serde_json::Value;

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
async fn nats_page_lists_what_the_service_makes() {
    let test = TestApp::start().await;
    let page = file("nats/README.md");
    let listed = ["Streams", "Consumers"].map(|heading| rows(&page, heading));
    // Each role makes its own when it first receives; one that the page leaves out is never equal.
    test.until(20, &format!("all that nats/README.md lists, and no more: {listed:#?}"), || async {
        made(&test.app.bus).await == listed
    })
    .await;
    let described = rows(&page, "Subjects");
    let source = ["src/bus/subjects.rs", "crates/saga-protocol/src/subjects.rs"].map(file).concat();
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
fn nats_configurations_are_valid_and_cluster_syncs() {
    let server = programs::nats_server().expect("`make deps` has been run");
    let users = ["API", "SCHEDULER", "ORCHESTRATOR", "WORKER", "OPERATOR", "READER"];
    for name in ["single", "server", "cluster-1", "cluster-2", "cluster-3"] {
        let checked = Command::new(&server)
            .args(["-t", "-c", &format!("nats/{name}.conf")])
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .envs(users.map(|user| (format!("NATS_{user}_PASSWORD"), "a1")))
            .envs([("NATS_ROUTE_PASSWORD", "b2"), ("NATS_ROUTES", "[\"nats://nats-1:6222\"]")])
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

fn compose() -> Value {
    serde_saphyr::from_str(&file("docker-compose.yml")).expect("docker-compose.yml is YAML")
}

fn words(list: &Value) -> Vec<&str> {
    list.as_array().into_iter().flatten().filter_map(Value::as_str).collect()
}

#[test]
fn containers_have_the_private_servers_settings() {
    let compose = compose();
    let services = compose["services"].as_object().unwrap();
    let command = words(&services["postgres"]["command"]);
    let given: Vec<&str> = command.windows(2).filter(|pair| pair[0] == "-c").map(|pair| pair[1]).collect();
    let wanted = postgres::SETTINGS.map(|(name, value)| format!("{name}={value}"));
    assert_eq!(given, wanted);
    assert_eq!(services["postgres"]["environment"]["POSTGRES_INITDB_ARGS"], postgres::INITDB.join(" "));
    for role in ["api", "orchestrator", "worker", "scheduler"] {
        assert_eq!(words(&services[role]["command"]), ["serve", "--role", role]);
    }
    // Every variable that the service is given is one that it knows.
    let config = file("src/config.rs") + &file("src/telemetry/mod.rs");
    for (name, service) in services.iter().filter(|(_, service)| service["image"] == "boxoffice") {
        let variables = service["environment"].as_object().unwrap();
        assert!(variables.contains_key("BOXOFFICE_QUEUE_SECRET"), "{name} has what all have");
        for variable in variables.keys() {
            assert!(config.contains(&format!("\"{variable}\"")), "{name}: {variable}");
        }
    }
}

#[tokio::test]
async fn database_container_makes_an_unprivileged_role() {
    let mounted = compose()["services"]["postgres"]["volumes"].clone();
    assert_eq!(words(&mounted)[1], "./postgres/role.sql:/docker-entrypoint-initdb.d/role.sql:ro");
    let given = Given { database_url: None, nats_url: Some("nats://none".into()) };
    let server = dev_servers::start(&fresh_dir("container"), given).await.unwrap();
    let (superuser, _) = server.superuser_url.rsplit_once('/').unwrap();
    let psql = |url: &str, password: &str, more: &[&str]| {
        let program = programs::postgres(None).unwrap().folder.join("psql");
        let mut psql = Command::new(program);
        psql.args(["-X", "-q", "-t", "-A", "-v", "ON_ERROR_STOP=1", "-d", url]).args(more);
        psql.env("BOXOFFICE_DATABASE_PASSWORD", password).current_dir(env!("CARGO_MANIFEST_DIR"));
        let output = psql.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    // The private server has made both already: the script shall find neither.
    let renamed = "alter database boxoffice rename to other; alter role boxoffice rename to other";
    for sql in renamed.split("; ") {
        psql(&format!("{superuser}/postgres"), "", &["-c", sql]);
    }
    psql(&format!("{superuser}/postgres"), "it's secret", &["-f", "postgres/role.sql"]);
    let (_, host) = superuser.split_once('@').unwrap();
    let own = format!("postgres://boxoffice:it%27s%20secret@{host}/boxoffice");
    let sql = "create table t (n int); select rolsuper from pg_roles where rolname = current_user";
    assert_eq!(psql(&own, "", &["-c", sql]), "f");
    server.discard().await.unwrap();
}

#[test]
fn each_container_has_its_nats_user() {
    let compose = compose();
    let services = compose["services"].as_object().unwrap();
    for user in ["api", "orchestrator", "worker", "scheduler", "operator"] {
        let given = &services[user]["environment"];
        let password = format!("${{NATS_{}_PASSWORD:?", user.to_uppercase());
        let url = given["NATS_URL"].as_str().unwrap();
        assert!(url.starts_with(&format!("nats://{user}:{password}")), "{url}");
        assert_eq!(given["BOXOFFICE_NATS_INBOX"], format!("_INBOX_{user}"));
    }
    let nats = &services["nats"];
    assert_eq!(words(&nats["command"])[0], "--config=/etc/nats/server.conf");
    assert_eq!(words(&nats["volumes"])[0], "./nats:/etc/nats:ro");
    // The server reads every password that its files name, and would not start without.
    let accounts = file("nats/accounts.conf");
    let lines = accounts.lines().filter(|line| !line.trim().starts_with('#'));
    let named = lines.filter_map(|line| line.split_once("password: $")?.1.split([' ', '}']).next());
    let named: BTreeSet<&str> = named.collect();
    assert_eq!(named.len(), 6);
    for name in named {
        assert!(nats["environment"][name].is_string(), "{name}");
    }
}

#[test]
fn secrets_are_in_no_command_or_file() {
    let compose = compose();
    for (name, service) in compose["services"].as_object().unwrap() {
        for part in ["command", "entrypoint", "healthcheck"] {
            let text = service[part].to_string().to_lowercase();
            for word in ["password", "secret", "--pass", "${"] {
                assert!(!text.contains(word), "{name} shows {word} in its {part}: {text}");
            }
        }
    }
    for name in [".gitignore", ".dockerignore"] {
        assert!(file(name).lines().any(|line| line.trim_start_matches("**/") == ".env"), "{name}");
    }
}

#[test]
fn program_finds_the_unpacked_server() {
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
