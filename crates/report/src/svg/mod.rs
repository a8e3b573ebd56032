//! One kind of chart, drawn as SVG: values over training tokens or updates, with the growth stages as coloured bands.
//!
//! Colours are CSS variables with a light and a dark set, so that the same markup works in a page and as a file.

mod frame;
mod label;

use crate::escape::escape;
use crate::series::{Point, Range, thin};
use frame::Frame;
pub(crate) use label::tick_label;

/// The chart's style sheet; its variables are the palette of the whole report.
pub(crate) const STYLE: &str = include_str!("chart.css");

/// Stage colours before they repeat.
const HUES: usize = 6;

/// Points drawn per series.
const MAX_POINTS: usize = 1500;

/// The class that gives stage number `stage` its colour.
pub(crate) fn hue_class(stage: usize) -> String {
    format!("hue{}", stage % HUES)
}

/// A chart before it is drawn.
pub(crate) struct Chart {
    /// Unique in a page.
    pub name: String,
    pub title: String,
    pub unit: &'static str,
    pub size: Size,
    pub x_range: Range,
    pub x_label: &'static str,
    /// What is counted along x.
    pub x_unit: &'static str,
    pub bands: Vec<Band>,
    pub layers: Vec<Layer>,
    pub series: Vec<Series>,
    pub from_zero: bool,
    pub clip: bool,
}

/// How large a chart is drawn; text keeps its size.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Size {
    /// Full width, for the main chart.
    Large,
    /// Full width, lower.
    Wide,
    /// Half width, without stage labels.
    Half,
}

/// The part of the x axis that a stage takes.
pub(crate) struct Band {
    pub start: f64,
    pub end: f64,
    pub stage: usize,
    /// The widest that fits is shown.
    pub labels: Vec<String>,
}

/// A filled block from `start` to the right end of the chart.
pub(crate) struct Layer {
    pub start: f64,
    pub low: f64,
    pub high: f64,
    pub stage: usize,
}

pub(crate) struct Series {
    pub name: &'static str,
    pub style: Style,
    /// All plottable.
    pub points: Vec<Point>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Style {
    /// The main line.
    Line,
    /// The unsmoothed values, drawn behind the line.
    Raw,
    /// Unsmoothed values as the only line of the run.
    Thin,
    /// Unsmoothed values of another run, for comparison.
    Control,
    /// Measured points, joined.
    Dots,
    /// Ticks on the x axis; the y values are not used.
    Marks,
}

impl Chart {
    /// The whole `<svg>` element, without the style sheet.
    pub(crate) fn draw(&self) -> String {
        let frame = Frame::new(self, self.range());
        let mut out = frame.open(self);
        self.draw_bands(&frame, &mut out);
        if self.has_data() {
            frame.draw_axes(&mut out);
        }
        self.draw_layers(&frame, &mut out);
        for series in &self.series {
            draw_series(series, &frame, &self.name, &mut out);
        }
        frame.draw_header(self, self.cut_off_note(&frame), &mut out);
        out.push_str("</svg>\n");
        out
    }

    pub(crate) fn has_data(&self) -> bool {
        self.series.iter().any(|series| !series.points.is_empty())
    }

    fn values(&self) -> impl Iterator<Item = f64> {
        // An average stays within the range of its values.
        let has_raw = self.series.iter().any(|series| series.style == Style::Raw);
        let points = self
            .series
            .iter()
            .filter(move |series| match series.style {
                Style::Line => !has_raw,
                Style::Raw | Style::Thin | Style::Control | Style::Dots => true,
                Style::Marks => false,
            })
            .flat_map(|series| series.points.iter().map(|point| point.1));
        points.chain(self.layers.iter().map(|layer| layer.high))
    }

    fn range(&self) -> Range {
        Range::of(self.values().collect(), self.from_zero, self.clip)
    }

    fn cut_off_note(&self, frame: &Frame) -> Option<String> {
        let high = frame.range.high;
        let max = self.values().fold(f64::NEG_INFINITY, f64::max);
        (max > high).then(|| format!("values above the axis reach {}", short(max)))
    }

