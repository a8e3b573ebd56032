//! The plots of a run.

mod zoom;

pub use zoom::{ZOOM_AFTER, ZOOM_BEFORE};

use crate::records::{EvalRecord, Record, TrainRecord, Unit};
use crate::series::{Point, Range, plottable, smooth};
use crate::svg::{Band, Chart, Layer, STYLE, Series, Size, Style};
use crate::table::human_count;
use crate::timeline::{Stage, stages};
use std::collections::BTreeMap;

/// Names of the average and of the values it is made from, with and without held-out values in the same plot.
const TRAINING: [&str; 2] = ["training, smoothed", "training, each step"];
const STEPS: [&str; 2] = ["smoothed", "each step"];

/// A drawn plot.
#[derive(Debug, Clone)]
pub struct Plot {
    /// The plot's name, which is also its file name without `.svg`.
    pub name: String,
    svg: String,
    full_width: bool,
    /// Which growth of the run, counted from 0, it is a zoom of.
    growth: Option<usize>,
}

impl Plot {
    /// Whether the plot is laid out for a page's full width, not half of it.
    pub(crate) fn full_width(&self) -> bool {
        self.full_width
    }

    /// Which growth of the run, counted from 0, the plot is a zoom of.
    pub(crate) fn growth(&self) -> Option<usize> {
        self.growth
    }

    /// The `<svg>` element for a page that carries the style sheet itself.
    pub(crate) fn inline(&self) -> &str {
        &self.svg
    }

    /// The plot as an SVG file that follows the reader's light or dark setting.
    #[must_use]
    pub fn standalone(&self) -> String {
        match self.svg.split_once('\n') {
            Some((open, rest)) => format!("{open}\n<style>{STYLE}</style>\n{rest}"),
            None => self.svg.clone(),
        }
    }
}

/// The plots of a run: `loss` always, then each of `accuracy`, `bits_per_byte`, `parameters`, `throughput`, `waiting`,
/// `learning_rate` and `gradient_norm` that has something to show, and a `growth_zoom_N` for each growth (from 1) with losses on both sides.
#[must_use]
pub fn plots(records: &[Record]) -> Vec<Plot> {
    let run = Run::new(records);
    let mut charts = vec![run.loss()];
    let others = [
        run.accuracy(),
        run.bits_per_byte(),
        run.parameters(),
        run.throughput(),
        run.waiting(),
        run.learning_rate(),
        run.gradient_norm(),
    ];
    charts.extend(others.into_iter().filter(Chart::has_data));
    let charts = charts.into_iter().map(|chart| (chart, None));
    let zooms = run.zooms();
    let zooms = zooms
        .into_iter()
        .map(|(growth, chart)| (chart, Some(growth)));
    charts
        .chain(zooms)
        .map(|(chart, growth)| Plot {
            svg: chart.draw(),
            full_width: chart.size != Size::Half,
            name: chart.name,
            growth,
        })
        .collect()
}

/// The records of a run, arranged for the charts.
struct Run<'a> {
    records: &'a [Record],
    unit: Unit,
    stages: Vec<Stage<'a>>,
    x_max: f64,
    /// Usual number of updates between two train records.
    spacing: u64,
}

impl<'a> Run<'a> {
    fn new(records: &'a [Record]) -> Self {
        let stages = stages(records);
        let last = stages.iter().map(|stage| stage.end_tokens).max();
        Self {
            records,
            unit: Unit::of(records),
            stages,
            x_max: last.unwrap_or(0) as f64,
            spacing: usual_spacing(records),
        }
    }

    fn loss(&self) -> Chart {
        let per_unit = self.unit.choose(
            "nats per token, lower is better",
            "nats per image, lower is better",
        );
        let mut chart = self.chart("loss", "Loss", per_unit);
        chart.size = Size::Large;
        chart.clip = true;
        chart.series = self.raw_and_smooth(TRAINING, |r| Some(r.loss));
        chart.series.push(self.held_out(|r| Some(r.loss)));
        chart.series.push(Series {
            name: "held-out, averaged weights",
            style: Style::Control,
            points: self.eval_points(|r| r.ema_loss),
        });
        chart.series.push(Series {
            name: "skipped step",
            style: Style::Marks,
            points: self
                .train()
                .filter(|r| r.skipped)
                .map(|r| (r.tokens as f64, 0.0))
                .collect(),
        });
        chart
    }

