//! Figures of several runs: lines, points with intervals and arrows over one axis, and intervals one below the other.
//!
//! They share the look and the colours of the plots of a single run.

mod axis;
mod forest;

pub use forest::{Forest, Interval};

use crate::escape::escape;
use crate::series::{Range, plottable};
use crate::svg::{hue_class, short};
use axis::Axis;

const WIDTH: f64 = 1000.0;

/// A figure before it is drawn.
#[derive(Clone, Debug, Default)]
pub struct Figure {
    /// Unique in a page; letters, digits and dashes.
    pub name: String,
    /// Title.
    pub title: String,
    /// Label of the y axis.
    pub y_label: String,
    /// Label of the x axis.
    pub x_label: String,
    /// Whether the x axis is logarithmic; all x values are then positive.
    pub log_x: bool,
    /// Height in pixels at a width of 1000.
    pub height: f64,
    /// The marks, drawn in this order.
    pub marks: Vec<Mark>,
}

/// A mark in a figure. Colours are indices of the palette; `None` is grey.
#[derive(Clone, Debug)]
pub enum Mark {
    /// Points joined by a line.
    Line {
        /// Label in the legend; none if empty.
        label: String,
        /// Colour.
        hue: Option<usize>,
        /// Whether it is dashed and thin.
        dashed: bool,
        /// Values.
        points: Vec<(f64, f64)>,
    },
    /// Single points.
    Dots {
        /// Label in the legend; none if empty.
        label: String,
        /// Colour.
        hue: Option<usize>,
        /// Whether only the outline is drawn.
        hollow: bool,
        /// Values, each with its interval and its tooltip.
        points: Vec<Dot>,
    },
    /// The area above a descending staircase through points.
    Staircase {
        /// Label in the legend.
        label: String,
        /// Its corners, by ascending x.
        points: Vec<(f64, f64)>,
    },
    /// A vertical line with a text.
    Event {
        /// Position on the x axis.
        x: f64,
        /// Text.
        text: String,
    },
    /// An arrow with a text above it.
    Arrow {
        /// Its start.
        from: (f64, f64),
        /// Its tip.
        to: (f64, f64),
        /// Its text.
        text: String,
    },
}

/// A point of [`Mark::Dots`].
#[derive(Clone, Debug)]
pub struct Dot {
    /// Value.
    pub at: (f64, f64),
    /// Interval of the y value.
    pub interval: Option<[f64; 2]>,
    /// Tooltip.
    pub title: String,
}

impl Figure {
    /// The `<svg>` element for a [`Page`](crate::html::Page), which has its style sheet.
    #[must_use]
    pub fn draw(&self) -> String {
        let values = || {
            self.marks
                .iter()
                .flat_map(Mark::values)
                .filter(|p| plottable(*p))
        };
        let x = Axis::new(
            values().map(|p| p.0).collect(),
            self.log_x,
            70.0,
            WIDTH - 28.0,
        );
        let bottom = self.height - 48.0;
        let y = Axis::new(values().map(|p| p.1).collect(), false, bottom, 84.0);
        let mut out = open(&self.name, &self.title, self.height);
        out += &format!(
            "<clipPath id=\"clip-{}\"><rect x=\"70\" y=\"80\" width=\"{}\" height=\"{}\"/></clipPath>\n",
            self.name,
            WIDTH - 96.0,
            bottom - 78.0
        );
        header(&self.title, &self.y_label, &mut out);
        if values().next().is_none() {
            out += &text(
                WIDTH / 2.0,
                self.height / 2.0,
                "middle",
                "dim",
                "nothing to show yet",
            );
            return out + "</svg>\n";
        }
        for (value, label) in y.ticks() {
            let at = y.place(value);
            out += &format!(
                r#"<line class="grid" x1="70" x2="{}" y1="{at:.1}" y2="{at:.1}"/>"#,
                WIDTH - 28.0
            );
            out += &text(62.0, at + 4.0, "end", "dim", &label);
        }
        out += &format!(
            r#"<line class="axis" x1="70" x2="{}" y1="{bottom}" y2="{bottom}"/>"#,
            WIDTH - 28.0
        );
        for (value, label) in x.ticks() {
            let at = x.place(value);
            out += &format!(
                r#"<line class="axis" x1="{at:.1}" x2="{at:.1}" y1="{bottom}" y2="{}"/>"#,
                bottom + 4.0
            );
            out += &text(at, bottom + 18.0, "middle", "dim", &label);
        }
        out += &text(WIDTH / 2.0, bottom + 38.0, "middle", "dim", &self.x_label);
        out.push('\n');
        let plane = Plane {
            x: &x,
            y: &y,
            top: 84.0,
            bottom,
            clip: &self.name,
        };
        for mark in &self.marks {
            plane.draw(mark, &mut out);
            out.push('\n');
        }
        self.legend(&mut out);
        out + "</svg>\n"
    }

