//! The CPU as a [`Device`]: f32 buffers and the kernels of `tokenformer-kernels`.

use crate::device::{
    AttentionShape, Buffer, Device, DeviceError, Handles, Kept, LossGradient, Result, RotaryTable,
    SegmentGradRef, Side, SiteRef, Update, WeightFormat, Write,
};
use crate::precision::Precision;
use smallvec::SmallVec;
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use tokenformer_kernels::arena::{Region, Usage, Zeroed};
use tokenformer_kernels::gemm::{self, Kept as _, Mat, Prepared};
use tokenformer_kernels::pattention::{PreparedSite, Saved, Segment, SegmentGrad, Site};
use tokenformer_kernels::{
    Arena, Exec, Pool, Scratch, adamw, attention, cross_entropy, elementwise, embedding,
    layer_norm, pattention, rotary, simd,
};

/// The processor. Results have the same bits for any number of threads.
///
/// In [`Precision::Bf16`] the factors of the large products (Pattention, output head) and the scores that are
/// kept for the backward pass are rounded to bfloat16; sums, norms, attention between tokens, parameters,
/// gradients and the optimizer stay in f32.
pub struct Cpu {
    precision: Precision,
    threads: Pool,
    scratch: Mutex<Scratch>,
    /// Memory of temporaries, and of kernels.
    arena: Arc<Arena>,
    handles: Handles,
    /// Floats of [`Device::allocate`] that are alive.
    allocated: Arc<AtomicUsize>,
    rehearses: bool,
}

/// What a [`Cpu`] holds, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CpuMemory {
    /// Long-lived buffers: weights and moments.
    pub allocated: usize,
    /// Temporaries: activations, gradients, work areas of kernels.
    pub arena: Usage,
    /// Scratch memory of the threads.
    pub scratch: usize,
}

/// Where the numbers of a buffer are.
enum Numbers {
    /// In memory of their own.
    Own(Own),
    /// In the arena.
    Lent(Region),
    /// Nowhere: the memory has been given back.
    None,
}

/// Memory of its own, counted while it lives.
struct Own {
    memory: Backing,
    count: Arc<AtomicUsize>,
}

enum Backing {
    Zeroed(Zeroed),
    Adopted(Vec<f32>),
}

impl Own {
    fn floats(&self) -> &[f32] {
        match &self.memory {
            Backing::Zeroed(zeroed) => zeroed,
            Backing::Adopted(numbers) => numbers,
        }
    }

    fn floats_mut(&mut self) -> &mut [f32] {
        match &mut self.memory {
            Backing::Zeroed(zeroed) => zeroed,
            Backing::Adopted(numbers) => numbers,
        }
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        self.count.fetch_sub(self.floats().len(), Ordering::Relaxed);
    }
}

impl fmt::Debug for Cpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.describe())
    }
}

impl Cpu {
    /// A device that computes in f32 on `threads` threads; `None` for one per available core.
    pub fn new(threads: Option<usize>) -> Arc<Self> {
        Self::with_precision(threads, Precision::F32)
    }

    /// As [`Cpu::new`], in the precision given.
    pub fn with_precision(threads: Option<usize>, precision: Precision) -> Arc<Self> {
        Arc::new(Self::with(threads, precision, false))
    }

    /// A device that takes the memory that a [`Cpu::with_precision`] of so many threads would take, to the
    /// byte, and computes nothing: all numbers that come back are 0. Memory that is never written takes up
    /// address space only, so what a run needs is known before it starts ([`Cpu::memory`]).
    pub fn rehearsal(threads: Option<usize>, precision: Precision) -> Arc<Self> {
        Arc::new(Self::with(threads, precision, true))
    }

    fn with(threads: Option<usize>, precision: Precision, rehearses: bool) -> Self {
        let available = || std::thread::available_parallelism().map_or(1, usize::from);
        let arena: Arc<Arena> = Arc::default();
        let scratch = match rehearses {
            true => Scratch::rehearsal(Arc::clone(&arena)),
            false => Scratch::new(Arc::clone(&arena)),
        };
        Self {
            precision,
            threads: Pool::new(threads.unwrap_or_else(available)),
            scratch: Mutex::new(scratch),
            arena,
            handles: Handles::default(),
            allocated: Arc::default(),
            rehearses,
        }
    }

