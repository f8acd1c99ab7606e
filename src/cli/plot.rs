//! `bench plot`: draws saved results.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde_json::json;

use super::{Context, Ending};
use crate::bench::plot::{self, Named};

#[derive(clap::Args, Debug)]
pub(super) struct Arguments {
    /// Results that `--save` has kept, of sagas, booking or rate; each is called like its file
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// Where the figure goes
    #[arg(long, value_name = "FILE")]
    svg: PathBuf,
}

pub(super) fn run(context: &Context, arguments: &Arguments) -> anyhow::Result<Ending> {
    let results: Vec<Named> = arguments.files.iter().map(|file| read(file)).collect::<anyhow::Result<_>>()?;
    let drawn = plot::svg(&results)?;
    let file = arguments.svg.display().to_string();
    fs::write(&arguments.svg, drawn).with_context(|| format!("cannot write {file}"))?;
    let told = json!({ "svg": file, "results": results.len() });
    context.output.answer(&told, |_| format!("{} results are drawn in {file}.", results.len()))?;
    Ok(Ending::Good)
}

fn read(file: &Path) -> anyhow::Result<Named> {
    let shown = file.display();
    let text = fs::read_to_string(file).with_context(|| format!("cannot read {shown}"))?;
    let result = serde_json::from_str(&text).with_context(|| format!("{shown} is not JSON"))?;
    let name = file.file_stem().map_or_else(|| shown.to_string(), |stem| stem.to_string_lossy().into_owned());
    Ok(Named { name, result })
}
