//! Where values stand on an axis, and which of them are written beside it.

use std::ops::Range;

use plotters::coord::ranged1d::{DefaultFormatting, KeyPointHint, Ranged};

/// Marks of an axis at most.
const MOST_MARKS: usize = 9;
/// Marks of an even axis, about.
const EVEN_MARKS: f64 = 5.0;

/// How values are spread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scale {
    /// Evenly, from zero.
    Even,
    /// By their order of magnitude.
    Magnitude,
}

/// An axis: from where to where, and the marks beside it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Axis {
    pub scale: Scale,
    pub range: Range<f64>,
    pub marks: Vec<f64>,
}

impl Scale {
    fn place(self, value: f64) -> f64 {
        if self == Self::Even { value } else { value.log10() }
    }
}

impl Axis {
    /// From zero to a round figure that is not below any of the values.
    pub(super) fn even(values: impl Iterator<Item = f64>) -> Self {
        let most = values.fold(f64::MIN_POSITIVE, f64::max);
        let step = round_figures().find(|step| most / step <= EVEN_MARKS).unwrap_or(most);
        let count = (most / step).ceil();
        let marks: Vec<f64> = (0..=count as u32).map(|nth| f64::from(nth) * step).collect();
        Self { scale: Scale::Even, range: 0.0..step * count, marks }
    }

    /// Round figures by their order of magnitude, from below the least value to above the greatest.
    pub(super) fn magnitude(values: impl Iterator<Item = f64> + Clone) -> Self {
        let (least, most) = (values.clone().fold(f64::MAX, f64::min), values.fold(0.0, f64::max));
        let from = round_figures().take_while(|figure| *figure <= least).last().unwrap_or(least);
        let to = round_figures().find(|figure| *figure >= most && *figure > from).unwrap_or(most);
        let all: Vec<f64> = round_figures().filter(|figure| (from..=to).contains(figure)).collect();
        let is_power = |figure: &f64| figure.log10().fract().abs() < 1e-9;
        let marks = if all.len() > MOST_MARKS { all.into_iter().filter(is_power).collect() } else { all };
        Self { scale: Scale::Magnitude, range: from..to, marks }
    }

    /// The values themselves by their order of magnitude, with some room at both ends; only round figures if there are too many.
    pub(super) fn of_values(values: impl Iterator<Item = f64> + Clone) -> Self {
        let mut marks: Vec<f64> = values.clone().collect();
        marks.sort_by(f64::total_cmp);
        marks.dedup();
        let (Some(first), Some(last)) = (marks.first(), marks.last()) else {
            return Self::magnitude(values);
        };
        if marks.len() > MOST_MARKS {
            return Self::magnitude(values);
        }
        let range = first / 1.25..last * 1.25;
        Self { scale: Scale::Magnitude, range, marks }
    }

    /// A value, as it is written beside the axis.
    pub(super) fn written(value: f64) -> String {
        if value < 9.5 {
            let text = format!("{value:.3}");
            return text.trim_end_matches('0').trim_end_matches('.').to_owned();
        }
        let digits = format!("{value:.0}");
        let mut text = String::new();
        for (at, digit) in digits.chars().enumerate() {
            if at > 0 && (digits.len() - at).is_multiple_of(3) {
                text.push(',');
            }
            text.push(digit);
        }
        text
    }
}

impl Ranged for Axis {
    type FormatOption = DefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, (from, to): (i32, i32)) -> i32 {
        let [first, last, at] =
            [self.range.start, self.range.end, *value].map(|value| self.scale.place(value));
        from + (f64::from(to - from) * (at - first) / (last - first)).round() as i32
    }

    fn key_points<Hint: KeyPointHint>(&self, hint: Hint) -> Vec<f64> {
        if hint.weight().allow_light_points() { Vec::new() } else { self.marks.clone() }
    }

    fn range(&self) -> Range<f64> {
        self.range.clone()
    }
}

/// 1, 2, 5, 10, 20, 50 and so on, from a thousandth to a thousand million.
fn round_figures() -> impl Iterator<Item = f64> {
    (-3..=9).flat_map(|power| [1.0, 2.0, 5.0].map(|digit| digit * 10_f64.powi(power)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(axis: &Axis) -> Vec<String> {
        axis.marks.iter().map(|mark| Axis::written(*mark)).collect()
    }

    #[test]
    fn an_even_axis_begins_at_zero_and_ends_at_a_round_figure() {
        let axis = Axis::even([300.0, 7_900.0].into_iter());
        assert_eq!(written(&axis), ["0", "2,000", "4,000", "6,000", "8,000"]);
        assert_eq!(axis.range, 0.0..8_000.0);
    }

    #[test]
    fn magnitudes_are_marked_by_round_figures_around_all_values() {
        assert_eq!(
            written(&Axis::magnitude([0.3, 17.0].into_iter())),
            ["0.2", "0.5", "1", "2", "5", "10", "20"]
        );
        assert_eq!(
            written(&Axis::magnitude([1.5, 90_000.0].into_iter())),
            ["1", "10", "100", "1,000", "10,000", "100,000"]
        );
        assert_eq!(written(&Axis::magnitude([5.0].into_iter())), ["5", "10"]);
    }

    #[test]
    fn few_values_mark_themselves() {
        let axis = Axis::of_values([256.0, 1.0, 32.0, 32.0].into_iter());
        assert_eq!(written(&axis), ["1", "32", "256"]);
        assert_eq!(axis.map(&16.0, (0, 100)), 50, "by orders of magnitude");
    }
}
