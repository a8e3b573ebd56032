//! Intervals one below the other.

use super::axis::Axis;
use super::{WIDTH, color, header, open, text};
use crate::series::plottable;

/// A figure of intervals around a line at 0.
#[derive(Clone, Debug, Default)]
pub struct Forest {
    /// Unique in a page; letters, digits and dashes.
    pub name: String,
    /// Title.
    pub title: String,
    /// Unit of the numbers.
    pub unit: String,
    /// The intervals, top first.
    pub rows: Vec<Interval>,
}

/// A number and its interval.
#[derive(Clone, Debug)]
pub struct Interval {
    /// Label.
    pub label: String,
    /// The number.
    pub value: f64,
    /// Its interval.
    pub interval: [f64; 2],
    /// Colour; `None` is grey.
    pub hue: Option<usize>,
}

impl Forest {
    /// The `<svg>` element for a [`Page`](crate::html::Page), which has its style sheet.
    #[must_use]
    pub fn draw(&self) -> String {
        const ROW: f64 = 24.0;
        const LEFT: f64 = 330.0;
        let rows: Vec<&Interval> = self
            .rows
            .iter()
            .filter(|row| plottable((row.value, row.value)))
            .collect();
        let height = 110.0 + ROW * rows.len() as f64;
        let bottom = height - 44.0;
        let mut out = open(&self.name, &self.title, height);
        header(&self.title, &self.unit, &mut out);
        let ends = rows
            .iter()
            .flat_map(|row| row.interval)
            .filter(|end| end.is_finite());
        let values = rows.iter().map(|row| row.value).chain(ends).chain([0.0]);
        let x = Axis::new(values.collect(), false, LEFT, WIDTH - 40.0);
        for (value, label) in x.ticks() {
            let at = x.place(value);
            let class = if value == 0.0 { "axis" } else { "grid" };
            out += &format!(
                r#"<line class="{class}" x1="{at:.1}" x2="{at:.1}" y1="60" y2="{bottom}"/>"#
            );
            out += &text(at, bottom + 18.0, "middle", "dim", &label);
        }
        out.push('\n');
        for (number, row) in rows.iter().enumerate() {
            let y = 76.0 + ROW * number as f64;
            let [low, high] = row
                .interval
                .map(|end| x.place(end).clamp(LEFT, WIDTH - 28.0));
            let (at, color) = (x.place(row.value), color(row.hue));
            out += &text(LEFT - 14.0, y + 4.0, "end", "", &row.label);
            out += &format!(
                "<line class=\"strong stroke-{color}\" x1=\"{low:.1}\" x2=\"{high:.1}\" y1=\"{y}\" y2=\"{y}\"/>\
                 <circle class=\"full {color}\" cx=\"{at:.1}\" cy=\"{y}\" r=\"4.5\"/>\n"
            );
        }
        out + "</svg>\n"
    }
}
