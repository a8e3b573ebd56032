//! An axis, linear or logarithmic.

use super::range;
use crate::series::Range;
use crate::svg::tick_label;

/// Maps values to pixels.
pub(super) struct Axis {
    /// Range of the values, or of their logarithms to base 10.
    range: Range,
    is_log: bool,
    from: f64,
    to: f64,
}

impl Axis {
    /// An axis for `values` from pixel `from` to pixel `to`.
    pub fn new(values: Vec<f64>, is_log: bool, from: f64, to: f64) -> Self {
        let shown = |value: &f64| !is_log || *value > 0.0;
        let values = values.into_iter().filter(shown);
        let values = values.map(|value| if is_log { value.log10() } else { value });
        Self {
            range: range(values.collect()),
            is_log,
            from,
            to,
        }
    }

    /// The pixel of a value.
    pub fn place(&self, value: f64) -> f64 {
        let value = match self.is_log {
            true => value.max(f64::MIN_POSITIVE).log10(),
            false => value,
        };
        let share = (value - self.range.low) / (self.range.high - self.range.low);
        // A value far outside would make a coordinate that renderers reject.
        self.from + share.clamp(-10.0, 10.0) * (self.to - self.from)
    }

    /// Round values and their labels.
    pub fn ticks(&self) -> Vec<(f64, String)> {
        if !self.is_log {
            let (ticks, step) = self.range.ticks(7.0);
            return ticks
                .into_iter()
                .map(|tick| (tick, tick_label(tick, step)))
                .collect();
        }
        let (first, last) = (self.range.low.floor() as i32, self.range.high.ceil() as i32);
        let few = last - first > 4;
        let mut ticks = Vec::new();
        for power in first..=last {
            for digit in [1.0, 2.0, 5.0]
                .into_iter()
                .filter(|&digit| digit == 1.0 || !few)
            {
                let value: f64 = digit * 10f64.powi(power);
                if (self.range.low..=self.range.high).contains(&value.log10()) {
                    ticks.push((value, format!("{digit}e{power}")));
                }
            }
        }
        ticks
    }
}
