//! AdamW with decoupled weight decay (Loshchilov & Hutter), one pass over the memory.

use crate::exec::{Disjoint, Exec, Pieces};
use crate::gemm::{Bf16, round_to_bf16, widen_bf16};
use crate::simd::simd;
use tokenformer_device::Adam;

const PIECE: usize = 1 << 14;

/// Numbers whose moments are widened at once.
const WIDENED: usize = 256;

/// What an update needs to know besides arrays.
#[derive(Clone, Copy, Debug)]
pub struct Update {
    /// Settings of the optimizer.
    pub adam: Adam,
    /// Numbers of the step: those of [`Adam::scalars`].
    pub scalars: [f32; Adam::SCALARS],
    /// Factor of the gradient.
    pub factor: f32,
}

/// A type in which moments are kept between updates.
pub trait Moment: Copy + Send + Sync {
    /// Updates a part of the arrays.
    fn update(update: Update, p: &mut [f32], g: &[f32], m: &mut [Self], v: &mut [Self]);
}

impl Moment for f32 {
    fn update(update: Update, p: &mut [f32], g: &[f32], m: &mut [Self], v: &mut [Self]) {
        update_part(update, p, g, m, v);
    }
}

/// The update uses the new moments before they are rounded.
impl Moment for Bf16 {
    fn update(update: Update, p: &mut [f32], g: &[f32], m: &mut [Self], v: &mut [Self]) {
        let (mut wide_m, mut wide_v) = ([0.0; WIDENED], [0.0; WIDENED]);
        let parts = p.chunks_mut(WIDENED).zip(g.chunks(WIDENED));
        let moments = m.chunks_mut(WIDENED).zip(v.chunks_mut(WIDENED));
        for ((p, g), (m, v)) in parts.zip(moments) {
            let (wide_m, wide_v) = (&mut wide_m[..m.len()], &mut wide_v[..v.len()]);
            widen_bf16(wide_m, m);
            widen_bf16(wide_v, v);
            update_part(update, p, g, wide_m, wide_v);
            round_to_bf16(m, wide_m);
            round_to_bf16(v, wide_v);
        }
    }
}

/// Updates `p` from gradient `g` and moments `m`, `v`, all of one length.
pub fn update<M: Moment>(
    exec: &mut Exec<'_>,
    update: Update,
    p: &mut [f32],
    g: &[f32],
    [m, v]: [&mut [M]; 2],
) {
    assert_eq!((p.len(), p.len(), p.len()), (g.len(), m.len(), v.len()));
    let pieces = Pieces::new(p.len(), PIECE);
    let (p, m, v) = (Disjoint::new(p), Disjoint::new(m), Disjoint::new(v));
    exec.run(pieces.count(), 0, |task, _| {
        let part = pieces.range(task);
        // SAFETY: tasks own disjoint parts.
        let (p, m, v) = unsafe {
            (
                p.part(part.clone()),
                m.part(part.clone()),
                v.part(part.clone()),
            )
        };
        M::update(update, p, &g[part], m, v);
    });
}

simd! {
    fn update_part(update: Update, p: &mut [f32], g: &[f32], m: &mut [f32], v: &mut [f32]) {
        let Update { adam, scalars: [rate, inverse_root, kept], factor } = update;
        let (b1, b2) = (1.0 - adam.beta1, 1.0 - adam.beta2);
        let n = p.len();
        let (g, m, v) = (&g[..n], &mut m[..n], &mut v[..n]);
        for i in 0..n {
            let g = factor * g[i];
            m[i] = adam.beta1.mul_add(m[i], b1 * g);
            v[i] = adam.beta2.mul_add(v[i], b2 * g * g);
            let root = v[i].sqrt().mul_add(inverse_root, adam.eps);
            p[i] = p[i].mul_add(kept, -rate * m[i] / root);
        }
    }
}
