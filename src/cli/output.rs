//! The output of commands: tables and sentences for people, JSON for programs, and nothing else on standard output.

use std::io::Write;

use anyhow::Context;
use comfy_table::presets::UTF8_BORDERS_ONLY;
use comfy_table::{ContentArrangement, Row, Table};
use serde::Serialize;
use terminal_size::{Width, terminal_size_of};

use crate::text::{escape_block, escape_json, escape_line};

/// Where answers go, and in which form.
#[derive(Clone, Copy, Debug)]
pub struct Output {
    json: bool,
}

impl Output {
    pub fn new(json: bool) -> Self {
        Self { json }
    }

    /// Whether a program reads.
    pub fn is_json(self) -> bool {
        self.json
    }

    /// Answers with one value: as JSON on one line, or as the text made of it.
    pub fn answer<T: Serialize>(self, value: &T, text: impl FnOnce(&T) -> String) -> anyhow::Result<()> {
        if self.json {
            return print(&escape_json(&serde_json::to_string(value)?));
        }
        print(&escape_block(text(value).trim_end()))
    }

    /// Answers with a list: as one line of JSON for each, or as a text about all.
    pub fn lines<T: Serialize>(self, values: &[T], text: impl FnOnce() -> String) -> anyhow::Result<()> {
        if !self.json {
            return print(&escape_block(text().trim_end()));
        }
        values.iter().try_for_each(|value| print(&escape_json(&serde_json::to_string(value)?)))
    }

    /// A sentence for people, while the work goes on. Programs do not see it.
    pub fn sentence(self, sentence: &str) {
        if !self.json {
            whisper(sentence);
        }
    }
}

/// A table with a line under its header; on a terminal it fits its width. Every cell is one line of text that a terminal
/// takes no commands from.
pub fn table<R: Into<Row>>(header: impl Into<Row>, rows: impl IntoIterator<Item = R>) -> String {
    let mut table = Table::new();
    table
        .load_style(UTF8_BORDERS_ONLY)
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_header(header);
    if let Some((Width(columns), _)) = terminal_size_of(std::io::stdout()) {
        table.set_width(columns);
    }
    for row in rows {
        let row: Row = row.into();
        table.add_row(row.cell_iter().map(|cell| escape_line(&cell.content()).into_owned()));
    }
    table.to_string()
}

/// Writes to standard error what went wrong, as one sentence: the program, the failure, and its causes.
pub fn complain(program: &str, error: &anyhow::Error) {
    let mut said = error.to_string();
    for cause in error.chain().skip(1).map(ToString::to_string) {
        // Many errors repeat their source in their own words.
        if !said.contains(&cause) {
            said.push_str(": ");
            said.push_str(&cause);
        }
    }
    whisper(&format!("{program}: {said}"));
}

/// Ignores errors: the reader of standard error may have gone.
fn whisper(text: &str) {
    let _written = writeln!(std::io::stderr(), "{}", escape_block(text));
}

fn print(text: &str) -> anyhow::Result<()> {
    match writeln!(std::io::stdout(), "{text}") {
        // The reader closed the pipe, for instance `head`.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        written => written.context("the answer could not be written"),
    }
}
