//! A workflow as a picture: the steps downwards on the left, their undos upwards beside them, and on the right where
//! an operator must look.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::graph::{COMPENSATED, COMPLETED, Edge, OUTSIDE, STUCK, all_done, edges, undo_state};
use crate::saga::Definition;

/// Sizes in pixels.
const BOX: (i32, i32) = (150, 36);
const ROW: i32 = 96;
const BETWEEN: i32 = 270;
const MARGIN: i32 = 30;
const LINE: i32 = 15;
/// How far the frame of a group stands from its members.
const FRAME: i32 = 12;
/// How wide a letter of a label is, about.
const LETTER: i32 = 6;

const STYLE: &str = "\
text{font:12px sans-serif;fill:#222;text-anchor:middle}\
.label{font-size:11px;fill:#555;paint-order:stroke;stroke:#fff;stroke-width:4px}\
rect{fill:#eef3fa;stroke:#4a6fa5;rx:8}.undo{fill:#fdf1e3;stroke:#b5762a}\
.good{fill:#e6f4ea;stroke:#3a7d4d}.stuck{fill:#fbe6e6;stroke:#b03a3a}\
path{fill:none;stroke:#777}.back{stroke-dasharray:5 3}#tip path{fill:#777;stroke:none}";

#[derive(Clone, Copy, Debug, PartialEq)]
struct Place {
    x: i32,
    y: i32,
    column: usize,
}

/// Where each state stands, and how large the picture is.
struct Layout {
    places: BTreeMap<String, Place>,
    left: i32,
    width: i32,
    height: i32,
}

/// Draws a definition as SVG.
pub(super) fn svg(definition: &Definition) -> String {
    let ways = together(without_forks(definition, edges(definition)));
    let layout = lay_out(definition, &ways);
    let (width, height) = (layout.width, layout.height);
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" \
         height=\"{height}\" role=\"img\">\n<title>{} {}</title>\n<style>{STYLE}</style>\n\
         <defs><marker id=\"tip\" viewBox=\"0 0 8 8\" refX=\"8\" refY=\"4\" markerWidth=\"8\" markerHeight=\"8\" \
         orient=\"auto-start-reverse\"><path d=\"M0 0L8 4L0 8z\"/></marker></defs>\n\
         <path d=\"M0 0H{width}V{height}H0z\" style=\"fill:#fff;stroke:none\"/>\n",
        escape(&definition.name),
        definition.version,
    );
    let mut labels = String::new();
    draw_groups(definition, &layout, &mut out);
    for (edge, both) in &ways {
        draw_way(&layout, edge, *both, &mut out, &mut labels);
    }
    out += &labels;
    for (name, place) in &layout.places {
        draw_state(name, *place, &mut out);
    }
    out + "</svg>\n"
}

/// The members of a group stand in a frame, so the ways from its fork and to its join are left out. What leads to the fork leads to
/// the first member; what leads on leads on from the last one.
fn without_forks(definition: &Definition, mut all: Vec<Edge>) -> Vec<Edge> {
    for group in definition.groups() {
        let join = all_done(group);
        all.retain(|edge| edge.from != group && edge.to != join);
        let mut members = definition.steps.iter().filter(|step| step.group.as_deref() == Some(group));
        let (first, last) = (members.next(), members.next_back());
        for edge in &mut all {
            if let Some(first) = first.filter(|_| edge.to == group) {
                edge.to.clone_from(&first.name);
            }
            if let Some(last) = last.filter(|_| edge.from == join) {
                edge.from.clone_from(&last.name);
            }
        }
    }
    all
}

