//! The panels on paper: thin axes, few colours, and the name of each line at its end.

use std::error::Error;

use plotters::coord::Shift;
use plotters::prelude::*;

use super::axes::Axis;
use super::lines::{Line, Panel};

/// Two panels stand side by side.
const COLUMNS: usize = 2;
const PANEL: (u32, u32) = (540, 340);
/// Room for the names of lines.
const NAMES: u32 = 150;
/// Pixels between two names.
const NAME_HEIGHT: i32 = 15;
const FONT: &str = "sans-serif";
/// Colours that are told apart by those who see fewer, too.
const COLOURS: [RGBColor; 6] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
];
const AXIS: RGBColor = RGBColor(90, 90, 90);
const MESH: RGBColor = RGBColor(228, 228, 228);

type Drawn = Result<(), Box<dyn Error>>;
type Paper<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// The whole figure.
pub(super) fn svg(panels: &[Panel]) -> Result<String, Box<dyn Error>> {
    let (columns, rows) = (panels.len().clamp(1, COLUMNS), panels.len().div_ceil(COLUMNS).max(1));
    let size = (PANEL.0 * columns as u32, PANEL.1 * rows as u32);
    let mut text = String::new();
    {
        let paper = SVGBackend::with_string(&mut text, size).into_drawing_area();
        paper.fill(&WHITE)?;
        for (part, panel) in paper.split_evenly((rows, columns)).iter().zip(panels) {
            draw(part, panel)?;
        }
        paper.present()?;
    }
    Ok(text)
}

fn draw(paper: &Paper<'_>, panel: &Panel) -> Drawn {
    let points = || panel.lines.iter().flat_map(|line| line.points.iter());
    let (across, up) = (points().map(|point| point.0), points().map(|point| point.1));
    let x = if panel.is_by_rate { Axis::even(across) } else { Axis::of_values(across) };
    let y = if panel.is_latency { Axis::magnitude(up) } else { Axis::even(up) };
    let mut chart = ChartBuilder::on(paper)
        .caption(panel.title, (FONT, 18))
        .margin(14)
        .margin_right(NAMES)
        .x_label_area_size(42)
        .y_label_area_size(64)
        .build_cartesian_2d(x, y)?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .bold_line_style(MESH)
        .light_line_style(TRANSPARENT)
        .axis_style(AXIS)
        .label_style((FONT, 15))
        .axis_desc_style((FONT, 16))
        .x_desc(panel.x)
        .y_desc(panel.y)
        .x_label_formatter(&|value| Axis::written(*value))
        .y_label_formatter(&|value| Axis::written(*value))
        .draw()?;
    let mut ends = Vec::new();
    for line in &panel.lines {
        let style = style(line);
        chart.draw_series(LineSeries::new(line.points.iter().copied(), style))?;
        chart.draw_series(line.points.iter().map(|place| Circle::new(*place, 3, style.filled())))?;
        ends.extend(line.points.last().map(|place| (chart.backend_coord(place), line)));
    }
    name(paper, ends)
}

/// The slow case is drawn stronger than the usual one.
fn style(line: &Line) -> ShapeStyle {
    let colour = COLOURS[line.colour % COLOURS.len()];
    if line.is_median { colour.mix(0.5).stroke_width(1) } else { colour.stroke_width(2) }
}

/// Writes the name of each line beside its end.
fn name(paper: &Paper<'_>, mut ends: Vec<((i32, i32), &Line)>) -> Drawn {
    ends.sort_by_key(|((_, y), _)| *y);
    let (across, down) = paper.get_pixel_range();
    let places = apart(&ends.iter().map(|((_, y), _)| *y).collect::<Vec<_>>(), NAME_HEIGHT);
    for (((x, _), line), y) in ends.iter().zip(places) {
        let colour = COLOURS[line.colour % COLOURS.len()];
        let place = (x - across.start + 8, y - down.start - 6);
        paper.draw(&Text::new(line.name.clone(), place, (FONT, 15).into_font().color(&colour)))?;
    }
    Ok(())
}

/// The places, rising, moved so that neighbours are so far apart, and together as near to where they were as that allows.
fn apart(places: &[i32], distance: i32) -> Vec<i32> {
    // Each group stands apart in itself; groups that come to overlap become one.
    let mut groups: Vec<(i32, Vec<i32>)> = Vec::new();
    for place in places {
        groups.push((*place, vec![*place]));
        while let [.., (before, upper), (start, lower)] = groups.as_slice() {
            if before + distance * upper.len() as i32 <= *start {
                break;
            }
            let all = [upper.as_slice(), lower.as_slice()].concat();
            let middle = all.iter().sum::<i32>() / all.len() as i32;
            let start = middle - distance * (all.len() as i32 - 1) / 2;
            groups.truncate(groups.len() - 2);
            groups.push((start, all));
        }
    }
    let spread = |(start, all): &(i32, Vec<i32>)| -> Vec<i32> {
        (0..all.len() as i32).map(|nth| start + nth * distance).collect()
    };
    groups.iter().flat_map(spread).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_do_not_cover_each_other_and_stay_near_their_lines() {
        assert_eq!(apart(&[10, 100], 15), [10, 100]);
        assert_eq!(apart(&[50, 50], 15), [43, 58]);
        assert_eq!(apart(&[40, 50, 52, 200], 15), [32, 47, 62, 200]);
        assert!(apart(&[], 15).is_empty());
    }

    #[test]
    fn a_figure_has_its_axes_lines_and_names() {
        let line = |name: &str, is_median| Line {
            name: name.to_owned(),
            colour: 0,
            is_median,
            points: vec![(1.0, 2.0), (32.0, 20.0), (256.0, 70.0)],
        };
        let panel = Panel {
            title: "Latency",
            x: "callers at once",
            y: "milliseconds",
            is_latency: true,
            is_by_rate: false,
            lines: vec![line("sagas p50", true), line("sagas p99", false)],
        };
        let svg = svg(&[panel]).unwrap();
        for word in [
            "<svg",
            "callers at once",
            "milliseconds",
            "256",
            "sagas p50",
            "sagas p99",
            "<polyline",
            "<circle",
        ] {
            assert!(svg.contains(word), "{word} is not in {svg}");
        }
    }
}
