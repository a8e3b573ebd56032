//! Prepares series of points for a plot: smoothing, thinning, and a range that is robust to outliers.

/// `(x, y)`, both finite.
pub(crate) type Point = (f64, f64);

/// Values beyond this are indistinguishable in a plot and would overflow its arithmetic.
const MAX_PLOTTABLE: f64 = 1e30;

pub(crate) fn plottable(point: Point) -> bool {
    point.0.is_finite() && point.1.is_finite() && point.1.abs() <= MAX_PLOTTABLE
}

/// An exponential moving average over up to `window` points; early points, where values fall fast, average over fewer.
/// A value above `cap` counts as `cap`, so that one spike does not dominate the following average.
pub(crate) fn smooth(points: &[Point], window: f64, cap: f64) -> Vec<Point> {
    const POINTS_PER_WINDOW_STEP: f64 = 3.0;
    let mut average = 0.0;
    points
        .iter()
        .enumerate()
        .map(|(index, &(x, y))| {
            let now = (1.0 + index as f64 / POINTS_PER_WINDOW_STEP).min(window.max(1.0));
            average += (y.min(cap) - average) / now;
            (x, average)
        })
        .collect()
}

/// At most `limit` of `points`: the lowest and the highest of each of `limit / 2` runs, in order, so that spikes stay
/// visible.
pub(crate) fn thin(points: &[Point], limit: usize) -> Vec<Point> {
    if points.len() <= limit {
        return points.to_vec();
    }
    let run = points.len().div_ceil((limit / 2).max(1));
    points
        .chunks(run)
        .flat_map(|chunk| {
            let by_y = |a: &(usize, &Point), b: &(usize, &Point)| a.1.1.total_cmp(&b.1.1);
            let low = chunk.iter().enumerate().min_by(by_y);
            let high = chunk.iter().enumerate().max_by(by_y);
            let mut ends: Vec<(usize, &Point)> = low.into_iter().chain(high).collect();
            ends.sort_by_key(|&(index, _)| index);
            ends.dedup_by_key(|&mut (index, _)| index);
            ends.into_iter().map(|(_, &point)| point)
        })
        .collect()
}

/// The middle value of `values`, which are finite; `None` when there are none.
pub(crate) fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

/// The vertical extent of a plot.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Range {
    pub low: f64,
    pub high: f64,
}

impl Range {
    /// A range that holds `values`, all plottable; when `clip`, a few that lie far above the rest may stay outside.
    pub(crate) fn of(mut values: Vec<f64>, from_zero: bool, clip: bool) -> Self {
        /// Shorter series are shown whole.
        const MIN_TO_CLIP: usize = 50;
        /// How far, in spans of the rest, the highest value may be above the rest and still be shown.
        const TOLERATED_SPANS: f64 = 1.6;

        values.sort_by(f64::total_cmp);
        let (Some(&min), Some(&max)) = (values.first(), values.last()) else {
            return Self {
                low: 0.0,
                high: 1.0,
            };
        };
        let low = if from_zero { min.min(0.0) } else { min };
        let mut high = max;
        if clip && values.len() >= MIN_TO_CLIP {
            let rest = values[values.len() * 95 / 100];
            if max - low > TOLERATED_SPANS * (rest - low) && rest > low {
                high = rest + 0.15 * (rest - low);
            }
        }
        if high - low <= 1e-9 * high.abs().max(low.abs()).max(1e-12) {
            let margin = if high.abs() < 1e-12 {
                1.0
            } else {
                0.1 * high.abs()
            };
            let low = if from_zero { low } else { low - margin };
            return Self {
                low,
                high: high + margin,
            };
        }
        let margin = 0.05 * (high - low);
        Self {
            low: if from_zero { low } else { low - margin },
            high: high + margin,
        }
    }

    /// Round values inside the range, roughly `target` of them, and the step between them.
    pub(crate) fn ticks(self, target: f64) -> (Vec<f64>, f64) {
        let raw = (self.high - self.low) / target;
        let magnitude = 10f64.powf(raw.log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0]
            .into_iter()
            .map(|factor| factor * magnitude)
            .find(|&step| step >= 0.7 * raw)
            .unwrap_or(raw);
        let first = (self.low / step).ceil();
        // The bound holds for every range; it keeps rounding at extreme values from making this loop long.
        let ticks = (0..=(2.0 * target) as usize)
            .map(|index| (first + index as f64) * step + 0.0)
            .take_while(|&tick| tick <= self.high + 1e-9 * step)
            .collect();
        (ticks, step)
    }
}
