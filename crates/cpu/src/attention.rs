//! Multi-head softmax attention between tokens (`softmax(Q·Kᵀ/√C)·V` per head), forward and backward.
//!
//! No `T × T` matrix is stored: a block of query rows at a time is scored against its visible keys, and the backward
//! pass recomputes the probabilities from the saved log-denominators.

use crate::exec::{Disjoint, Exec, Pieces};
use crate::gemm::{
    Line, Mat, MatMut, Packed, SCRATCH, gemm, gemm_among, gemm_packed, gemm_packed_among, pack,
    packed_lines,
};
use crate::line::{LINE, lines_in};
use crate::math::exp;
use crate::simd::{LANES, lane_dot, lane_map_sum, lane_max, simd};
use tokenformer_device::{AttentionDims, Write};

fn check(dims: &AttentionDims, [q, k, v]: [&[f32]; 3]) {
    assert!(dims.keys >= dims.queries && dims.key_stride >= dims.keys);
    assert_eq!(q.len(), dims.batch * dims.queries * dims.width());
    let kv = dims.batch * dims.key_stride * dims.width();
    assert!(k.len() >= kv && v.len() >= kv);
}

/// The keys or values `[T_k, C]` of one head.
fn head<'a>(dims: &AttentionDims, kv: &'a [f32], b: usize, h: usize) -> Mat<'a> {
    let start = b * dims.key_stride * dims.width() + h * dims.channels;
    Mat::strided(&kv[start..], dims.keys, dims.channels, dims.width())
}

/// Query rows that are scored together.
const QUERY_BLOCK: usize = 64;
/// Query rows from which on it is worth packing keys and values.
const MANY_QUERIES: usize = 32;
/// Tasks for each thread, so that all end at about the same time.
const TASKS: usize = 8;

/// The keys and values of one head, as right factors.
enum Factors<'a> {
    InPlace(Mat<'a>, Mat<'a>),
    /// `Kᵀ` `[C, T_k]` and `V` `[T_k, C]`.
    Packed(Packed<'a, f32>, Packed<'a, f32>),
}

impl<'a> Factors<'a> {
    /// Lines of the packed factors.
    fn lines(dims: &AttentionDims) -> usize {
        match dims.queries >= MANY_QUERIES {
            true => {
                packed_lines::<f32>(dims.channels, dims.keys)
                    + packed_lines::<f32>(dims.keys, dims.channels)
            }
            false => 0,
        }
    }

    fn new(dims: &AttentionDims, keys: Mat<'a>, values: Mat<'a>, lines: &'a mut [Line]) -> Self {
        if dims.queries < MANY_QUERIES {
            return Self::InPlace(keys, values);
        }
        let [t, c] = keys.shape();
        let lens = [packed_lines::<f32>(c, t), packed_lines::<f32>(t, c)];
        let [key_lines, value_lines] = split_lines(lines, lens);
        Self::Packed(pack(key_lines, keys.t()), pack(value_lines, values))
    }

    /// `p` `[R, seen] = scale · Q·Kᵀ` with the first `seen` keys.
    fn scores(&self, p: &mut [f32], q: Mat<'_>, seen: usize, scale: f32, work: &mut [f32]) {
        let p = MatMut::new(p, q.shape()[0], seen);
        match self {
            Self::InPlace(keys, _) => {
                let keys = keys.row_block(0, seen).t();
                gemm(p, Write::Replace, q, keys, scale);
            }
            Self::Packed(keys, _) => {
                let keys = keys.columns(0..seen);
                gemm_packed(p, Write::Replace, q, keys, scale, work);
            }
        }
    }

    /// `out = P·V`, rows `stride` apart.
    ///
    /// # Safety
    /// No other running task may touch those elements, which must be valid for reads and writes.
    unsafe fn output(&self, (out, stride): (*mut f32, usize), p: Mat<'_>, work: &mut [f32]) {
        let [_, seen] = p.shape();
        match self {
            Self::InPlace(_, values) => {
                let values = values.row_block(0, seen);
                // SAFETY: the caller guarantees it.
                unsafe { gemm_among((out, stride), Write::Replace, p, values, 1.0) };
            }
            Self::Packed(_, values) => {
                let values = values.first_rows(seen);
                // SAFETY: the caller guarantees it.
                unsafe { gemm_packed_among((out, stride), Write::Replace, p, values, 1.0, work) };
            }
        }
    }
}