    /// Keys in one line below the title, from the right.
    fn legend(&self, out: &mut String) {
        const KEY: f64 = 22.0;
        const LETTER: f64 = 6.8;
        let named = self.marks.iter().filter_map(|mark| match mark {
            Mark::Line { label, hue, .. } | Mark::Dots { label, hue, .. } => Some((label, *hue)),
            Mark::Staircase { label, .. } => Some((label, None)),
            Mark::Event { .. } | Mark::Arrow { .. } => None,
        });
        let named: Vec<_> = named.filter(|(label, _)| !label.is_empty()).collect();
        let mut x = 70.0;
        for (label, hue) in named {
            *out += &format!(
                r#"<rect class="{}" x="{x:.1}" y="60" width="14" height="8" rx="3"/>"#,
                color(hue)
            );
            *out += &text(x + KEY - 3.0, 69.0, "start", "", label);
            x += KEY + 12.0 + LETTER * label.chars().count() as f64;
        }
    }
}

/// The class of a colour.
fn color(hue: Option<usize>) -> String {
    hue.map_or("grey".into(), hue_class)
}

fn open(name: &str, title: &str, height: f64) -> String {
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" class=\"chart figure\" id=\"{name}\" viewBox=\"0 0 {WIDTH} {height}\" \
         width=\"{WIDTH}\" height=\"{height}\" role=\"img\" aria-label=\"{}\">\n\
         <rect class=\"bg\" width=\"{WIDTH}\" height=\"{height}\" rx=\"14\"/>\n",
        escape(title)
    )
}

fn header(title: &str, below: &str, out: &mut String) {
    *out += &text(20.0, 30.0, "start", "title", title);
    *out += &text(20.0, 48.0, "start", "dim", below);
    out.push('\n');
}

fn text(x: f64, y: f64, anchor: &str, class: &str, text: &str) -> String {
    format!(
        r#"<text class="{class}" x="{x:.1}" y="{y:.1}" text-anchor="{anchor}">{}</text>"#,
        escape(text)
    )
}

impl Mark {
    /// The values that the axes must contain.
    fn values(&self) -> Vec<(f64, f64)> {
        match self {
            Self::Line { points, .. } | Self::Staircase { points, .. } => points.clone(),
            Self::Dots { points, .. } => {
                let ends = |dot: &Dot| {
                    let interval = dot.interval.into_iter().flatten();
                    let ends: Vec<(f64, f64)> = interval.map(|y| (dot.at.0, y)).collect();
                    ends.into_iter().chain([dot.at])
                };
                points.iter().flat_map(ends).collect()
            }
            Self::Event { .. } => Vec::new(),
            Self::Arrow { from, to, .. } => vec![*from, *to],
        }
    }
}

/// Maps values to positions in a figure.
struct Plane<'a> {
    x: &'a Axis,
    y: &'a Axis,
    top: f64,
    bottom: f64,
    clip: &'a str,
}

