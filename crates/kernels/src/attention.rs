//! Multi-head softmax attention between tokens (`softmax(Q·Kᵀ/√C)·V` per head), forward and backward.
//!
//! No `T × T` matrix is kept: a block of query rows at a time is scored against the keys that it may
//! see, and the backward pass recomputes the probabilities from the saved log-denominators.

use crate::exec::{Disjoint, Exec, Pieces};
use crate::gemm::{Mat, MatMut, Write, gemm};
use crate::math::exp;
use crate::simd::{lane_dot, lane_max, lane_sum, simd};

/// The sizes of one attention call. Queries are the last `queries` of `keys` positions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Sequences `B`.
    pub batch: usize,
    /// Query positions `T_q` per sequence.
    pub queries: usize,
    /// Key positions `T_k >= T_q` in use per sequence.
    pub keys: usize,
    /// Key positions between the starts of two sequences (the capacity of a cache).
    pub key_stride: usize,
    /// Heads `H`.
    pub heads: usize,
    /// Channels `C` per head; `D = H·C`.
    pub channels: usize,
    /// Whether a query sees only positions up to its own.
    pub causal: bool,
}

impl Shape {
    fn width(&self) -> usize {
        self.heads * self.channels
    }

    /// Floats of the log-denominators `[B, H, T_q]`.
    pub fn stats_len(&self) -> usize {
        self.batch * self.heads * self.queries
    }

    /// Keys that query `i` of a sequence sees.
    fn visible(&self, i: usize) -> usize {
        if self.causal {
            self.keys - self.queries + i + 1
        } else {
            self.keys
        }
    }

    fn scale(&self) -> f32 {
        1.0 / (self.channels as f32).sqrt()
    }

    fn check(&self, q: &[f32], k: &[f32], v: &[f32]) {
        assert!(self.keys >= self.queries && self.key_stride >= self.keys);
        assert_eq!(q.len(), self.batch * self.queries * self.width());
        let kv = self.batch * self.key_stride * self.width();
        assert!(k.len() >= kv && v.len() >= kv);
    }

    /// The keys or values `[T_k, C]` of one head.
    fn head<'a>(&self, kv: &'a [f32], b: usize, h: usize) -> Mat<'a> {
        let start = b * self.key_stride * self.width() + h * self.channels;
        Mat::strided(&kv[start..], self.keys, self.channels, self.width())
    }
}

/// Query rows that are handled together.
const QUERY_BLOCK: usize = 64;

/// `o` `[B·T_q, D]` from `q` `[B·T_q, D]`, `k` and `v` `[B·key_stride, D]`; `lse` `[B, H, T_q]` receives
/// the log-denominators if the backward pass will want them.
pub fn forward(
    exec: &mut Exec<'_>,
    shape: Shape,
    [q, k, v]: [&[f32]; 3],
    o: &mut [f32],
    lse: Option<&mut [f32]>,
) {
    shape.check(q, k, v);
    assert_eq!(o.len(), q.len());
    let (d, c) = (shape.width(), shape.channels);
    let o = Disjoint::new(o);
    let lse = lse.map(|lse| {
        assert_eq!(lse.len(), shape.stats_len());
        Disjoint::new(lse)
    });
    let blocks = Pieces::new(shape.queries, QUERY_BLOCK);
    let tasks = shape.batch * shape.heads * blocks.count();
    exec.run(tasks, QUERY_BLOCK * (shape.keys + c), |task, scratch| {
        let (head, block) = (task / blocks.count(), task % blocks.count());
        let (b, h) = (head / shape.heads, head % shape.heads);
        let rows = blocks.range(block);
        let seen = shape.visible(rows.end - 1);
        let (p, out) = scratch.split_at_mut(QUERY_BLOCK * shape.keys);
        let (p, out) = (&mut p[..rows.len() * seen], &mut out[..rows.len() * c]);
        let start = (b * shape.queries + rows.start) * d + h * c;
        let q = Mat::strided(&q[start..], rows.len(), c, d);
        let keys = shape.head(k, b, h).row_block(0, seen);
        gemm(
            MatMut::new(p, rows.len(), seen),
            Write::Replace,
            q,
            keys.t(),
            shape.scale(),
        );
        for (i, p) in rows.clone().zip(p.chunks_exact_mut(seen)) {
            let log_sum = softmax(p, shape.visible(i));
            if let Some(lse) = &lse {
                let at = head * shape.queries + i;
                // SAFETY: each (head, query) belongs to one task.
                let slot = unsafe { lse.part(at..at + 1) };
                slot[0] = log_sum;
            }
        }
        let values = shape.head(v, b, h).row_block(0, seen);
        let weights = Mat::new(p, rows.len(), seen);
        gemm(
            MatMut::new(out, rows.len(), c),
            Write::Replace,
            weights,
            values,
            1.0,
        );
        // SAFETY: each task owns the columns of its head in its own rows.
        unsafe { scatter(&o, out, start, d, c) };
    });
}

