//! AdamW with decoupled weight decay (Loshchilov & Hutter), one pass over the memory.

use crate::exec::{Disjoint, Exec, Pieces};
use crate::simd::simd;
use tokenformer_device::Adam;

const PIECE: usize = 1 << 14;

/// Updates `p` from gradient `g`, times `factor`, and moments `m`, `v`, all of the same length; `scalars` are those of
/// [`Adam::scalars`].
#[allow(clippy::too_many_arguments)]
pub fn update(
    exec: &mut Exec<'_>,
    adam: Adam,
    scalars: [f32; Adam::SCALARS],
    factor: f32,
    p: &mut [f32],
    g: &[f32],
    m: &mut [f32],
    v: &mut [f32],
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
        update_part(adam, scalars, factor, p, &g[part], m, v);
    });
}

simd! {
    fn update_part(
        adam: Adam, scalars: [f32; Adam::SCALARS], factor: f32,
        p: &mut [f32], g: &[f32], m: &mut [f32], v: &mut [f32],
    ) {
        let [rate, inverse_root, kept] = scalars;
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