    fn bits_per_byte(&self) -> Chart {
        let mut chart = self.chart("bits_per_byte", "Bits per byte", "lower is better");
        chart.size = Size::Wide;
        chart.clip = true;
        chart.series = self.raw_and_smooth(TRAINING, |r| r.bits_per_byte);
        chart.series.push(self.held_out(|r| r.bits_per_byte));
        chart
    }

    fn accuracy(&self) -> Chart {
        let unit = "percent of held-out images, higher is better";
        let mut chart = self.chart("accuracy", "Accuracy", unit);
        chart.size = Size::Wide;
        let percent = |share: Option<f64>| Some(100.0 * share?);
        chart.series = vec![
            Series {
                name: "among the top 5",
                style: Style::Thin,
                points: self.eval_points(|r| percent(r.top5)),
            },
            Series {
                name: "top 5, averaged weights",
                style: Style::Raw,
                points: self.eval_points(|r| percent(r.ema_top5)),
            },
            Series {
                name: "top 1, averaged weights",
                style: Style::Control,
                points: self.eval_points(|r| percent(r.ema_top1)),
            },
            Series {
                name: "top 1",
                style: Style::Dots,
                points: self.eval_points(|r| percent(r.top1)),
            },
        ];
        chart
    }

    /// The parameters that each stage added are shown as a separate layer.
    fn parameters(&self) -> Chart {
        let mut chart = self.chart("parameters", "Parameters", "one layer per stage");
        chart.from_zero = true;
        let mut below = 0.0;
        for stage in &self.stages {
            let (start, high) = (stage.start_tokens as f64, stage.params as f64);
            chart.layers.push(Layer {
                start,
                low: below,
                high,
                stage: stage.index,
            });
            below = high;
        }
        chart.series.push(Series {
            name: "parameters",
            style: Style::Line,
            points: self
                .stages
                .iter()
                .flat_map(|stage| {
                    let params = stage.params as f64;
                    [
                        (stage.start_tokens as f64, params),
                        (stage.end_tokens as f64, params),
                    ]
                })
                .collect(),
        });
        chart
    }

    fn throughput(&self) -> Chart {
        let per_second = self
            .unit
            .choose("training tokens per second", "training images per second");
        let mut chart = self.chart("throughput", "Throughput", per_second);
        chart.from_zero = true;
        chart.series = self.raw_and_smooth(STEPS, |r| r.tokens_per_s.or(r.images_per_s));
        chart
    }

    fn waiting(&self) -> Chart {
        let mut chart = self.chart("waiting", "Waiting for data", "percent of the time");
        chart.from_zero = true;
        chart.series = self.raw_and_smooth(STEPS, |r| Some(100.0 * r.waiting?));
        chart
    }

    fn learning_rate(&self) -> Chart {
        let mut chart = self.chart("learning_rate", "Learning rate", "");
        chart.from_zero = true;
        chart.series.push(Series {
            name: "learning rate",
            style: Style::Line,
            points: self.train_points(|r| Some(r.lr)),
        });
        chart
    }

    fn gradient_norm(&self) -> Chart {
        let mut chart = self.chart("gradient_norm", "Gradient norm", "L2, before clipping");
        chart.from_zero = true;
        chart.clip = true;
        chart.series = self.raw_and_smooth(STEPS, |r| Some(r.grad_norm));
        chart
    }

    /// A half-width chart with the run's bands and no data.
    fn chart(&self, name: &str, title: &str, unit: &'static str) -> Chart {
        let tokens = |stage: &Stage<'_>| [stage.start_tokens, stage.end_tokens].map(|n| n as f64);
        Chart {
            name: name.to_owned(),
            title: title.to_owned(),
            unit,
            size: Size::Half,
            x_range: Range {
                low: 0.0,
                high: self.x_max,
            },
            x_label: self.unit.choose("training tokens", "training images"),
            x_unit: self.unit.plural(),
            bands: self.stages.iter().map(|s| band(s, tokens(s))).collect(),
            layers: Vec::new(),
            series: Vec::new(),
            from_zero: false,
            clip: false,
        }
    }

