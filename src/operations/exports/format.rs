//! Rows as CSV (RFC 4180) or as a JSON object per line.

use std::borrow::Cow;

use serde::Serialize;
use serde_json::Value;

use super::{ExportError, ExportFormat};

/// The last column of each row.
const CURSOR: &str = "cursor";
/// Spreadsheets take a cell that begins with one of these for a formula or a command.
const FORMULA_STARTS: [char; 6] = ['=', '+', '-', '@', '\t', '\r'];

/// A row of an export, with its columns in order.
pub(super) trait Columns: Serialize {
    const COLUMNS: &'static [&'static str];
}

#[derive(Serialize)]
struct WithCursor<'a, T> {
    #[serde(flatten)]
    row: &'a T,
    cursor: &'a str,
}

/// The line of column names.
pub(super) fn head<T: Columns>() -> Result<Vec<u8>, ExportError> {
    let mut writer = csv_writer();
    writer.write_record(T::COLUMNS.iter().chain([&CURSOR])).map_err(unwritten)?;
    writer.into_inner().map_err(unwritten)
}

/// The rows as text; `cursor` makes the cursor of a row.
pub(super) fn body<T: Columns>(
    rows: &[T],
    format: ExportFormat,
    cursor: impl Fn(&T) -> String,
) -> Result<Vec<u8>, ExportError> {
    match format {
        ExportFormat::Ndjson => {
            let mut text = Vec::new();
            for row in rows {
                let line = WithCursor { row, cursor: &cursor(row) };
                serde_json::to_writer(&mut text, &line).map_err(unwritten)?;
                text.push(b'\n');
            }
            Ok(text)
        }
        ExportFormat::Csv => {
            let mut writer = csv_writer();
            for row in rows {
                let fields = serde_json::to_value(row).map_err(unwritten)?;
                for column in T::COLUMNS {
                    writer.write_field(cell(&fields[column]).as_bytes()).map_err(unwritten)?;
                }
                // A cursor begins with a letter of its export.
                writer.write_field(cursor(row)).map_err(unwritten)?;
                writer.write_record(None::<&[u8]>).map_err(unwritten)?;
            }
            writer.into_inner().map_err(unwritten)
        }
    }
}

fn csv_writer() -> csv::Writer<Vec<u8>> {
    csv::WriterBuilder::new().terminator(csv::Terminator::CRLF).from_writer(Vec::new())
}

fn unwritten(error: impl std::fmt::Display) -> ExportError {
    ExportError::Format(error.to_string())
}

/// A value as a cell. Lists and objects are JSON, which no spreadsheet takes for a formula; numbers are not escaped.
fn cell(value: &Value) -> Cow<'_, str> {
    match value {
        Value::Null => Cow::Borrowed(""),
        Value::String(text) => escape_formula(text),
        other => Cow::Owned(other.to_string()),
    }
}

/// A text that a spreadsheet shows as it is: an apostrophe stands before what would be a formula.
fn escape_formula(text: &str) -> Cow<'_, str> {
    if text.starts_with(FORMULA_STARTS) { Cow::Owned(format!("'{text}")) } else { Cow::Borrowed(text) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Serialize)]
    struct Sample {
        number: i64,
        text: Option<String>,
        list: Vec<i32>,
    }

    impl Columns for Sample {
        const COLUMNS: &'static [&'static str] = &["number", "text", "list"];
    }

    fn sample(text: &str) -> Sample {
        Sample { number: -5, text: Some(text.to_owned()), list: vec![1, 2] }
    }

    fn written(rows: &[Sample], format: ExportFormat) -> String {
        String::from_utf8(body(rows, format, |_| "c1".to_owned()).unwrap()).unwrap()
    }

    #[test]
    fn formulas_are_escaped_in_csv_only() {
        for start in FORMULA_STARTS {
            let text = format!("{start}HYPERLINK(\"http://evil\")");
            let csv = written(&[sample(&text)], ExportFormat::Csv);
            let mut read = csv::ReaderBuilder::new().has_headers(false).from_reader(csv.as_bytes());
            let record = read.records().next().unwrap().unwrap();
            assert_eq!(&record[1], format!("'{text}"));
            let line: Value = serde_json::from_str(&written(&[sample(&text)], ExportFormat::Ndjson)).unwrap();
            assert_eq!(line["text"], text);
        }
        assert_eq!(written(&[sample("a=b")], ExportFormat::Csv), "-5,a=b,\"[1,2]\",c1\r\n");
    }

    #[test]
    fn cells_with_quotes_and_commas_are_quoted() {
        let csv = written(&[sample("say \"a, b\"\nc")], ExportFormat::Csv);
        assert_eq!(csv, "-5,\"say \"\"a, b\"\"\nc\",\"[1,2]\",c1\r\n");
        assert_eq!(head::<Sample>().unwrap(), b"number,text,list,cursor\r\n");
        let empty = Sample { text: None, ..sample("") };
        assert_eq!(written(&[empty], ExportFormat::Csv), "-5,,\"[1,2]\",c1\r\n");
    }

    #[test]
    fn json_lines_end_with_the_cursor() {
        let lines = written(&[sample("a\nb"), sample("")], ExportFormat::Ndjson);
        let first = lines.lines().next().unwrap();
        assert_eq!(first, r#"{"number":-5,"text":"a\nb","list":[1,2],"cursor":"c1"}"#);
        assert_eq!(lines.lines().count(), 2);
    }
}
