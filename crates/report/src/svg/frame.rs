//! Everything of a chart except its data: layout, axes, header and legend.

use super::label::{text_width, tick_label};
use super::{Band, Chart, Series, Size, Style};
use crate::escape::escape;
use crate::series::Range;

const STRIP_HEIGHT: f64 = 22.0;
const FONT_PX: f64 = 12.0;

/// The plotting area in pixels and the values it stands for.
pub(super) struct Frame {
    width: f64,
    height: f64,
    left: f64,
    pub right: f64,
    pub top: f64,
    pub bottom: f64,
    strip_height: f64,
    x_range: Range,
    x_label: &'static str,
    pub x_unit: &'static str,
    pub range: Range,
    x_ticks: Vec<(f64, String)>,
    y_ticks: Vec<(f64, String)>,
}

impl Frame {
    pub(super) fn new(chart: &Chart, range: Range) -> Self {
        let (width, height, x_target, y_target) = match chart.size {
            Size::Large => (1000.0, 430.0, 9.0, 7.0),
            Size::Wide => (1000.0, 290.0, 9.0, 4.0),
            Size::Half => (490.0, 250.0, 5.0, 4.0),
        };
        let mut x_range = chart.x_range;
        if x_range.high <= x_range.low {
            x_range.high = x_range.low + 1.0;
        }
        let y_ticks = labelled(range, y_target);
        let label_width = y_ticks
            .iter()
            .map(|(_, label)| text_width(label, FONT_PX))
            .fold(0.0, f64::max);
        let strip_height = match chart.size {
            Size::Large | Size::Wide => STRIP_HEIGHT,
            Size::Half => 0.0,
        };
        Self {
            width,
            height,
            left: (label_width + 26.0).max(48.0),
            right: width - 28.0,
            top: 62.0 + strip_height,
            bottom: height - 44.0,
            strip_height,
            x_range,
            x_label: chart.x_label,
            x_unit: chart.x_unit,
            range,
            x_ticks: labelled(x_range, x_target),
            y_ticks,
        }
    }

    pub(super) fn x(&self, value: f64) -> f64 {
        let share = (value - self.x_range.low) / (self.x_range.high - self.x_range.low);
        self.left + share.clamp(0.0, 1.0) * (self.right - self.left)
    }

    pub(super) fn y(&self, value: f64) -> f64 {
        let share = (value - self.range.low) / (self.range.high - self.range.low);
        // A value far outside would make a coordinate that renderers reject.
        self.bottom - share.clamp(-100.0, 100.0) * (self.bottom - self.top)
    }

    pub(super) fn strip_top(&self) -> f64 {
        self.top - self.strip_height
    }