/// Consecutive parts of `lines`.
fn split_lines<const N: usize>(mut lines: &mut [Line], lens: [usize; N]) -> [&mut [Line]; N] {
    lens.map(|len| {
        let (part, rest) = std::mem::take(&mut lines).split_at_mut(len);
        lines = rest;
        part
    })
}

/// `o` `[B·T_q, D]` from `q` `[B·T_q, D]`, `k` and `v` `[B·key_stride, D]`; `log_sums` `[B, H, T_q]` receives
/// the log-denominators if the backward pass will need them.
pub fn forward(
    exec: &mut Exec<'_>,
    dims: AttentionDims,
    [q, k, v]: [&[f32]; 3],
    o: &mut [f32],
    log_sums: Option<&mut [f32]>,
) {
    assert_eq!(o.len(), q.len());
    let log_sums = log_sums.map(|log_sums| {
        assert_eq!(log_sums.len(), dims.stats_len());
        Disjoint::new(log_sums)
    });
    let wanted = wanted(exec, dims.batch * dims.heads);
    run(exec, &[Part::new(dims, [q, k, v], wanted)], o, log_sums);
}

/// As [`forward`] for several sequences or batches: sizes, queries, keys and values of each; their rows follow each other in
/// `o`. All of them share one run of the pool.
pub fn forward_each(
    exec: &mut Exec<'_>,
    sequences: &[(AttentionDims, [&[f32]; 3])],
    o: &mut [f32],
) {
    let heads = sequences.iter().map(|(dims, _)| dims.batch * dims.heads);
    let wanted = wanted(exec, heads.sum());
    let (mut first, mut start) = (0, 0);
    let mut parts = Vec::with_capacity(sequences.len());
    for &(dims, qkv) in sequences {
        let part = Part {
            first,
            start,
            ..Part::new(dims, qkv, wanted)
        };
        first += part.tasks();
        start += qkv[0].len();
        parts.push(part);
    }
    assert_eq!(o.len(), start);
    run(exec, &parts, o, None);
}

/// Tasks into which each of some heads should be divided.
fn wanted(exec: &Exec<'_>, heads: usize) -> usize {
    (TASKS * exec.pool.threads()).div_ceil(heads.max(1))
}

/// One of the attentions of a run. A task takes some blocks of queries of one head, for which it packs the keys and values
/// once.
struct Part<'a> {
    dims: AttentionDims,
    qkv: [&'a [f32]; 3],
    blocks: Pieces,
    groups: Pieces,
    /// Number of its first task.
    first: usize,
    /// Where its output begins.
    start: usize,
}