/// Gradients of [`forward`] for self-attention over whole sequences (`T_q = T_k = key_stride`):
/// `dq`, `dk`, `dv` `[B·T, D]` are written.
pub fn backward(
    exec: &mut Exec<'_>,
    shape: Shape,
    [q, k, v]: [&[f32]; 3],
    o: &[f32],
    lse: &[f32],
    d_o: &[f32],
    [dq, dk, dv]: [&mut [f32]; 3],
) {
    shape.check(q, k, v);
    assert!(shape.queries == shape.keys && shape.keys == shape.key_stride);
    assert_eq!(
        (o.len(), d_o.len(), lse.len()),
        (q.len(), q.len(), shape.stats_len())
    );
    assert_eq!((dq.len(), dk.len(), dv.len()), (q.len(), q.len(), q.len()));
    let (t, d, c) = (shape.queries, shape.width(), shape.channels);
    let (dq, dk, dv) = (Disjoint::new(dq), Disjoint::new(dk), Disjoint::new(dv));
    let blocks = Pieces::new(t, QUERY_BLOCK);
    let scratch_len = 2 * QUERY_BLOCK * t + QUERY_BLOCK * c + 2 * t * c;
    exec.run(shape.batch * shape.heads, scratch_len, |head, scratch| {
        let (b, h) = (head / shape.heads, head % shape.heads);
        let (p, scratch) = scratch.split_at_mut(QUERY_BLOCK * t);
        let (ds, scratch) = scratch.split_at_mut(QUERY_BLOCK * t);
        let (dq_block, scratch) = scratch.split_at_mut(QUERY_BLOCK * c);
        let (dk_head, dv_head) = scratch.split_at_mut(t * c);
        let dv_head = &mut dv_head[..t * c];
        dk_head.fill(0.0);
        dv_head.fill(0.0);
        let (keys, values) = (shape.head(k, b, h), shape.head(v, b, h));
        for rows in (0..blocks.count()).map(|i| blocks.range(i)) {
            let (n, seen) = (rows.len(), shape.visible(rows.end - 1));
            let start = (b * t + rows.start) * d + h * c;
            let (p, ds) = (&mut p[..n * seen], &mut ds[..n * seen]);
            let q = Mat::strided(&q[start..], n, c, d);
            let d_out = Mat::strided(&d_o[start..], n, c, d);
            let keys = keys.row_block(0, seen);
            gemm(
                MatMut::new(p, n, seen),
                Write::Replace,
                q,
                keys.t(),
                shape.scale(),
            );
            let values = values.row_block(0, seen);
            gemm(
                MatMut::new(ds, n, seen),
                Write::Replace,
                d_out,
                values.t(),
                1.0,
            );
            for (r, i) in rows.clone().enumerate() {
                let at = start + r * d;
                let inner = dot(&o[at..at + c], &d_o[at..at + c]);
                let part = r * seen..(r + 1) * seen;
                let visible = shape.visible(i);
                softmax_backward(
                    &mut p[part.clone()],
                    &mut ds[part],
                    visible,
                    lse[head * t + i],
                    inner,
                );
            }
            let (p, ds) = (Mat::new(p, n, seen), Mat::new(ds, n, seen));
            gemm(
                MatMut::new(&mut dq_block[..n * c], n, c),
                Write::Replace,
                ds,
                keys,
                shape.scale(),
            );
            // SAFETY: each task owns the columns of its head in its sequence.
            unsafe { scatter(&dq, &dq_block[..n * c], start, d, c) };
            gemm(
                MatMut::new(dk_head, seen, c),
                Write::Add,
                ds.t(),
                q,
                shape.scale(),
            );
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
        // SAFETY: passed on to the caller.
        unsafe { to.part(at..at + c) }.copy_from_slice(row);
    }
}

simd! {
    fn dot(a: &[f32], b: &[f32]) -> f32 {
        lane_dot(a, b)
    }
}
simd! {
    /// Softmax over the first `visible` scores, zero for the others; returns the log-denominator.
    fn softmax(p: &mut [f32], visible: usize) -> f32 {
        let (seen, hidden) = p.split_at_mut(visible);
        hidden.fill(0.0);
        let max = lane_max(seen);
        seen.iter_mut().for_each(|p| *p = exp(*p - max));
        let sum = lane_sum(seen.len(), |i| seen[i]);
        let scale = 1.0 / sum;
        seen.iter_mut().for_each(|p| *p *= scale);
        max + sum.ln()
    }
}
simd! {
    /// Scores `p` → probabilities, and their gradient `ds` → gradient of the scores `p·(ds − inner)`.
    fn softmax_backward(p: &mut [f32], ds: &mut [f32], visible: usize, lse: f32, inner: f32) {
        p[visible..].fill(0.0);
        ds[visible..].fill(0.0);
        for (p, ds) in p[..visible].iter_mut().zip(&mut ds[..visible]) {
            *p = exp(*p - lse);
            *ds = *p * (*ds - inner);
        }
    }
}