    fn draw_bands(&self, frame: &Frame, out: &mut String) {
        for band in &self.bands {
            let (left, right) = (frame.x(band.start), frame.x(band.end));
            let (width, hue) = (right - left, hue_class(band.stage));
            if self.layers.is_empty() && width > 0.0 {
                let (top, height) = (frame.top, frame.bottom - frame.top);
                out.push_str(&format!(
                    r#"<rect class="tint {hue}" x="{left:.1}" y="{top}" width="{width:.1}" height="{height}"/>"#
                ));
            }
            if self.size != Size::Half && width > 0.0 {
                frame.draw_strip(band, left, width, &hue, out);
            }
        }
        for band in self.bands.iter().skip(1) {
            let (x, bottom, top) = (frame.x(band.start), frame.bottom, frame.strip_top());
            out.push_str(&format!(
                r#"<line class="growth" x1="{x:.1}" x2="{x:.1}" y1="{top}" y2="{bottom}"/>"#
            ));
        }
        out.push('\n');
    }

    fn draw_layers(&self, frame: &Frame, out: &mut String) {
        for layer in &self.layers {
            let (left, top) = (frame.x(layer.start), frame.y(layer.high));
            let (width, height) = (frame.right - left, frame.y(layer.low) - top);
            if width > 0.0 && height > 0.0 {
                let hue = hue_class(layer.stage);
                out.push_str(&format!(
                    r#"<rect class="layer {hue}" x="{left:.1}" y="{top:.1}" width="{width:.1}" height="{height:.1}"/>"#
                ));
            }
        }
    }
}

fn draw_series(series: &Series, frame: &Frame, chart: &str, out: &mut String) {
    match series.style {
        Style::Line => draw_line(series, "train", frame, chart, out),
        Style::Raw => draw_line(series, "raw", frame, chart, out),
        Style::Thin => draw_line(series, "thin", frame, chart, out),
        Style::Control => draw_line(series, "control", frame, chart, out),
        Style::Dots => {
            draw_line(series, "link", frame, chart, out);
            for &point in &thin(&series.points, MAX_POINTS) {
                draw_dot(point, frame, out);
            }
        }
        Style::Marks => {
            let (from, to) = (frame.bottom, frame.bottom - 9.0);
            for &(tokens, _) in &thin(&series.points, MAX_POINTS) {
                let x = frame.x(tokens);
                out.push_str(&format!(
                    r#"<line class="mark" x1="{x:.1}" x2="{x:.1}" y1="{from}" y2="{to}"/>"#
                ));
            }
        }
    }
    out.push('\n');
}

fn draw_line(series: &Series, class: &str, frame: &Frame, chart: &str, out: &mut String) {
    if let ([point], Style::Line) = (series.points.as_slice(), series.style) {
        let (x, y) = (frame.x(point.0), frame.y(point.1));
        out.push_str(&format!(
            r#"<circle class="one" cx="{x:.1}" cy="{y:.1}" r="3"/>"#
        ));
        return;
    }
    let mut path = String::new();
    for (index, &(tokens, value)) in thin(&series.points, MAX_POINTS).iter().enumerate() {
        let command = if index == 0 { 'M' } else { 'L' };
        let (x, y) = (frame.x(tokens), frame.y(value));
        path.push_str(&format!("{command}{x:.1} {y:.1}"));
    }
    if !path.is_empty() {
        out.push_str(&format!(
            r#"<path class="{class}" clip-path="url(#clip-{chart})" d="{path}"/>"#
        ));
    }
}

/// A dot, or a triangle at the upper edge for a point that lies above it.
fn draw_dot((tokens, value): Point, frame: &Frame, out: &mut String) {
    let x = frame.x(tokens);
    let title = format!(
        "{} after {} {}",
        short(value),
        tick_label(tokens, tokens),
        frame.x_unit
    );
    let title = escape(&title);
    let shape = if value > frame.range.high {
        let y = frame.top;
        format!(
            r#"<polygon class="dot" points="{:.1},{:.1} {:.1},{:.1} {x:.1},{:.1}">"#,
            x - 5.0,
            y + 10.0,
            x + 5.0,
            y + 10.0,
            y + 1.0
        ) + &format!("<title>{title}</title></polygon>")
    } else {
        let y = frame.y(value);
        format!(
            r#"<circle class="dot" cx="{x:.1}" cy="{y:.1}" r="4"><title>{title}</title></circle>"#
        )
    };
    out.push_str(&shape);
}

/// A value in about four significant digits.
pub(crate) fn short(value: f64) -> String {
    match value.abs() {
        _ if !value.is_finite() => "not finite".to_owned(),
        0.0 => "0".to_owned(),
        size if !(1e-3..1e6).contains(&size) => format!("{value:.2e}"),
        size if size >= 1000.0 => format!("{value:.0}"),
        size if size >= 100.0 => format!("{value:.1}"),
        size if size >= 10.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}
