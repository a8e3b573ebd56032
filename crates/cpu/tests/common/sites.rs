//! Random Pattention sites, run by the fast kernels and by the plain ones.

use super::{Random, exec, widen};
use proptest::prelude::*;
use tokenformer_cpu::gemm::{Element, Kept, Source};
use tokenformer_cpu::pattention::{Saved, Segment, SegmentGrad, Site, backward, forward};
use tokenformer_device::Write;
use tokenformer_device::reference;
use tokenformer_device::{NormSpan, SiteDims, Theta};

/// What a site and its input look like; numbers follow from the seed.
#[derive(Clone, Debug)]
pub struct Case {
    pub theta: Theta,
    pub joint: bool,
    pub rows: usize,
    pub d_in: usize,
    pub d_out: usize,
    pub tokens: Vec<usize>,
    pub seed: u64,
}

pub const EPS: f32 = 1e-6;

/// Cases with segments of `tokens`.
pub fn any_case(tokens: std::ops::Range<usize>) -> impl Strategy<Value = Case> {
    let rows = prop_oneof![4 => 1..10usize, 1 => 60..70usize, 1 => 126..133usize];
    let site = (
        prop::sample::select(&Theta::ALL[..]),
        any::<bool>(),
        prop::collection::vec(tokens, 1..4),
    );
    // The size of an input of one channel changes no output of a norm: its gradient would be rounding alone.
    (site, rows, 2..70usize, 1..70usize, any::<u64>()).prop_map(
        |((theta, joint, tokens), rows, d_in, d_out, seed)| Case {
            theta,
            joint,
            rows,
            d_in,
            d_out,
            tokens,
            seed,
        },
    )
}

/// The numbers of a case.
pub struct Numbers {
    pub x: Vec<f32>,
    pub dy: Vec<f32>,
    pub keys: Vec<Vec<f32>>,
    pub values: Vec<Vec<f32>>,
    pub taus: Vec<f32>,
    pub norm: NormSpan,
    /// Scale of a joint norm.
    pub tau: f32,
}

/// Output and gradients.
pub struct Found<T> {
    pub y: Vec<T>,
    pub dx: Vec<T>,
    pub keys: Vec<Vec<T>>,
    pub values: Vec<Vec<T>>,
}

impl Case {
    pub fn numbers(&self) -> Numbers {
        let mut random = Random::new(self.seed);
        let std = 1.0 / (self.d_in as f64).sqrt();
        let x = random.normals(self.rows * self.d_in, 1.0);
        let dy = random.normals(self.rows * self.d_out, 1.0);
        let keys = self
            .tokens
            .iter()
            .map(|n| random.normals(n * self.d_in, std))
            .collect();
        let values = self
            .tokens
            .iter()
            .map(|n| random.normals(n * self.d_out, 0.3))
            .collect();
        let taus = self.tokens.iter().map(|&n| (n as f32).sqrt()).collect();
        let all = self.tokens.iter().sum::<usize>() as f32;
        // Not the root of the total: a grown site keeps an older one.
        let tau = 0.8 * all.sqrt();
        let norm = match self.joint {
            true => NormSpan::Joint,
            false => NormSpan::Segment,
        };
        Numbers {
            x,
            dy,
            keys,
            values,
            taus,
            norm,
            tau,
        }
    }

    fn dims(&self) -> SiteDims {
        SiteDims {
            rows: self.rows,
            d_in: self.d_in,
            d_out: self.d_out,
        }
    }