impl<'a> Part<'a> {
    /// The first one of a run, whose heads should be divided into this number of tasks.
    fn new(dims: AttentionDims, qkv: [&'a [f32]; 3], wanted: usize) -> Self {
        check(&dims, qkv);
        let blocks = Pieces::new(dims.queries, QUERY_BLOCK);
        let groups = Pieces::new(blocks.count(), blocks.count().div_ceil(wanted).max(1));
        Self {
            dims,
            qkv,
            blocks,
            groups,
            first: 0,
            start: 0,
        }
    }

    fn tasks(&self) -> usize {
        self.dims.batch * self.dims.heads * self.groups.count()
    }
}

fn run(
    exec: &mut Exec<'_>,
    parts: &[Part<'_>],
    o: &mut [f32],
    log_sums: Option<Disjoint<'_, f32>>,
) {
    let dims = || parts.iter().map(|part| part.dims);
    let block = |dims: AttentionDims| QUERY_BLOCK.min(dims.queries) * dims.keys;
    let p_len = dims().map(block).max().unwrap_or(0);
    let lines = dims().map(|dims| Factors::lines(&dims)).max().unwrap_or(0);
    let count = parts.iter().map(Part::tasks).sum();
    let o = Disjoint::new(o);
    let scratch_len = p_len + SCRATCH + (lines + 1) * LINE;
    exec.run(count, scratch_len, |task, scratch| {
        let at = parts.partition_point(|part| part.first <= task) - 1;
        let Part {
            dims,
            qkv: [q, k, v],
            blocks,
            groups,
            first,
            start,
        } = &parts[at];
        let (d, c) = (dims.width(), dims.channels);
        let (at_head, group) = (
            (task - first) / groups.count(),
            (task - first) % groups.count(),
        );
        let (b, h) = (at_head / dims.heads, at_head % dims.heads);
        let (p, scratch) = scratch.split_at_mut(p_len);
        let (work, scratch) = scratch.split_at_mut(SCRATCH);
        // Of a group's blocks, the last one sees most.
        let last = blocks.range(groups.range(group).end - 1).end - 1;
        let [keys, values] = [k, v].map(|kv| head(dims, kv, b, h).row_block(0, dims.visible(last)));
        let factors = Factors::new(dims, keys, values, lines_in(scratch));
        for rows in groups.range(group).map(|block| blocks.range(block)) {
            let seen = dims.visible(rows.end - 1);
            let p = &mut p[..rows.len() * seen];
            let at = (b * dims.queries + rows.start) * d + h * c;
            let q = Mat::strided(&q[at..], rows.len(), c, d);
            factors.scores(p, q, seen, dims.scale(), work);
            for (i, p) in rows.clone().zip(p.chunks_exact_mut(seen)) {
                let log_sum = softmax(p, dims.visible(i));
                if let Some(log_sums) = &log_sums {
                    let at = at_head * dims.queries + i;
                    // SAFETY: each (head, query) belongs to one task.
                    let slot = unsafe { log_sums.part(at..at + 1) };
                    slot[0] = log_sum;
                }
            }
            let p = Mat::new(p, rows.len(), seen);
            // SAFETY: each task owns the columns of its head in its rows, and `o` has all columns of all rows.
            unsafe { factors.output((o.pointer(start + at), d), p, work) };
        }
    });
}

/// Gradients of [`forward`] for self-attention over whole sequences (`T_q = T_k = key_stride`):
/// `dq`, `dk`, `dv` `[B·T, D]` are written.
pub fn backward(
    exec: &mut Exec<'_>,
    dims: AttentionDims,
    [q, k, v]: [&[f32]; 3],
    o: &[f32],
    log_sums: &[f32],
    d_o: &[f32],
    [dq, dk, dv]: [&mut [f32]; 3],
) {
    check(&dims, [q, k, v]);
    assert!(dims.queries == dims.keys && dims.keys == dims.key_stride);
    assert_eq!(
        (o.len(), d_o.len(), log_sums.len()),
        (q.len(), q.len(), dims.stats_len())
    );
    assert_eq!((dq.len(), dk.len(), dv.len()), (q.len(), q.len(), q.len()));
    let (t, d, c) = (dims.queries, dims.width(), dims.channels);
    let (dq, dk, dv) = (Disjoint::new(dq), Disjoint::new(dk), Disjoint::new(dv));
    let blocks = Pieces::new(t, QUERY_BLOCK);
    let block_len = QUERY_BLOCK.min(t) * t;
    let (across, along) = (packed_lines::<f32>(c, t), packed_lines::<f32>(t, c));
    let lines = 2 * across + along;
    let scratch_len = 2 * block_len + 2 * t * c + SCRATCH + (lines + 1) * LINE;
    exec.run(dims.batch * dims.heads, scratch_len, |at_head, scratch| {
        let (b, h) = (at_head / dims.heads, at_head % dims.heads);
        let (p, scratch) = scratch.split_at_mut(block_len);
        let (ds, scratch) = scratch.split_at_mut(block_len);
        let (dk_head, scratch) = scratch.split_at_mut(t * c);
        let (dv_head, scratch) = scratch.split_at_mut(t * c);
        let (work, scratch) = scratch.split_at_mut(SCRATCH);
        dk_head.fill(0.0);
        dv_head.fill(0.0);
        let (keys, values) = (head(&dims, k, b, h), head(&dims, v, b, h));
        let [lines_k, lines_v, lines_keys] =
            split_lines(lines_in(scratch), [across, across, along]);
        let keys_t: Packed<'_, f32> = pack(lines_k, keys.t());
        let values_t: Packed<'_, f32> = pack(lines_v, values.t());
        let keys: Packed<'_, f32> = pack(lines_keys, keys);
        for rows in (0..blocks.count()).map(|i| blocks.range(i)) {
            let (n, seen) = (rows.len(), dims.visible(rows.end - 1));
            let start = (b * t + rows.start) * d + h * c;
            let (p, ds) = (&mut p[..n * seen], &mut ds[..n * seen]);
            let q = Mat::strided(&q[start..], n, c, d);
            let d_out = Mat::strided(&d_o[start..], n, c, d);
            for (to, a, b, scale) in [
                (&mut *p, q, keys_t, dims.scale()),
                (&mut *ds, d_out, values_t, 1.0),
            ] {
                let to = MatMut::new(to, n, seen);
                gemm_packed(to, Write::Replace, a, b.columns(0..seen), scale, work);
            }
            for (r, i) in rows.clone().enumerate() {
                let at = start + r * d;
                let part = r * seen..(r + 1) * seen;
                softmax_backward(
                    &mut p[part.clone()],
                    &mut ds[part],
                    dims.visible(i),
                    log_sums[at_head * t + i],
                    &o[at..at + c],
                    &d_o[at..at + c],
                );
            }
            let (p, ds) = (Mat::new(p, n, seen), Mat::new(ds, n, seen));
            let keys = keys.first_rows(seen);
            // SAFETY: each task owns the columns of its head in its sequence, and `dq` has all columns of all rows.
            unsafe {
                let to = (dq.pointer(start), d);
                gemm_packed_among(to, Write::Replace, ds, keys, dims.scale(), work);
            }
            let dk = MatMut::new(dk_head, seen, c);
            gemm(dk, Write::Add, ds.t(), q, dims.scale());
            gemm(MatMut::new(dv_head, seen, c), Write::Add, p.t(), d_out, 1.0);
        }
        let start = b * t * d + h * c;
        // SAFETY: as above.
        unsafe {
            scatter(&dk, dk_head, start, d, c);
            scatter(&dv, dv_head, start, d, c);
        }
    });
}

/// Copies rows of `c` floats to rows `d` apart in `to`, from element `start` on.
///
/// # Safety
/// No other running task may touch those columns of those rows.
unsafe fn scatter(to: &Disjoint<'_, f32>, rows: &[f32], start: usize, d: usize, c: usize) {
    for (r, row) in rows.chunks_exact(c).enumerate() {
        let at = start + r * d;
        // SAFETY: the caller guarantees it.
        unsafe { to.part(at..at + c) }.copy_from_slice(row);
    }
}

/// Elements of a row of `len`, of which the first `visible` count, that are computed together: whole vectors, because
/// a loop over the elements behind the last whole vector takes as long as many vectors.
#[inline(always)]
fn in_vectors(visible: usize, len: usize) -> usize {
    visible.next_multiple_of(LANES).min(len)
}

simd! {
    /// Softmax over the first `visible` scores, zero for the others; returns the log-denominator.
    fn softmax(p: &mut [f32], visible: usize) -> f32 {
        let (computed, hidden) = p.split_at_mut(in_vectors(visible, p.len()));
        hidden.fill(0.0);
        // Their exponential is exactly 0, and trailing zeros do not change a sum.
        computed[visible..].fill(f32::NEG_INFINITY);
        let max = lane_max(computed);
        let sum = lane_map_sum(computed, |p| exp(p - max));
        let scale = 1.0 / sum;
        computed.iter_mut().for_each(|p| *p *= scale);
        max + sum.ln()
    }
}
simd! {
    /// Scores `p` → probabilities, and their gradient `ds` → gradient of the scores `p·(ds − o·d_o)`.
    fn softmax_backward(
        p: &mut [f32],
        ds: &mut [f32],
        visible: usize,
        log_sums: f32,
        o: &[f32],
        d_o: &[f32],
    ) {
        let inner = lane_dot(o, d_o);
        let computed = in_vectors(visible, p.len());
        for (p, ds) in p[..computed].iter_mut().zip(&mut ds[..computed]) {
            *p = exp(*p - log_sums);
            *ds = *p * (*ds - inner);
        }
        p[visible..].fill(0.0);
        ds[visible..].fill(0.0);
    }
}
