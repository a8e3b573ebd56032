//! AdamW with decoupled weight decay (Loshchilov & Hutter), one pass over the memory.

use crate::exec::{Disjoint, Exec, Pieces};
use crate::simd::simd;

const PIECE: usize = 1 << 14;

/// The numbers of one update of one parameter.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Update {
    /// Learning rate.
    pub lr: f32,
    /// Decay of the first moment.
    pub beta1: f32,
    /// Decay of the second moment.
    pub beta2: f32,
    /// Added to the root of the second moment.
    pub eps: f32,
    /// Weight decay; `lr · weight_decay · p` is subtracted.
    pub weight_decay: f32,
    /// Multiplies the gradient (clipping).
    pub grad_scale: f32,
    /// Updates of this parameter so far, this one included; at least 1.
    pub step: u64,
}

/// Updates `p` from gradient `g` and moments `m`, `v`, all of one length.
pub fn update(
    exec: &mut Exec<'_>,
    u: Update,
    p: &mut [f32],
    g: &[f32],
    m: &mut [f32],
    v: &mut [f32],
) {
    assert_eq!((p.len(), p.len(), p.len()), (g.len(), m.len(), v.len()));
    let step = u.step.min(i32::MAX as u64) as i32;
    let correction1 = 1.0 - f64::from(u.beta1).powi(step);
    let correction2 = 1.0 - f64::from(u.beta2).powi(step);
    let rate = (f64::from(u.lr) / correction1) as f32;
    let inv_root = (1.0 / correction2.sqrt()) as f32;
    let keep = 1.0 - u.lr * u.weight_decay;
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
        update_part(u, rate, inv_root, keep, p, &g[part], m, v);
    });
}

simd! {
    fn update_part(
        u: Update, rate: f32, inv_root: f32, keep: f32,
        p: &mut [f32], g: &[f32], m: &mut [f32], v: &mut [f32],
    ) {
        let (b1, b2) = (1.0 - u.beta1, 1.0 - u.beta2);
        let n = p.len();
        let (g, m, v) = (&g[..n], &mut m[..n], &mut v[..n]);
        for i in 0..n {
            let g = u.grad_scale * g[i];
            m[i] = u.beta1.mul_add(m[i], b1 * g);
            v[i] = u.beta2.mul_add(v[i], b2 * g * g);
            let root = v[i].sqrt().mul_add(inv_root, u.eps);
            p[i] = p[i].mul_add(keep, -rate * m[i] / root);
        }
    }
}