/// A frame around the members of each group, with its name.
fn draw_groups(definition: &Definition, layout: &Layout, out: &mut String) {
    for group in definition.groups() {
        let members = definition.steps.iter().filter(|step| step.group.as_deref() == Some(group));
        let places: Vec<&Place> = members.filter_map(|step| layout.places.get(&step.name)).collect();
        let (Some(first), Some(last)) = (places.first(), places.last()) else { continue };
        let (width, padding) = (BOX.0 + 2 * FRAME, BOX.1 / 2 + FRAME);
        put(
            out,
            format_args!(
                "<rect style=\"fill:#f7f7f7;stroke:#999;stroke-dasharray:4 4\" x=\"{}\" y=\"{}\" width=\"{width}\" height=\"{}\"/>\
                 <text class=\"label\" x=\"{}\" y=\"{}\">{}, in parallel</text>",
                first.x - width / 2,
                first.y - padding,
                last.y - first.y + 2 * padding,
                first.x,
                i32::midpoint(first.y, first.y + ROW) + 4,
                escape(group),
            ),
        );
    }
}

/// Ways between the same two states are one, with a line of label for each; true if it leads back too.
fn together(all: Vec<Edge>) -> Vec<(Edge, bool)> {
    let mut ways: Vec<(Edge, bool)> = Vec::new();
    for edge in all {
        let same = ways.iter_mut().find(|(known, _)| known.from == edge.from && known.to == edge.to);
        if let Some((known, _)) = same {
            known.label = format!("{}\n{}", known.label, edge.label);
        } else if let Some((known, both)) =
            ways.iter_mut().find(|(known, _)| known.from == edge.to && known.to == edge.from)
            && edge.from == STUCK
        {
            (known.label, *both) = (format!("{}\n{}", known.label, edge.label), true);
        } else {
            ways.push((edge, false));
        }
    }
    ways
}

fn lay_out(definition: &Definition, ways: &[(Edge, bool)]) -> Layout {
    let steps = definition.steps.len() as i32;
    let index = |name: &str| definition.index(name);
    let upward = |edge: &&Edge| index(&edge.to) < index(&edge.from) && index(&edge.to).is_some();
    let widest = ways.iter().map(|(edge, _)| edge).filter(upward).map(|edge| longest(&edge.label)).max();
    let left = MARGIN + widest.map_or(0, |letters| letters * LETTER + 40);
    let x = |column: usize| left + BOX.0 / 2 + column as i32 * (BOX.0 + BETWEEN);
    let y = |row: i32| MARGIN + BOX.1 / 2 + row * ROW;
    let mut places = BTreeMap::new();
    let mut put = |name: &str, column: usize, row: i32| {
        places.insert(name.to_owned(), Place { x: x(column), y: y(row), column });
    };
    put(OUTSIDE, 0, 0);
    for (row, step) in (1..).zip(&definition.steps) {
        put(&step.name, 0, row);
        if step.undo.is_some() && definition.can_compensate(0) {
            put(&undo_state(step), 1, row);
        }
    }
    put(COMPLETED, 0, steps + 1);
    let mut last = 0;
    if definition.can_compensate(0) {
        put(COMPENSATED, 1, 0);
        last = 1;
    }
    if ways.iter().any(|(edge, _)| edge.to == STUCK) {
        last += 1;
        put(STUCK, last, (steps + 1) / 2);
    }
    Layout { places, left, width: x(last) + BOX.0 / 2 + MARGIN, height: y(steps + 1) + BOX.1 / 2 + MARGIN }
}

fn draw_state(name: &str, place: Place, out: &mut String) {
    let Place { x, y, column } = place;
    if name == OUTSIDE {
        return put(out, format_args!("<circle cx=\"{x}\" cy=\"{y}\" r=\"8\"/>"));
    }
    let class = match name {
        COMPLETED | COMPENSATED => "good",
        STUCK => "stuck",
        _ if column == 1 => "undo",
        _ => "step",
    };
    let (width, height) = BOX;
    put(
        out,
        format_args!(
            "<rect class=\"{class}\" x=\"{}\" y=\"{}\" width=\"{width}\" height=\"{height}\"/>\
             <text x=\"{x}\" y=\"{}\">{}</text>",
            x - width / 2,
            y - height / 2,
            y + 4,
            escape(name)
        ),
    );
}