    /// What it holds.
    pub fn memory(&self) -> CpuMemory {
        let mut scratch = self.scratch.lock().unwrap_or_else(PoisonError::into_inner);
        CpuMemory {
            allocated: self.allocated.load(Ordering::Relaxed) * size_of::<f32>(),
            arena: self.arena.usage(),
            scratch: scratch.bytes(),
        }
    }

    /// A buffer with memory of its own.
    fn owned(&self, memory: Backing, len: usize) -> Buffer {
        self.allocated.fetch_add(len, Ordering::Relaxed);
        let count = Arc::clone(&self.allocated);
        Buffer::new(Numbers::Own(Own { memory, count }), len)
    }

    fn out_of_memory(&self, len: usize) -> DeviceError {
        DeviceError::OutOfMemory {
            device: "cpu".into(),
            needed_bytes: len.saturating_mul(size_of::<f32>()),
        }
    }

    /// Threads in use.
    pub fn threads(&self) -> usize {
        self.threads.threads()
    }

    /// The precision of products.
    pub fn precision(&self) -> Precision {
        self.precision
    }

    fn exec<T>(&self, run: impl FnOnce(&mut Exec<'_>) -> T) -> Result<T> {
        let mut scratch = self.scratch.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(run(&mut Exec {
            pool: &self.threads,
            scratch: &mut scratch,
        }))
    }
}

fn floats(buffer: &Buffer) -> &[f32] {
    match buffer.storage::<Numbers>() {
        Numbers::Own(own) => own.floats(),
        Numbers::Lent(region) => region,
        Numbers::None => &[],
    }
}

fn floats_mut(buffer: &mut Buffer) -> &mut [f32] {
    match buffer.storage_mut::<Numbers>() {
        Numbers::Own(own) => own.floats_mut(),
        Numbers::Lent(region) => region,
        Numbers::None => &mut [],
    }
}

/// The numbers `[R, N]` that a kernel of precision `P` keeps in a buffer of [`Device::kept_len`].
fn kept_mut<P: gemm::Precision>(buffer: &mut Buffer, len: usize) -> &mut [P::Kept] {
    &mut P::Kept::in_floats(floats_mut(buffer))[..len]
}

/// Runs `$run` with `$P` standing for the type of the device's precision.
macro_rules! in_precision {
    ($device:expr, $P:ident => $run:expr) => {
        match $device.precision {
            Precision::F32 => {
                type $P = f32;
                $run
            }
            Precision::Bf16 => {
                type $P = gemm::Bf16;
                $run
            }
        }
    };
}

/// The storage of weights that serve inference.
struct Weights {
    prepared: Prepared,
    side: Side,
}

fn prepared(buffer: &Buffer) -> Option<&Prepared> {
    Some(&buffer.storage_if::<Weights>()?.prepared)
}

impl Weights {
    /// `to` `[rows, cols]` = the weights, widened.
    fn widen(&self, to: &mut [f32]) {
        let [k, n] = self.prepared.shape();
        let mut column = vec![0.0; k];
        for i in 0..n {
            self.prepared.column(i, &mut column);
            match self.side {
                Side::Rows => to[i * k..(i + 1) * k].copy_from_slice(&column),
                Side::Columns => {
                    (to[i..].iter_mut().step_by(n).zip(&column)).for_each(|(t, c)| *t = *c)
                }
            }
        }
    }
}

/// Calls `run` with the sites if their weights are prepared; all are, or none.
fn with_prepared<T>(
    sites: &[SiteRef<'_>],
    run: impl FnOnce(&[PreparedSite<'_>]) -> T,
) -> Option<T> {
    let mut segments = Vec::new();
    let mut weights = Vec::new();
    for segment in sites.iter().flat_map(|site| site.segments) {
        weights.push([prepared(segment.keys)?, prepared(segment.values)?]);
        segments.push(Segment {
            keys: &[],
            values: &[],
            tokens: segment.tokens,
            tau: segment.tau,
        });
    }
    let mut at = 0;
    let sites: Vec<PreparedSite<'_>> = (sites.iter())
        .map(|site| {
            let of_site = at..at + site.segments.len();
            at = of_site.end;
            PreparedSite {
                site: Site {
                    theta: site.theta,
                    norm: site.norm,
                    eps: site.eps,
                    segments: &segments[of_site.clone()],
                },
                weights: &weights[of_site],
            }
        })
        .collect();
    Some(run(&sites))
}

/// Segments of a site that take no allocation.
const FEW: usize = 8;

/// Calls `run` with the site's buffers as slices.
fn with_site<T>(site: &SiteRef<'_>, run: impl FnOnce(&Site<'_>) -> T) -> T {
    let segments: SmallVec<[Segment<'_>; FEW]> = site
        .segments
        .iter()
        .map(|s| Segment {
            keys: floats(s.keys),
            values: floats(s.values),
            tokens: s.tokens,
            tau: s.tau,
        })
        .collect();
    run(&Site {
        theta: site.theta,
        norm: site.norm,
        eps: site.eps,
        segments: &segments,
    })
}

impl Device for Cpu {
    fn describe(&self) -> String {
        format!(
            "cpu, {}, {} threads, {}",
            self.precision,
            self.threads(),
            simd::level().name()
        )
    }

    fn handles(&self) -> &Handles {
        &self.handles
    }

    fn kept_len(&self, len: usize) -> usize {
        in_precision!(self, P => len.div_ceil(<P as gemm::Precision>::Kept::PER_FLOAT))
    }

    fn allocate(&self, len: usize) -> Result<Buffer> {
        let numbers = Zeroed::new(len).ok_or_else(|| self.out_of_memory(len))?;
        Ok(self.owned(Backing::Zeroed(numbers), len))
    }

    fn adopt(&self, numbers: Vec<f32>) -> Result<Buffer> {
        let len = numbers.len();
        Ok(self.owned(Backing::Adopted(numbers), len))
    }

    fn lend(&self, len: usize, buffer: &mut Buffer) -> Result<()> {
        let region = self
            .arena
            .take(len)
            .ok_or_else(|| self.out_of_memory(len))?;
        buffer.refill(Numbers::Lent(region), len);
        Ok(())
    }

    fn reclaim(&self, buffer: &mut Buffer) {
        buffer.refill(Numbers::None, 0);
    }

    fn clear(&self) {
        self.arena.clear();
    }

    fn upload(&self, from: &[f32], to: &mut Buffer) -> Result<()> {
        if !self.rehearses {
            floats_mut(to).copy_from_slice(from);
        }
        Ok(())
    }

    fn prepare(
        &self,
        weights: Buffer,
        [rows, cols]: [usize; 2],
        side: Side,
        format: WeightFormat,
    ) -> Result<Buffer> {
        let matrix = Mat::new(floats(&weights), rows, cols);
        let right = match side {
            Side::Rows => matrix.t(),
            Side::Columns => matrix,
        };
        let prepared = self.exec(|exec| Prepared::new(exec, format, right))?;
        Ok(Buffer::new(Weights { prepared, side }, weights.len()))
    }

    fn download_part(&self, from: &Buffer, start: usize, to: &mut [f32]) -> Result<()> {
        let part = start..start + to.len();
        match from.storage_if::<Weights>() {
            _ if self.rehearses => to.fill(0.0),
            None => to.copy_from_slice(&floats(from)[part]),
            Some(weights) if to.len() == from.len() => weights.widen(to),
            Some(weights) => {
                let mut all = vec![0.0; from.len()];
                weights.widen(&mut all);
                to.copy_from_slice(&all[part]);
            }
        }
        Ok(())
    }

    fn zero(&self, buffer: &mut Buffer) -> Result<()> {
        if !self.rehearses {
            floats_mut(buffer).fill(0.0);
        }
        Ok(())
    }

    fn copy(&self, from: &Buffer, to: &mut Buffer) -> Result<()> {
        if !self.rehearses {
            floats_mut(to).copy_from_slice(floats(from));
        }
        Ok(())
    }

    fn add(&self, x: &Buffer, y: &mut Buffer) -> Result<()> {
        self.exec(|exec| elementwise::add(exec, floats_mut(y), floats(x)))
    }

    fn embed(&self, table: &Buffer, tokens: &[u32], d: usize, y: &mut Buffer) -> Result<()> {
        if let Some(table) = prepared(table) {
            let rows = floats_mut(y).chunks_exact_mut(d).zip(tokens);
            rows.for_each(|(y, &token)| table.column(token as usize, y));
            return Ok(());
        }
        self.exec(|exec| embedding::forward(exec, floats(table), tokens, floats_mut(y), d))
    }

    fn embed_backward(
        &self,
        tokens: &[u32],
        dy: &Buffer,
        d: usize,
        dtable: &mut Buffer,
    ) -> Result<()> {
        self.exec(|exec| embedding::backward(exec, floats_mut(dtable), tokens, floats(dy), d))
    }

    fn layer_norm(
        &self,
        x: &Buffer,
        affine: Option<[&Buffer; 2]>,
        eps: f32,
        d: usize,
        y: &mut Buffer,
        stats: &mut Buffer,
    ) -> Result<()> {
        let affine = affine.map(|[gain, bias]| layer_norm::Affine {
            gain: floats(gain),
            bias: floats(bias),
        });
        let (y, stats) = (floats_mut(y), floats_mut(stats));
        self.exec(|exec| layer_norm::forward(exec, floats(x), affine, eps, y, stats, d))
    }

    fn layer_norm_backward(
        &self,
        kept: Kept<'_>,
        stats: &Buffer,
        gain: Option<&Buffer>,
        dy: &Buffer,
        d: usize,
        write: Write,
        dx: &mut Buffer,
    ) -> Result<()> {
        let kept = match kept {
            Kept::Output(y) => layer_norm::Kept::Output(floats(y)),
            Kept::Input(x) => layer_norm::Kept::Input(floats(x)),
        };
        let dx = (floats_mut(dx), write);
        let (stats, gain, dy) = (floats(stats), gain.map(floats), floats(dy));
        self.exec(|exec| layer_norm::backward(exec, kept, stats, gain, dy, dx, d))
    }

    fn layer_norm_backward_affine(
        &self,
        x: &Buffer,
        stats: &Buffer,
        dy: &Buffer,
        dgain: &mut Buffer,
        dbias: &mut Buffer,
    ) -> Result<()> {
        let (x, stats, dy) = (floats(x), floats(stats), floats(dy));
        let (dgain, dbias) = (floats_mut(dgain), floats_mut(dbias));
        self.exec(|exec| layer_norm::backward_affine(exec, x, stats, dy, dgain, dbias))
    }

    fn pattention(
        &self,
        site: &SiteRef<'_>,
        x: &Buffer,
        dims: [usize; 3],
        y: &mut Buffer,
        saved: Option<[&mut Buffer; 2]>,
    ) -> Result<()> {
        if saved.is_none() && prepared(site.segments[0].keys).is_some() {
            return self.pattention_group(&[*site], x, dims, &mut [y]);
        }
        with_site(site, |site| {
            let (x, y) = (floats(x), floats_mut(y));
            self.exec(|exec| {
                in_precision!(self, P => {
                    let saved = saved.map(|[scores, stats]| Saved {
                        scores: match scores.len() {
                            0 => &mut [],
                            _ => kept_mut::<P>(scores, dims[0] * site.tokens()),
                        },
                        stats: floats_mut(stats),
                    });
                    pattention::forward::<P>(exec, site, x, y, dims, saved);
                });
            })
        })
    }

    fn pattention_group(
        &self,
        sites: &[SiteRef<'_>],
        x: &Buffer,
        dims: [usize; 3],
        ys: &mut [&mut Buffer],
    ) -> Result<()> {
        let done = with_prepared(sites, |sites| {
            let mut ys: Vec<&mut [f32]> = ys.iter_mut().map(|y| floats_mut(y)).collect();
            self.exec(|exec| {
                pattention::forward_prepared(exec, sites, floats(x), &mut ys, dims);
            })
        });
        match done {
            Some(done) => done,
            None => (sites.iter().zip(ys))
                .try_for_each(|(site, y)| self.pattention(site, x, dims, y, None)),
        }
    }

    fn pattention_scores(
        &self,
        site: &SiteRef<'_>,
        x: &Buffer,
        dims: [usize; 2],
        scores: &mut Buffer,
    ) -> Result<()> {
        let x = floats(x);
        with_site(site, |site| {
            self.exec(|exec| {
                in_precision!(self, P => {
                    let scores = kept_mut::<P>(scores, dims[0] * site.tokens());
                    pattention::scores::<P>(exec, site, x, dims, scores);
                });
            })
        })
    }

    fn pattention_backward(
        &self,
        site: &SiteRef<'_>,
        x: &Buffer,
        dy: &Buffer,
        dims: [usize; 3],
        [scores, stats]: [&mut Buffer; 2],
        work: &mut Buffer,
        dx: Option<(Write, &mut Buffer)>,
        grads: &mut [SegmentGradRef<'_>],
    ) -> Result<()> {
        let dx = dx.map(|(write, dx)| (floats_mut(dx), write));
        let mut grads: SmallVec<[Option<SegmentGrad<'_>>; FEW]> = grads
            .iter_mut()
            .map(|grad| {
                let [keys, values] = grad.as_mut()?;
                Some(SegmentGrad {
                    keys: floats_mut(keys),
                    values: floats_mut(values),
                })
            })
            .collect();
        with_site(site, |site| {
            let (x, dy) = (floats(x), floats(dy));
            let len = dims[0] * site.tokens();
            self.exec(|exec| {
                in_precision!(self, P => {
                    let saved = Saved {
                        scores: kept_mut::<P>(scores, len),
                        stats: floats_mut(stats),
                    };
                    let work = kept_mut::<P>(work, len);
                    pattention::backward::<P>(exec, site, x, dy, dims, saved, work, dx, &mut grads);
                });
            })
        })
    }

    fn rotate(
        &self,
        table: &Arc<RotaryTable>,
        dims: [usize; 3],
        first: usize,
        inverse: bool,
        x: &mut Buffer,
    ) -> Result<()> {
        self.exec(|exec| rotary::rotate(exec, floats_mut(x), table, dims, first, inverse))
    }

    fn attention(
        &self,
        shape: AttentionShape,
        qkv: [&Buffer; 3],
        o: &mut Buffer,
        lse: Option<&mut Buffer>,
    ) -> Result<()> {
        let (o, lse) = (floats_mut(o), lse.map(floats_mut));
        self.exec(|exec| attention::forward(exec, shape, qkv.map(floats), o, lse))
    }

    fn attention_backward(
        &self,
        shape: AttentionShape,
        qkv: [&Buffer; 3],
        o: &Buffer,
        lse: &Buffer,
        d_o: &Buffer,
        dqkv: [&mut Buffer; 3],
    ) -> Result<()> {
        let (qkv, dqkv) = (qkv.map(floats), dqkv.map(floats_mut));
        let (o, lse, d_o) = (floats(o), floats(lse), floats(d_o));
        self.exec(|exec| attention::backward(exec, shape, qkv, o, lse, d_o, dqkv))
    }

    fn store_rows(
        &self,
        rows: &Buffer,
        [b, t, d]: [usize; 3],
        at: usize,
        capacity: usize,
        cache: &mut Buffer,
    ) -> Result<()> {
        if self.rehearses {
            return Ok(());
        }
        let (rows, cache) = (floats(rows), floats_mut(cache));
        for i in 0..b {
            let to = (i * capacity + at) * d;
            cache[to..to + t * d].copy_from_slice(&rows[i * t * d..(i + 1) * t * d]);
        }
        Ok(())
    }

    fn logits(
        &self,
        h: &Buffer,
        table: &Buffer,
        scale: f32,
        d: usize,
        logits: &mut Buffer,
    ) -> Result<()> {
        let (h, logits) = (floats(h), floats_mut(logits));
        if let Some(table) = prepared(table) {
            return self.exec(|exec| cross_entropy::logits_prepared(exec, h, table, scale, logits));
        }
        let table = floats(table);
        self.exec(|exec| {
            in_precision!(self, P => cross_entropy::logits::<P>(exec, h, table, scale, logits, d));
        })
    }

    fn cross_entropy(
        &self,
        h: &Buffer,
        table: &Buffer,
        scale: f32,
        targets: &[u32],
        d: usize,
        nll: &mut Buffer,
        gradient: Option<LossGradient<'_>>,
    ) -> Result<()> {
        if let (Some(table), None) = (prepared(table), &gradient) {
            let (h, nll) = (floats(h), floats_mut(nll));
            return self.exec(|exec| {
                cross_entropy::losses_prepared(exec, h, table, scale, targets, nll);
            });
        }
        let gradient = gradient.map(|g| cross_entropy::Gradient {
            weight: g.weight,
            dh: floats_mut(g.dh),
            dtable: g.dtable.map(floats_mut),
        });
        let (h, table, nll) = (floats(h), floats(table), floats_mut(nll));
        self.exec(|exec| {
            in_precision!(self, P => {
                cross_entropy::forward::<P>(exec, h, table, scale, targets, nll, gradient, d);
            });
        })
    }

    fn sum_of_squares(&self, x: &Buffer) -> Result<f64> {
        self.exec(|exec| elementwise::sum_of_squares(exec, floats(x)))
    }

    fn adamw(
        &self,
        update: Update,
        p: &mut Buffer,
        g: &Buffer,
        m: &mut Buffer,
        v: &mut Buffer,
    ) -> Result<()> {
        let (p, g) = (floats_mut(p), floats(g));
        let (m, v) = (floats_mut(m), floats_mut(v));
        self.exec(|exec| adamw::update(exec, update, p, g, m, v))
    }
}
