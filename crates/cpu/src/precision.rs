//! Which precision trains faster on this processor, found by measuring.

use crate::gemm::{Bf16, Element, Kept, Source};
use crate::pattention::{Saved, Segment, SegmentGrad, Site, backward, forward};
use crate::{Exec, Pool, Scratch};
use std::fmt;
use std::sync::OnceLock;
use std::time::{Duration, Instant};
use tokenformer_device::{NormSpan, Precision, SiteDims, Theta, Write};

/// Rows, width and parameter tokens of the layer that is timed: those of a small model's feed-forward layer, for an
/// eighth of a batch. Wider layers compare the two precisions alike.
const SHAPE: [usize; 3] = [256, 384, 768];
/// Rounds of both precisions in turn, of which the fastest counts.
const ROUNDS: usize = 5;
/// No round starts after that time.
const PATIENCE: Duration = Duration::from_millis(500);
/// bf16 has to be faster by that factor, because f32 rounds nothing.
const LEAST_GAIN: f64 = 1.03;

/// A precision, and the times that it was chosen by.
#[derive(Clone, Copy, Debug)]
pub struct Recommended {
    /// The faster one.
    pub precision: Precision,
    /// Time of a layer's forward and backward pass in f32.
    pub f32: Duration,
    /// The same in bf16.
    pub bf16: Duration,
}

impl Recommended {
    fn of(f32: Duration, bf16: Duration) -> Self {
        let is_faster = f32.as_secs_f64() > LEAST_GAIN * bf16.as_secs_f64();
        let precision = match is_faster {
            true => Precision::Bf16,
            false => Precision::F32,
        };
        Self {
            precision,
            f32,
            bf16,
        }
    }
}

/// Why: what was measured.
impl fmt::Display for Recommended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [rows, width, tokens] = SHAPE;
        let ms = |time: Duration| 1e3 * time.as_secs_f64();
        write!(
            f,
            "a layer (R={rows} D={width} N={tokens}) forward and backward takes {:.1} ms in f32 and {:.1} ms in bf16 on \
             one thread",
            ms(self.f32),
            ms(self.bf16)
        )
    }
}

/// The faster precision for training on this processor. The first call of a process measures it, which takes a tenth of
/// a second; later calls return the same.
pub fn recommended_precision() -> Recommended {
    static FOUND: OnceLock<Recommended> = OnceLock::new();
    *FOUND.get_or_init(|| {
        let (pool, mut scratch) = (Pool::new(1), Scratch::default());
        let mut exec = Exec {
            pool: &pool,
            scratch: &mut scratch,
        };
        let mut layer = Layer::new();
        let mut times = || [layer.time::<f32>(&mut exec), layer.time::<Bf16>(&mut exec)];
        // The first round takes memory, and processors raise their clock.
        times();
        let (mut least, started) = (times(), Instant::now());
        for _ in 1..ROUNDS {
            if started.elapsed() > PATIENCE {
                break;
            }
            let times = times();
            least = std::array::from_fn(|i| least[i].min(times[i]));
        }
        Recommended::of(least[0], least[1])
    })
}

/// The arrays of a layer.
struct Layer {
    x: Vec<f32>,
    keys: Vec<f32>,
    values: Vec<f32>,
    y: Vec<f32>,
    scores: Vec<f32>,
    work: Vec<f32>,
    stats: Vec<f32>,
    d_keys: Vec<f32>,
    d_values: Vec<f32>,
}

impl Layer {
    fn new() -> Self {
        let [r, d, n] = SHAPE;
        // Different numbers, large enough that their products do not underflow.
        let numbers =
            |len: usize| -> Vec<f32> { (0..len).map(|i| (i % 251) as f32 / 251.0 - 0.5).collect() };
        Self {
            x: numbers(r * d),
            keys: numbers(n * d),
            values: numbers(n * d),
            y: vec![0.0; r * d],
            scores: vec![0.0; r * n],
            work: vec![0.0; r * n],
            stats: vec![0.0; r],
            d_keys: vec![0.0; n * d],
            d_values: vec![0.0; n * d],
        }
    }

    /// Time of a forward and a backward pass.
    fn time<P: Element>(&mut self, exec: &mut Exec<'_>) -> Duration
    where
        f32: Source<P>,
    {
        let [r, d, n] = SHAPE;
        let tau = (n as f32).sqrt();
        let segments = [Segment {
            keys: &self.keys,
            values: &self.values,
            tokens: n,
            tau,
        }];
        let site = Site {
            theta: Theta::L2NormGelu,
            norm: NormSpan::Joint,
            tau,
            eps: 1e-6,
            segments: &segments,
        };
        let dims = SiteDims {
            rows: r,
            d_in: d,
            d_out: d,
        };
        let started = Instant::now();
        let scores = &mut P::Kept::in_floats(&mut self.scores)[..r * n];
        let stats = &mut self.stats[..];
        let saved = Saved {
            scores: &mut *scores,
            stats: &mut *stats,
        };
        forward::<P>(exec, &site, &self.x, &mut self.y, dims, Some(saved));
        let grad = SegmentGrad {
            keys: &mut self.d_keys,
            values: &mut self.d_values,
        };
        let work = &mut P::Kept::in_floats(&mut self.work)[..r * n];
        let dx = Some((&mut self.y[..], Write::Replace));
        let saved = Saved { scores, stats };
        let grads = &mut [Some(grad)];
        backward::<P>(exec, &site, &self.x, &self.x, dims, saved, work, dx, grads);
        started.elapsed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bf16_is_chosen_only_if_it_is_clearly_faster() {
        let of = |f32, bf16| {
            Recommended::of(Duration::from_micros(f32), Duration::from_micros(bf16)).precision
        };
        assert_eq!(of(1000, 1500), Precision::F32);
        assert_eq!(of(1000, 1000), Precision::F32);
        assert_eq!(of(1000, 980), Precision::F32);
        assert_eq!(of(1000, 900), Precision::Bf16);
    }

    #[test]
    fn a_process_measures_once_and_says_what() {
        let [first, second] = [0; 2].map(|_| recommended_precision());
        assert!(first.f32 > Duration::ZERO && first.bf16 > Duration::ZERO);
        assert_eq!((first.f32, first.bf16), (second.f32, second.bf16));
        let said = first.to_string();
        assert!(
            said.contains("in f32") && said.contains("in bf16"),
            "{said}"
        );
    }
}