fn draw_way(layout: &Layout, edge: &Edge, both: bool, out: &mut String, labels: &mut String) {
    let (Some(from), Some(to)) = (layout.places.get(&edge.from), layout.places.get(&edge.to)) else { return };
    // The colour of a status shows that it is final, so it needs no arrow out.
    if edge.to == OUTSIDE {
        return;
    }
    let (half, high) = (BOX.0 / 2, BOX.1 / 2);
    let down = if to.y > from.y { 1 } else { -1 };
    let (path, at) = if from.column == to.column && (from.column > 0 || down > 0) {
        let start = if edge.from == OUTSIDE { from.y + 8 } else { from.y + down * high };
        let end = to.y - down * high;
        (format!("M{} {start}V{end}", from.x), (from.x, (start + end) / 2))
    } else if from.column == to.column {
        let side = from.x - half;
        let bend = layout.left - 30;
        let path = format!("M{side} {}C{bend} {} {bend} {} {side} {}", from.y, from.y, to.y, to.y);
        (path, ((MARGIN + layout.left - 30) / 2, (from.y + to.y) / 2))
    } else {
        let (start, end) = (from.x + half, to.x - half);
        // What leads to the next row keeps clear of what leads straight on.
        let (leave, arrive) = if from.y == to.y { (from.y, to.y) } else { (from.y - 10, to.y + 10) };
        let at = ((start * 3 + end * 2) / 5, (leave * 3 + arrive * 2) / 5);
        (format!("M{start} {leave}L{end} {arrive}"), at)
    };
    let class = if edge.to == STUCK || both { " class=\"back\"" } else { "" };
    let tail = if both { " marker-start=\"url(#tip)\"" } else { "" };
    put(out, format_args!("<path{class} d=\"{path}\" marker-end=\"url(#tip)\"{tail}/>"));
    let lines: Vec<&str> = edge.label.lines().collect();
    for (row, line) in (0..).zip(&lines) {
        let y = at.1 + 4 + row * LINE - (lines.len() as i32 - 1) * LINE / 2;
        put(labels, format_args!("<text class=\"label\" x=\"{}\" y=\"{y}\">{}</text>", at.0, escape(line)));
    }
}

fn put(out: &mut String, line: std::fmt::Arguments<'_>) {
    // Writing to a string cannot fail.
    let _written = writeln!(out, "{line}");
}

fn longest(label: &str) -> i32 {
    label.lines().map(|line| line.chars().count() as i32).max().unwrap_or(0)
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::super::graph::tests::WITH_A_GROUP;
    use super::*;

    #[test]
    fn drawing_has_every_state_and_edge() {
        let with_a_group = Definition::parse("t", WITH_A_GROUP).unwrap();
        let built_in = crate::workflows::built_in().unwrap().all();
        for definition in built_in.iter().map(|built_in| &**built_in).chain([&with_a_group]) {
            let ways = together(without_forks(definition, edges(definition)));
            let layout = lay_out(definition, &ways);
            let mut spots: Vec<(i32, i32)> = layout.places.values().map(|place| (place.x, place.y)).collect();
            spots.sort_unstable();
            spots.dedup();
            assert_eq!(spots.len(), layout.places.len());
            let drawn = svg(definition);
            let to_ends = ways.iter().filter(|(edge, _)| edge.to == OUTSIDE).count();
            assert_eq!(drawn.matches("marker-end").count(), ways.len() - to_ends);
            assert!(spots.iter().all(|(x, y)| *x < layout.width && *y < layout.height));
        }
    }

    #[test]
    fn a_name_cannot_break_the_picture() {
        let text = "name='t'\nversion=1\nforward_only=true\n[[steps]]\nname='s'\ncommand='x.y'";
        let mut definition = Definition::parse("t", text).unwrap();
        // Names of deployed definitions are plain; the drawing does not rely on that.
        (definition.name, definition.steps[0].name) = ("a<b&\"".to_owned(), "<s>".to_owned());
        let drawn = svg(&definition);
        assert!(drawn.contains("a&lt;b&amp;&quot;") && drawn.contains("&lt;s&gt;") && !drawn.contains("<s>"));
    }
}
