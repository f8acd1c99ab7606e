//! The committed descriptions of queries (`.sqlx`), which the build believes, are what the schema makes of them.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use serde_json::Value;
use sqlx::postgres::PgStatement;
use sqlx::{AssertSqlSafe, Column, Connection, Either, Executor, PgConnection, SqlSafeStr, Statement};

use crate::common::fresh_database;

/// A query, its parameters and columns, as text that can be compared.
#[derive(Debug, PartialEq)]
struct Description {
    parameters: Vec<String>,
    columns: Vec<(String, String)>,
}

fn descriptions() -> Vec<Value> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(".sqlx");
    let files = fs::read_dir(folder).expect("`make prepare` has made .sqlx");
    let read = |path| serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
    files.map(|entry| read(entry.unwrap().path())).collect()
}

/// The sources under a folder, as one text.
fn sources(folder: &Path) -> String {
    let mut text = String::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            text += &sources(&path);
        } else if path.extension().is_some_and(|extension| extension == "rs" || extension == "sql") {
            text += &fs::read_to_string(&path).unwrap();
        }
    }
    text
}

/// The file says `Int8` and `Int8Array` where the server's types are called `INT8` and `INT8[]`.
fn type_name(name: &Value) -> String {
    let name = name.as_str().or(name["Custom"]["name"].as_str()).expect("a type has a name").to_lowercase();
    name.strip_suffix("array").map_or(name.clone(), |element| format!("{element}[]"))
}

fn committed(file: &Value) -> Description {
    let list = |value: &Value| value.as_array().expect("a list").clone();
    let describe = &file["describe"];
    let column = |column: &Value| (column["name"].as_str().unwrap().into(), type_name(&column["type_info"]));
    Description {
        parameters: list(&describe["parameters"]["Left"]).iter().map(type_name).collect(),
        columns: list(&describe["columns"]).iter().map(column).collect(),
    }
}

fn found(statement: &PgStatement) -> Description {
    let name = |shown: String| shown.to_lowercase().replace('"', "");
    let parameters = match statement.parameters() {
        Some(Either::Left(types)) => types.iter().map(|each| name(each.to_string())).collect(),
        other => panic!("Postgres reports the types of parameters: {other:?}"),
    };
    let columns = statement.columns().iter();
    let columns = columns.map(|column| (column.name().to_owned(), name(column.type_info().to_string())));
    Description { parameters, columns: columns.collect() }
}

#[tokio::test]
async fn committed_descriptions_match_the_schema() {
    let mut database = PgConnection::connect(&fresh_database().await).await.unwrap();
    for file in descriptions() {
        let query = file["query"].as_str().unwrap();
        let statement = database.prepare(AssertSqlSafe(query).into_sql_str()).await;
        let statement = statement.unwrap_or_else(|error| panic!("run `make prepare`: {error}\n{query}"));
        assert_eq!(committed(&file), found(&statement), "run `make prepare`:\n{query}");
    }
}

/// The other direction, a query without its description, does not compile in `make test`.
#[test]
fn no_description_remains_of_a_removed_query() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let sources = ["src", "sql", "crates", "tools"].map(|folder| sources(&root.join(folder))).concat();
    let gone: BTreeSet<String> = descriptions()
        .iter()
        .map(|file| file["query"].as_str().unwrap().to_owned())
        .filter(|query| !sources.contains(query.as_str()) && !sources.contains(&query.replace('"', "\\\"")))
        .collect();
    assert!(gone.is_empty(), "run `make prepare`; no longer in the sources: {gone:#?}");
}
