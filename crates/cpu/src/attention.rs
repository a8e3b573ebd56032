//! Multi-head softmax attention between tokens (`softmax(Q·Kᵀ/√C)·V` per head), forward and backward.
//!
//! No `T × T` matrix is stored: a block of query rows at a time is scored against its visible keys, and the backward
//! pass recomputes the probabilities from the saved log-denominators.

use crate::exec::{Disjoint, Exec, Pieces};
use crate::gemm::{Mat, MatMut, gemm};
use crate::math::exp;
use crate::simd::{lane_dot, lane_max, lane_sum, simd};
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

/// Query rows of a task.
const QUERY_BLOCK: usize = 64;

/// `o` `[B·T_q, D]` from `q` `[B·T_q, D]`, `k` and `v` `[B·key_stride, D]`; `log_sums` `[B, H, T_q]` receives
/// the log-denominators if the backward pass will need them.
pub fn forward(
    exec: &mut Exec<'_>,
    dims: AttentionDims,
    [q, k, v]: [&[f32]; 3],
    o: &mut [f32],
    log_sums: Option<&mut [f32]>,
) {
    check(&dims, [q, k, v]);
    assert_eq!(o.len(), q.len());
    let (d, c) = (dims.width(), dims.channels);
    let o = Disjoint::new(o);
    let log_sums = log_sums.map(|log_sums| {
        assert_eq!(log_sums.len(), dims.stats_len());
        Disjoint::new(log_sums)
    });
    let blocks = Pieces::new(dims.queries, QUERY_BLOCK);
    let tasks = dims.batch * dims.heads * blocks.count();
    exec.run(tasks, QUERY_BLOCK * (dims.keys + c), |task, scratch| {
        let (at_head, block) = (task / blocks.count(), task % blocks.count());
        let (b, h) = (at_head / dims.heads, at_head % dims.heads);
        let rows = blocks.range(block);
        let seen = dims.visible(rows.end - 1);
        let (p, out) = scratch.split_at_mut(QUERY_BLOCK * dims.keys);
        let (p, out) = (&mut p[..rows.len() * seen], &mut out[..rows.len() * c]);
        let start = (b * dims.queries + rows.start) * d + h * c;
        let q = Mat::strided(&q[start..], rows.len(), c, d);
        let keys = head(&dims, k, b, h).row_block(0, seen);
        gemm(
            MatMut::new(p, rows.len(), seen),
            Write::Replace,
            q,
            keys.t(),
            dims.scale(),
        );
        for (i, p) in rows.clone().zip(p.chunks_exact_mut(seen)) {
            let log_sum = softmax(p, dims.visible(i));
            if let Some(log_sums) = &log_sums {
                let at = at_head * dims.queries + i;
                // SAFETY: each (head, query) belongs to one task.
                let slot = unsafe { log_sums.part(at..at + 1) };
                slot[0] = log_sum;
            }
        }
        let values = head(&dims, v, b, h).row_block(0, seen);
        let weights = Mat::new(p, rows.len(), seen);
        gemm(
            MatMut::new(out, rows.len(), c),
            Write::Replace,
            weights,
            values,
            1.0,
        );
        // SAFETY: each task owns the columns of its head in its rows.
        unsafe { scatter(&o, out, start, d, c) };
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
    let scratch_len = 2 * QUERY_BLOCK * t + QUERY_BLOCK * c + 2 * t * c;
    exec.run(dims.batch * dims.heads, scratch_len, |at_head, scratch| {
        let (b, h) = (at_head / dims.heads, at_head % dims.heads);
        let (p, scratch) = scratch.split_at_mut(QUERY_BLOCK * t);
        let (ds, scratch) = scratch.split_at_mut(QUERY_BLOCK * t);
        let (dq_block, scratch) = scratch.split_at_mut(QUERY_BLOCK * c);
        let (dk_head, dv_head) = scratch.split_at_mut(t * c);
        let dv_head = &mut dv_head[..t * c];
        dk_head.fill(0.0);
        dv_head.fill(0.0);
        let (keys, values) = (head(&dims, k, b, h), head(&dims, v, b, h));
        for rows in (0..blocks.count()).map(|i| blocks.range(i)) {
            let (n, seen) = (rows.len(), dims.visible(rows.end - 1));
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
                dims.scale(),
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
                let visible = dims.visible(i);
                softmax_backward(
                    &mut p[part.clone()],
                    &mut ds[part],
                    visible,
                    log_sums[at_head * t + i],
                    inner,
                );
            }
            let (p, ds) = (Mat::new(p, n, seen), Mat::new(ds, n, seen));
            gemm(
                MatMut::new(&mut dq_block[..n * c], n, c),
                Write::Replace,
                ds,
                keys,
                dims.scale(),
            );
            // SAFETY: each task owns the columns of its head in its sequence.
            unsafe { scatter(&dq, &dq_block[..n * c], start, d, c) };
            gemm(
                MatMut::new(dk_head, seen, c),
                Write::Add,
                ds.t(),
                q,
                dims.scale(),
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
        // SAFETY: the caller guarantees it.
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
    fn softmax_backward(p: &mut [f32], ds: &mut [f32], visible: usize, log_sums: f32, inner: f32) {
        p[visible..].fill(0.0);
        ds[visible..].fill(0.0);
        for (p, ds) in p[..visible].iter_mut().zip(&mut ds[..visible]) {
            *p = exp(*p - log_sums);
            *ds = *p * (*ds - inner);
        }
    }
}
