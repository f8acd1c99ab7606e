//! `export`: all reservations, entries of the ledger, tickets or redemptions into a file.

use std::fs::OpenOptions;
use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;

use anyhow::Context as _;
use serde_json::json;
use tokio::time::{Instant, timeout_at};

use super::{Context, Ending, Misuse, actor};
use crate::operations::exports::{self, Export, ExportFormat, ExportOrder, ExportRun, Position};

#[derive(clap::Args, Debug)]
pub(super) struct Arguments {
    /// What is exported
    export: Export,
    /// How rows are written
    #[arg(long, value_enum, default_value_t = ExportFormat::Ndjson)]
    format: ExportFormat,
    /// File to write, which must not exist yet; with --cursor the rows are added to its end [default: standard output]
    #[arg(long)]
    output: Option<PathBuf>,
    /// The cursor of the last whole row of an export that was cut off: goes on after it
    #[arg(long)]
    cursor: Option<String>,
}

/// What was written.
#[derive(Default)]
struct Written {
    rows: usize,
    /// The cursor of the last row.
    cursor: Option<String>,
}

pub(super) async fn run(context: &Context, arguments: &Arguments) -> anyhow::Result<Ending> {
    let after = arguments.cursor.as_deref().map(|cursor| {
        let position = Position::of_cursor(cursor, arguments.export);
        position.ok_or_else(|| {
            Misuse(format!("--cursor is not a cursor of the export {}", arguments.export.name()))
        })
    });
    let order = ExportOrder { export: arguments.export, format: arguments.format, after: after.transpose()? };
    let pool = context.database().await?;
    let time = context.settings.exports.time();
    let deadline = Instant::now() + time;
    let mut out = open(arguments)?;
    exports::record(&pool, &order, &actor()).await?;
    let mut run = ExportRun::begin(&pool, order, time).await?;
    let mut written = Written::default();
    let ended = timeout_at(deadline, write_all(&mut run, &mut out, &mut written)).await;
    let cursor = written.cursor.clone().or_else(|| arguments.cursor.clone());
    match ended {
        Ok(Err(error)) if is_broken_pipe(&error) => return Ok(Ending::Good),
        Ok(ended) => ended.with_context(|| advice(cursor.as_deref()))?,
        Err(_elapsed) => {
            let problem = format!("the export took longer than {} s", time.as_secs());
            return Err(anyhow::anyhow!(problem).context(advice(cursor.as_deref())));
        }
    }
    // Without a file the rows themselves are the answer.
    if let Some(file) = &arguments.output {
        let summary = json!({ "export": arguments.export, "rows": written.rows, "cursor": cursor });
        let file = file.display();
        context.output.answer(&summary, |_| format!("{} rows were written to {file}.", written.rows))?;
    }
    Ok(Ending::Good)
}

async fn write_all(run: &mut ExportRun, out: &mut impl Write, written: &mut Written) -> anyhow::Result<()> {
    while let Some(chunk) = run.next().await? {
        out.write_all(&chunk.text)?;
        written.rows += chunk.rows;
        written.cursor = chunk.cursor.or(written.cursor.take());
    }
    Ok(out.flush()?)
}

/// The reader of standard output has gone, for instance `head`.
fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

fn advice(cursor: Option<&str>) -> String {
    match cursor {
        Some(cursor) => format!("the export is incomplete; go on with --cursor {cursor}"),
        None => "the export is incomplete; start it again".to_owned(),
    }
}

fn open(arguments: &Arguments) -> anyhow::Result<Box<dyn Write + Send>> {
    let Some(path) = &arguments.output else {
        // Rows are written as they are, and a terminal would take commands from them.
        if io::stdout().is_terminal() {
            return Err(Misuse("--output is needed where standard output is a terminal".to_owned()).into());
        }
        return Ok(Box::new(io::stdout()));
    };
    let mut options = OpenOptions::new();
    match arguments.cursor {
        Some(_) => options.append(true),
        None => options.write(true).create_new(true),
    };
    let file = options.open(path).with_context(|| format!("{} cannot be opened", path.display()))?;
    Ok(Box::new(file))
}
