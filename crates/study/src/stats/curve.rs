//! Loss against cost, between measured points.

/// A falling curve through points of cost and loss: a monotone cubic in the logarithm of the cost (Fritsch and Carlson
/// 1980).
#[derive(Clone, Debug)]
pub struct Curve {
    /// Logarithms of the costs, rising.
    x: Vec<f64>,
    /// Losses, never rising.
    y: Vec<f64>,
    /// Slopes at the points.
    slopes: Vec<f64>,
}

impl Curve {
    /// The curve through points of cost and loss; `None` for fewer than two. If a larger cost has a higher loss, the
    /// lower loss counts, because one can choose the shorter run.
    pub fn new(points: &[(f64, f64)]) -> Option<Self> {
        let mut points: Vec<(f64, f64)> = (points.iter())
            .filter(|(cost, loss)| *cost > 0.0 && loss.is_finite())
            .map(|(cost, loss)| (cost.ln(), *loss))
            .collect();
        points.sort_by(|a, b| a.0.total_cmp(&b.0));
        points.dedup_by(|b, a| {
            let same = a.0 == b.0;
            if same {
                a.1 = a.1.min(b.1);
            }
            same
        });
        if points.len() < 2 {
            return None;
        }
        let (x, mut y): (Vec<f64>, Vec<f64>) = points.into_iter().unzip();
        for at in 1..y.len() {
            y[at] = y[at].min(y[at - 1]);
        }
        let slopes = slopes(&x, &y);
        Some(Self { x, y, slopes })
    }

    /// Smallest and largest cost.
    pub fn range(&self) -> [f64; 2] {
        [self.x[0].exp(), self.x[self.x.len() - 1].exp()]
    }

    /// Loss at a cost; `None` below the range. Above the range, the loss of the last point.
    pub fn at(&self, cost: f64) -> Option<f64> {
        let x = cost.ln();
        // The ends count as inside, even if the logarithm is rounded.
        if x < self.x[0] - 1e-9 {
            return None;
        }
        Some(self.value(x.clamp(self.x[0], self.x[self.x.len() - 1])))
    }

    fn value(&self, x: f64) -> f64 {
        let piece = self.piece(x);
        let (h, t) = self.place(piece, x);
        let [y0, y1] = [self.y[piece], self.y[piece + 1]];
        let [m0, m1] = [self.slopes[piece], self.slopes[piece + 1]];
        let (t2, t3) = (t * t, t * t * t);
        (2.0 * t3 - 3.0 * t2 + 1.0) * y0
            + (t3 - 2.0 * t2 + t) * h * m0
            + (3.0 * t2 - 2.0 * t3) * y1
            + (t3 - t2) * h * m1
    }

    /// Fall of the loss per unit of the cost's logarithm, from 0 on.
    pub fn fall(&self, cost: f64) -> f64 {
        let x = cost.ln().clamp(self.x[0], self.x[self.x.len() - 1]);
        let piece = self.piece(x);
        let (h, t) = self.place(piece, x);
        let [y0, y1] = [self.y[piece], self.y[piece + 1]];
        let [m0, m1] = [self.slopes[piece], self.slopes[piece + 1]];
        let slope = (6.0 * t * t - 6.0 * t) / h * (y0 - y1)
            + (3.0 * t * t - 4.0 * t + 1.0) * m0
            + (3.0 * t * t - 2.0 * t) * m1;
        -slope
    }

    fn piece(&self, x: f64) -> usize {
        let after = self.x.partition_point(|&known| known <= x);
        after.clamp(1, self.x.len() - 1) - 1
    }

    fn place(&self, piece: usize, x: f64) -> (f64, f64) {
        let h = self.x[piece + 1] - self.x[piece];
        (h, (x - self.x[piece]) / h)
    }

    /// Least cost at which the loss is `loss` or less; `Err` with the end of the range that it is beyond.
    pub fn cost_of(&self, loss: f64) -> Result<f64, Beyond> {
        let last = self.y.len() - 1;
        if loss > self.y[0] {
            return Err(Beyond::Below(self.x[0].exp()));
        }
        if loss < self.y[last] {
            return Err(Beyond::Above(self.x[last].exp()));
        }
        let (mut low, mut high) = (self.x[0], self.x[last]);
        for _ in 0..100 {
            let middle = 0.5 * (low + high);
            match self.value(middle) > loss {
                true => low = middle,
                false => high = middle,
            }
        }
        Ok(high.exp())
    }
}

/// A cost outside the range of a curve: less than its smallest, or more than its largest.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Beyond {
    /// Less than this.
    Below(f64),
    /// More than this.
    Above(f64),
}

/// Slopes that keep a cubic through the points monotone.
fn slopes(x: &[f64], y: &[f64]) -> Vec<f64> {
    let n = x.len();
    let h: Vec<f64> = x.windows(2).map(|x| x[1] - x[0]).collect();
    let d: Vec<f64> = (0..n - 1).map(|i| (y[i + 1] - y[i]) / h[i]).collect();
    if n == 2 {
        return vec![d[0]; 2];
    }
    let mut slopes = vec![0.0; n];
    for i in 1..n - 1 {
        if d[i - 1] * d[i] > 0.0 {
            let (w1, w2) = (2.0 * h[i] + h[i - 1], h[i] + 2.0 * h[i - 1]);
            slopes[i] = (w1 + w2) / (w1 / d[i - 1] + w2 / d[i]);
        }
    }
    slopes[0] = end(h[0], h[1], d[0], d[1]);
    slopes[n - 1] = end(h[n - 2], h[n - 3], d[n - 2], d[n - 3]);
    slopes
}

/// The slope at an end: that of the parabola through three points, kept monotone.
fn end(h0: f64, h1: f64, d0: f64, d1: f64) -> f64 {
    let slope = ((2.0 * h0 + h1) * d0 - h0 * d1) / (h0 + h1);
    if slope * d0 <= 0.0 {
        0.0
    } else if d0 * d1 <= 0.0 && slope.abs() > 3.0 * d0.abs() {
        3.0 * d0
    } else {
        slope
    }
}