    pub(super) fn open(&self, chart: &Chart) -> String {
        let Self {
            width,
            height,
            left,
            top,
            ..
        } = self;
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" class=\"chart\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" height=\"{height}\" role=\"img\" aria-label=\"{title}\">\n\
             <clipPath id=\"clip-{name}\"><rect x=\"{left}\" y=\"{top}\" width=\"{}\" height=\"{}\"/></clipPath>\n\
             <rect class=\"bg\" width=\"{width}\" height=\"{height}\" rx=\"14\"/>\n",
            self.right - left + 1.0,
            self.bottom - top + 1.0,
            name = chart.name,
            title = escape(&chart.title),
        )
    }

    pub(super) fn draw_axes(&self, out: &mut String) {
        let Self {
            left,
            right,
            bottom,
            ..
        } = self;
        for (value, label) in &self.y_ticks {
            let y = self.y(*value);
            out.push_str(&format!(
                r#"<line class="grid" x1="{left}" x2="{right}" y1="{y:.1}" y2="{y:.1}"/><text class="dim" x="{:.1}" y="{:.1}" text-anchor="end">{label}</text>"#,
                left - 8.0,
                y + 4.0,
            ));
        }
        out.push_str(&format!(
            r#"<line class="axis" x1="{left}" x2="{right}" y1="{bottom}" y2="{bottom}"/>"#
        ));
        for (value, label) in &self.x_ticks {
            let x = self.x(*value);
            out.push_str(&format!(
                r#"<line class="axis" x1="{x:.1}" x2="{x:.1}" y1="{bottom}" y2="{}"/><text class="dim" x="{x:.1}" y="{}" text-anchor="middle">{label}</text>"#,
                bottom + 4.0,
                bottom + 18.0,
            ));
        }
        out.push_str(&format!(
            "<text class=\"dim\" x=\"{:.1}\" y=\"{}\" text-anchor=\"middle\">{}</text>\n",
            (left + right) / 2.0,
            bottom + 36.0,
            escape(self.x_label),
        ));
    }

    pub(super) fn draw_strip(
        &self,
        band: &Band,
        left: f64,
        width: f64,
        hue: &str,
        out: &mut String,
    ) {
        let (top, height) = (self.strip_top(), self.strip_height);
        out.push_str(&format!(
            r#"<rect class="strip {hue}" x="{left:.1}" y="{top}" width="{width:.1}" height="{height}"/>"#
        ));
        let fits = |label: &&String| text_width(label, FONT_PX) + 10.0 <= width;
        if let Some(label) = band.labels.iter().find(fits) {
            out.push_str(&format!(
                r#"<text x="{:.1}" y="{}" text-anchor="middle">{}</text>"#,
                left + width / 2.0,
                top + 15.5,
                escape(label),
            ));
        }
    }

    pub(super) fn draw_header(&self, chart: &Chart, note: Option<String>, out: &mut String) {
        let left = 20.0;
        out.push_str(&format!(
            r#"<text class="title" x="{left}" y="30">{}</text><text class="dim" x="{left}" y="48">{}</text>"#,
            escape(&chart.title),
            escape(chart.unit),
        ));
        if let Some(note) = note {
            out.push_str(&format!(
                r#"<text class="dim" x="{}" y="48" text-anchor="end">{}</text>"#,
                self.right,
                escape(&note),
            ));
        }
        let drawn: Vec<&Series> = chart
            .series
            .iter()
            .filter(|series| !series.points.is_empty())
            .collect();
        if drawn.len() > 1 {
            self.draw_legend(&drawn, out);
        }
        if drawn.is_empty() {
            out.push_str(&format!(
                r#"<text class="dim" x="{:.1}" y="{:.1}" text-anchor="middle">nothing recorded yet</text>"#,
                (self.left + self.right) / 2.0,
                (self.top + self.bottom) / 2.0,
            ));
        }
        out.push('\n');
    }

    /// One line, ending at the right edge of the plot, above the data.
    fn draw_legend(&self, drawn: &[&Series], out: &mut String) {
        const KEY_WIDTH: f64 = 24.0;
        const GAP: f64 = 14.0;
        let item_width = |series: &&Series| KEY_WIDTH + text_width(series.name, FONT_PX);
        let total: f64 = drawn.iter().map(item_width).sum::<f64>() + GAP * (drawn.len() - 1) as f64;
        let mut x = self.right - total;
        for series in drawn {
            let (end, middle) = (x + KEY_WIDTH - 6.0, x + (KEY_WIDTH - 6.0) / 2.0);
            out.push_str(&match series.style {
                Style::Line => format!(r#"<path class="train" d="M{x:.1} 26H{end:.1}"/>"#),
                Style::Raw => format!(
                    r#"<path class="raw key" d="M{x:.1} 26l4 -4 4 7 4 -6 {:.1} 3"/>"#,
                    KEY_WIDTH - 18.0
                ),
                Style::Thin => format!(r#"<path class="thin" d="M{x:.1} 26H{end:.1}"/>"#),
                Style::Control => format!(r#"<path class="control" d="M{x:.1} 26H{end:.1}"/>"#),
                Style::Dots => format!(
                    r#"<path class="link" d="M{x:.1} 26H{end:.1}"/><circle class="dot" cx="{middle:.1}" cy="26" r="4"/>"#
                ),
                Style::Marks => {
                    format!(r#"<path class="mark" d="M{middle:.1} 30V21"/>"#)
                }
            });
            out.push_str(&format!(
                r#"<text x="{:.1}" y="30">{}</text>"#,
                x + KEY_WIDTH,
                escape(series.name)
            ));
            x += item_width(series) + GAP;
        }
    }
}

fn labelled(range: Range, target: f64) -> Vec<(f64, String)> {
    let (ticks, step) = range.ticks(target);
    ticks
        .into_iter()
        .map(|tick| (tick, tick_label(tick, step)))
        .collect()
}
