//! What is drawn: the lines of each panel, out of results.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{Named, PlotError};

/// A part of the figure with axes of its own.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Panel {
    pub title: &'static str,
    pub x: &'static str,
    pub y: &'static str,
    /// Latencies are drawn by their order of magnitude.
    pub is_latency: bool,
    /// What is begun per second, not how many ask at once.
    pub is_by_rate: bool,
    pub lines: Vec<Line>,
}

/// One line, by rising x.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Line {
    pub name: String,
    /// Lines of one result have one colour.
    pub colour: usize,
    /// The usual case, beside the slow one.
    pub is_median: bool,
    pub points: Vec<(f64, f64)>,
}

/// The panels that these results have something for.
pub(super) fn panels(results: &[Named]) -> Result<Vec<Panel>, PlotError> {
    let mut panels = [
        panel("Throughput", "callers at once", "per second", false, false),
        panel("Latency", "callers at once", "milliseconds", true, false),
        panel("Latency under a given load", "begun per second", "milliseconds", true, true),
    ];
    let [throughput, by_callers, by_rate] = &mut panels;
    for (colour, Named { name, result }) in results.iter().enumerate() {
        let points = result["points"].as_array().map(Vec::as_slice).unwrap_or_default();
        let rates = latencies(name, colour, points, "rate");
        let callers = latencies(name, colour, points, "concurrency");
        let done = line(name.clone(), colour, points, "concurrency", "per_second");
        if rates.is_empty() && callers.is_empty() && done.is_none() {
            return Err(PlotError::NoPoints(name.clone()));
        }
        throughput.lines.extend(done);
        by_callers.lines.extend(callers);
        by_rate.lines.extend(rates);
    }
    Ok(panels.into_iter().filter(|panel| !panel.lines.is_empty()).collect())
}

fn panel(title: &'static str, x: &'static str, y: &'static str, is_latency: bool, is_by_rate: bool) -> Panel {
    Panel { title, x, y, is_latency, is_by_rate, lines: Vec::new() }
}

/// A line for each latency that the points have.
fn latencies(name: &str, colour: usize, points: &[Value], x: &str) -> Vec<Line> {
    let fields: BTreeSet<&str> = points
        .iter()
        .filter_map(Value::as_object)
        .flat_map(|point| point.keys())
        .map(String::as_str)
        .collect();
    let mut lines = Vec::new();
    for field in fields {
        let Some((part, quantile)) = quantile(field) else { continue };
        let name = if part.is_empty() { name.to_owned() } else { format!("{name}, {part}") };
        let found = line(format!("{name} {quantile}"), colour, points, x, field);
        lines.extend(found.map(|line| Line { is_median: quantile == "p50", ..line }));
    }
    lines
}

/// The part and the quantile that a field is about: `hold` and `p99` for `hold_p99_ms`.
fn quantile(field: &str) -> Option<(&str, &str)> {
    let name = field.strip_suffix("_ms")?;
    let (part, quantile) = name.rsplit_once('_').unwrap_or(("", name));
    ["p50", "p99"].contains(&quantile).then_some((part, quantile))
}

/// A line through the points that have both; none through nothing. What is not above zero has no order of magnitude.
fn line(name: String, colour: usize, points: &[Value], x: &str, y: &str) -> Option<Line> {
    let pair = |point: &Value| Some((point[x].as_f64()?, point[y].as_f64()?));
    let mut points: Vec<(f64, f64)> =
        points.iter().filter_map(pair).filter(|(x, y)| *x > 0.0 && *y > 0.0).collect();
    points.sort_by(|one, other| one.0.total_cmp(&other.0));
    (!points.is_empty()).then_some(Line { name, colour, is_median: false, points })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn named(name: &str, result: Value) -> Named {
        Named { name: name.to_owned(), result }
    }

    #[test]
    fn each_result_has_its_lines_in_the_panels_that_its_points_are_for() {
        let sagas = json!({ "points": [
            { "concurrency": 32, "per_second": 3_000, "p50_ms": 10.0, "p99_ms": 20.0 },
            { "concurrency": 1, "per_second": 300, "p50_ms": 3.0, "p99_ms": 5.0 },
        ] });
        let rate = json!({ "points": [{ "rate": 500, "per_second": 499, "hold_p99_ms": 7.0 }] });
        let panels = panels(&[named("sagas", sagas), named("rate", rate)]).unwrap();
        let names: Vec<Vec<&str>> =
            panels.iter().map(|panel| panel.lines.iter().map(|line| line.name.as_str()).collect()).collect();
        assert_eq!(names, [vec!["sagas"], vec!["sagas p50", "sagas p99"], vec!["rate, hold p99"]]);
        assert_eq!(panels[0].lines[0].points, [(1.0, 300.0), (32.0, 3_000.0)], "by rising callers");
        assert!(panels[1].lines[0].is_median && !panels[1].lines[1].is_median);
    }

    #[test]
    fn a_result_without_points_is_named() {
        let error = panels(&[named("idle", json!({ "per_second": 1 }))]).unwrap_err();
        assert!(error.to_string().starts_with("idle has no list"), "{error}");
    }
}