    fn train(&self) -> impl Iterator<Item = &'a TrainRecord> {
        self.records.iter().filter_map(|record| match record {
            Record::Train(r) => Some(r),
            _ => None,
        })
    }

    /// A point for each usual spacing of records: around a growth they are denser, and every part of a run has to count
    /// alike in an average.
    fn train_points(&self, value: impl Fn(&TrainRecord) -> Option<f64>) -> Vec<Point> {
        let points = self.train().filter_map(|r| {
            let group = (r.stage, r.step.saturating_sub(1) / self.spacing);
            Some((group, (r.tokens as f64, value(r)?)))
        });
        let points: Vec<_> = points.filter(|&(_, point)| plottable(point)).collect();
        points
            .chunk_by(|a, b| a.0 == b.0)
            .map(|group| {
                let sum: f64 = group.iter().map(|(_, point)| point.1).sum();
                let last = group.last().map_or(0.0, |(_, point)| point.0);
                (last, sum / group.len() as f64)
            })
            .collect()
    }

    /// The values of every step and their moving average, which restarts with each stage so that jumps are not
    /// smoothed.
    fn raw_and_smooth(
        &self,
        [smooth_name, raw_name]: [&'static str; 2],
        value: impl Fn(&TrainRecord) -> Option<f64>,
    ) -> Vec<Series> {
        let points = self.train_points(&value);
        let window = points.len() as f64 / 60.0;
        let usual = Range::of(points.iter().map(|point| point.1).collect(), false, true);
        let cap = usual.high + 2.0 * (usual.high - usual.low);
        let mut smoothed = Vec::with_capacity(points.len());
        let mut rest = points.as_slice();
        for stage in &self.stages {
            let inside = rest.partition_point(|point| point.0 <= stage.end_tokens as f64);
            let (now, later) = rest.split_at(inside);
            smoothed.extend(smooth(now, window, cap));
            rest = later;
        }
        // With so few points the average equals the points.
        if window <= 1.0 {
            return vec![Series {
                name: "training",
                style: Style::Line,
                points,
            }];
        }
        vec![
            Series {
                name: raw_name,
                style: Style::Raw,
                points,
            },
            Series {
                name: smooth_name,
                style: Style::Line,
                points: smoothed,
            },
        ]
    }

    fn held_out(&self, value: impl Fn(&EvalRecord) -> Option<f64>) -> Series {
        Series {
            name: "held-out",
            style: Style::Dots,
            points: self.eval_points(value),
        }
    }

    fn eval_points(&self, value: impl Fn(&EvalRecord) -> Option<f64>) -> Vec<Point> {
        let points = self.records.iter().filter_map(|record| match record {
            Record::Eval(r) => Some((r.tokens as f64, value(r)?)),
            _ => None,
        });
        points.filter(|&point| plottable(point)).collect()
    }
}

/// The most frequent number of updates between two train records that are not of consecutive updates; 1 if there are
/// very few.
fn usual_spacing(records: &[Record]) -> u64 {
    /// Fewer gaps of one size may be records that were lost.
    const MIN_COUNT: u64 = 3;
    let steps: Vec<u64> = records
        .iter()
        .filter_map(|record| match record {
            Record::Train(r) => Some(r.step),
            _ => None,
        })
        .collect();
    let mut counts = BTreeMap::new();
    for pair in steps.windows(2) {
        let gap = pair[1].saturating_sub(pair[0]);
        if gap > 1 {
            *counts.entry(gap).or_insert(0) += 1;
        }
    }
    let most = counts.into_iter().max_by_key(|&(_, count)| count);
    most.filter(|&(_, count)| count >= MIN_COUNT)
        .map_or(1, |(gap, _)| gap)
}

/// The band of a stage from `start` to `end` on the x axis.
fn band(stage: &Stage<'_>, [start, end]: [f64; 2]) -> Band {
    let params = human_count(stage.params);
    let mut labels = Vec::new();
    if let Some(growth) = stage.growth.filter(|growth| !growth.summary.is_empty()) {
        labels.push(format!("{params} params ({})", growth.summary));
        labels.push(format!("{params} ({})", growth.summary));
    }
    labels.push(format!("{params} params"));
    labels.push(params);
    Band {
        start,
        end,
        stage: stage.index,
        labels,
    }
}
