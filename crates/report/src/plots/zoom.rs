//! The training loss around a growth, update by update, compared with that of the same model without the growth.

use super::{Run, band};
use crate::records::{GrowRecord, Record};
use crate::series::{Point, Range, plottable};
use crate::svg::{Chart, Series, Size, Style};

/// Updates before a growth that its zoom shows.
pub const ZOOM_BEFORE: u64 = 100;
/// Updates after a growth that its zoom shows.
pub const ZOOM_AFTER: u64 = 200;

/// With fewer losses on a side of the growth, its zoom would show nothing that the loss plot does not.
const MIN_POINTS: usize = 10;

impl Run<'_> {
    /// The zooms of the run's growths, with the growths' numbers from 0.
    pub(super) fn zooms(&self) -> Vec<(usize, Chart)> {
        let growths = self.records.iter().filter_map(|record| match record {
            Record::Grow(r) => Some(r),
            _ => None,
        });
        growths
            .enumerate()
            .filter_map(|(index, growth)| Some((index, self.zoom(index, growth)?)))
            .collect()
    }

    /// `None` if there are too few losses around the growth.
    fn zoom(&self, index: usize, growth: &GrowRecord) -> Option<Chart> {
        let x_range = Range {
            low: -(ZOOM_BEFORE as f64),
            high: ZOOM_AFTER as f64,
        };
        // Updates since the growth; that of the last update before it is 0.
        let x = |step: u64| step as f64 - growth.step as f64;
        let shown =
            |point: &Point| plottable(*point) && (x_range.low..=x_range.high).contains(&point.0);
        let losses = self.train().map(|r| (x(r.step), r.loss));
        let losses: Vec<Point> = losses.filter(shown).collect();
        let before = losses.iter().filter(|point| point.0 <= 0.0).count();
        if before < MIN_POINTS || losses.len() - before < MIN_POINTS {
            return None;
        }
        let control = self.records.iter().filter_map(|record| match record {
            Record::Control(r) if r.stage == growth.stage => Some((x(r.step), r.loss)),
            _ => None,
        });
        let control: Vec<Point> = control.filter(shown).collect();

        let number = index + 1;
        let mut chart = self.chart(
            &format!("growth_zoom_{number}"),
            &format!("Loss around growth {number}"),
            self.unit.choose(
                "training loss in nats per token, lower is better",
                "training loss in nats per image, lower is better",
            ),
        );
        chart.size = Size::Wide;
        chart.x_range = x_range;
        chart.x_label = "updates since the growth";
        chart.x_unit = "updates";
        let steps = self
            .stages
            .iter()
            .map(|stage| (stage, [x(stage.start_step), x(stage.end_step)]));
        chart.bands = steps
            .filter(|(_, [start, end])| *start < x_range.high && *end > x_range.low)
            .map(|(stage, ends)| band(stage, ends))
            .collect();
        chart.series = vec![
            Series {
                name: "training",
                style: Style::Thin,
                points: losses,
            },
            Series {
                name: "without the growth",
                style: Style::Control,
                points: control,
            },
        ];
        Some(chart)
    }
}