    pub fn with_site<T>(&self, n: &Numbers, run: impl FnOnce(&Site<'_>) -> T) -> T {
        let segments: Vec<Segment<'_>> = (0..self.tokens.len())
            .map(|s| Segment {
                keys: &n.keys[s],
                values: &n.values[s],
                tokens: self.tokens[s],
                tau: n.taus[s],
            })
            .collect();
        run(&Site {
            theta: self.theta,
            norm: n.norm,
            tau: n.tau,
            eps: EPS,
            segments: &segments,
        })
    }

    /// Output without keeping anything, as in inference.
    pub fn infer(&self, n: &Numbers, threads: usize) -> Vec<f32> {
        self.infer_in::<f32>(n, threads)
    }

    /// As [`Case::infer`], with products in precision `P`.
    pub fn infer_in<P: Element>(&self, n: &Numbers, threads: usize) -> Vec<f32>
    where
        f32: Source<P>,
    {
        let mut y = vec![f32::NAN; self.rows * self.d_out];
        self.with_site(n, |site| {
            exec(threads, |exec| {
                forward::<P>(exec, site, &n.x, &mut y, self.dims(), None)
            })
        });
        y
    }

    /// Output and gradients by the fast kernels. Gradients of segments are added to `start`, that of the
    /// input too under [`Write::Add`]; segments in `frozen` have none.
    pub fn fast(
        &self,
        n: &Numbers,
        threads: usize,
        start: f32,
        write: Write,
        frozen: &[usize],
    ) -> Found<f32> {
        self.fast_in::<f32>(n, threads, start, write, frozen)
    }

    /// As [`Case::fast`], with products in precision `P`.
    pub fn fast_in<P: Element>(
        &self,
        n: &Numbers,
        threads: usize,
        start: f32,
        write: Write,
        frozen: &[usize],
    ) -> Found<f32>
    where
        f32: Source<P>,
    {
        let all: usize = self.tokens.iter().sum();
        let groups = if self.joint { 1 } else { self.tokens.len() };
        let (mut scores, mut stats) = (
            vec![f32::NAN; self.rows * all],
            vec![f32::NAN; self.rows * groups],
        );
        let mut work = vec![f32::NAN; self.rows * all];
        let scores = &mut P::Kept::in_floats(&mut scores)[..self.rows * all];
        let work = &mut P::Kept::in_floats(&mut work)[..self.rows * all];
        let mut y = vec![f32::NAN; self.rows * self.d_out];
        let mut dx =
            vec![if write == Write::Add { start } else { f32::NAN }; self.rows * self.d_in];
        let filled = |like: &[Vec<f32>]| {
            like.iter()
                .map(|l| vec![start; l.len()])
                .collect::<Vec<_>>()
        };
        let (mut keys, mut values) = (filled(&n.keys), filled(&n.values));
        self.with_site(n, |site| {
            exec(threads, |exec| {
                let saved = Saved {
                    scores: &mut *scores,
                    stats: &mut stats,
                };
                forward::<P>(exec, site, &n.x, &mut y, self.dims(), Some(saved));
                let saved = Saved {
                    scores: &mut *scores,
                    stats: &mut stats,
                };
                let mut grads: Vec<Option<SegmentGrad<'_>>> =
                    (keys.iter_mut().zip(&mut values).enumerate())
                        .map(|(s, (keys, values))| {
                            (!frozen.contains(&s)).then_some(SegmentGrad { keys, values })
                        })
                        .collect();
                let dx = Some((&mut dx[..], write));
                backward::<P>(
                    exec,
                    site,
                    &n.x,
                    &n.dy,
                    self.dims(),
                    saved,
                    work,
                    dx,
                    &mut grads,
                );
            });
        });
        Found {
            y,
            dx,
            keys,
            values,
        }
    }

    /// The same by the plain f64 kernels.
    pub fn plain(&self, n: &Numbers) -> Found<f64> {
        let (wide_keys, wide_values): (Vec<_>, Vec<_>) = n
            .keys
            .iter()
            .zip(&n.values)
            .map(|(k, v)| (widen(k), widen(v)))
            .unzip();
        let segments: Vec<tokenformer_device::Segment<&[f64]>> = (0..self.tokens.len())
            .map(|s| tokenformer_device::Segment {
                keys: &wide_keys[s][..],
                values: &wide_values[s][..],
                tokens: self.tokens[s],
                tau: n.taus[s],
            })
            .collect();
        let site = tokenformer_device::Site {
            theta: self.theta,
            norm: n.norm,
            tau: n.tau,
            eps: EPS,
            segments: &segments,
        };
        let (x, dy, dims) = (widen(&n.x), widen(&n.dy), self.dims());
        let y = reference::pattention(&site, &x, dims);
        let grad = reference::pattention_backward(&site, &x, &dy, dims);
        let segments = grad.segments.into_iter();
        let (keys, values) = segments.map(|[keys, values]| (keys, values)).unzip();
        Found {
            y,
            dx: grad.dx,
            keys,
            values,
        }
    }
}