impl Plane<'_> {
    fn place(&self, (x, y): (f64, f64)) -> (f64, f64) {
        (self.x.place(x), self.y.place(y))
    }

    fn path(&self, points: &[(f64, f64)]) -> String {
        let mut path = String::new();
        for &point in points.iter().filter(|p| plottable(**p)) {
            let (x, y) = self.place(point);
            path += &format!("{}{x:.1} {y:.1}", if path.is_empty() { 'M' } else { 'L' });
        }
        path
    }

    fn draw(&self, mark: &Mark, out: &mut String) {
        match mark {
            Mark::Line {
                hue,
                dashed,
                points,
                ..
            } => {
                let class = if *dashed { "fine" } else { "strong" };
                let (color, path) = (color(*hue), self.path(points));
                *out += &format!(
                    r#"<path class="{class} stroke-{color}" clip-path="url(#clip-{})" d="{path}"/>"#,
                    self.clip
                );
            }
            Mark::Dots {
                hue,
                hollow,
                points,
                ..
            } => {
                for dot in points.iter().filter(|dot| plottable(dot.at)) {
                    self.dot(dot, &color(*hue), *hollow, out);
                }
            }
            Mark::Staircase { points, .. } => self.staircase(points, out),
            Mark::Event { x, text: label } => {
                let x = self.x.place(*x);
                *out += &format!(
                    r#"<line class="growth" x1="{x:.1}" x2="{x:.1}" y1="{}" y2="{}"/>"#,
                    self.top, self.bottom
                );
                *out += &text(x + 4.0, self.bottom - 6.0, "start", "dim", label);
            }
            Mark::Arrow {
                from,
                to,
                text: label,
            } => {
                let ((x0, y0), (x1, y1)) = (self.place(*from), self.place(*to));
                let back = if x1 > x0 { -8.0 } else { 8.0 };
                *out += &format!(
                    r#"<path class="arrow" d="M{x0:.1} {y0:.1}L{x1:.1} {y1:.1}M{:.1} {:.1}L{x1:.1} {y1:.1}L{:.1} {:.1}"/>"#,
                    x1 + back,
                    y1 - 5.0,
                    x1 + back,
                    y1 + 5.0,
                );
                let middle = (0.5 * (x0 + x1)).clamp(240.0, WIDTH - 240.0);
                *out += &text(middle, y0.min(y1) - 10.0, "middle", "said", label);
            }
        }
    }

    fn dot(&self, dot: &Dot, color: &str, hollow: bool, out: &mut String) {
        let (x, y) = self.place(dot.at);
        if let Some(interval) = dot.interval {
            let [low, high] = interval.map(|value| self.y.place(value));
            *out += &format!(
                r#"<line class="fine stroke-{color}" x1="{x:.1}" x2="{x:.1}" y1="{low:.1}" y2="{high:.1}"/>"#
            );
        }
        let class = match hollow {
            true => format!("hollow stroke-{color}"),
            false => format!("full {color}"),
        };
        *out += &format!(
            r#"<circle class="{class}" cx="{x:.1}" cy="{y:.1}" r="4.5"><title>{}: {}</title></circle>"#,
            escape(&dot.title),
            short(dot.at.1)
        );
    }

    fn staircase(&self, points: &[(f64, f64)], out: &mut String) {
        let mut path = String::new();
        let mut last: Option<(f64, f64)> = None;
        for &point in points.iter().filter(|p| plottable(**p)) {
            let (x, y) = self.place(point);
            match last {
                None => path += &format!("M{x:.1} {:.1}V{y:.1}", self.top),
                Some(_) => path += &format!("H{x:.1}V{y:.1}"),
            }
            last = Some((x, y));
        }
        if last.is_some() {
            path += &format!("H{:.1}V{:.1}Z", WIDTH - 28.0, self.top);
            *out += &format!(r#"<path class="area" d="{path}"/>"#);
        }
    }
}

/// A range as the axes make it of values.
fn range(values: Vec<f64>) -> Range {
    Range::of(values, false, false)
}
