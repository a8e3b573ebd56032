//! Operations of the optimizer.

use super::Cuda;
use super::launch::{THREADS, args, named, size};
use super::storage::{floats, number, of_type, sums};
use tokenformer_device::{AdamStep, Buffer, Result};

/// Numbers that a thread of a sum of squares visits, and blocks at most.
const NUMBERS: usize = 4096;
const MOST_BLOCKS: usize = 256;

impl Cuda {
    pub(super) fn add_squares(&self, x: &Buffer, to: &mut Buffer, group: usize) -> Result<()> {
        assert!(group < to.len());
        if x.is_empty() {
            return Ok(());
        }
        let blocks = x.len().div_ceil(NUMBERS).min(MOST_BLOCKS);
        let partial = self.scratch(blocks * size_of::<f64>())?;
        let (grid, partial) = ([size(blocks), 1, 1], partial.at());
        // Gradients and what flows through the network: the second may be rounded.
        let number = number(x);
        // SAFETY: there is a partial sum per block, and the group is one of the accumulator's.
        unsafe {
            let args = args![of_type(x, number), partial, x.len() as u64];
            self.launch(named!("squares", number), grid, THREADS, 0, args)?;
            let args = args![partial, sums(to), size(blocks), size(group)];
            self.launch("add_squares", [1; 3], THREADS, 0, args)
        }
    }

    pub(super) fn factors(&self, from: &Buffer, limit: f64, factors: &mut Buffer) -> Result<()> {
        assert_eq!(from.len(), factors.len());
        let args = args![sums(from), floats(factors), size(from.len()), limit];
        // SAFETY: there is a factor per sum.
        unsafe { self.launch("clip_factors", [1; 3], 32, 0, args) }
    }

    pub(super) fn update(
        &self,
        step: AdamStep<'_>,
        p: &mut Buffer,
        g: &Buffer,
        m: &mut Buffer,
        v: &mut Buffer,
    ) -> Result<()> {
        let (n, moments) = (p.len(), number(m));
        assert!([g.len(), m.len(), v.len()] == [n; 3] && step.group < step.factors.len());
        assert!((step.slot + 1) * tokenformer_device::Adam::SCALARS <= step.scalars.len());
        let adam = step.adam;
        let (m, v) = (of_type(m, moments), of_type(v, moments));
        let (scalars, factors) = (floats(step.scalars), floats(step.factors));
        let [slot, group] = [step.slot, step.group].map(size);
        let (beta1, beta2, eps) = (adam.beta1, adam.beta2, adam.eps);
        let args = args![
            floats(p),
            floats(g),
            m,
            v,
            scalars,
            slot,
            factors,
            group,
            beta1,
            beta2,
            eps,
            n as u64
        ];
        // SAFETY: all four have the same length, and slot and group exist.
        unsafe { self.each(named!("adamw", moments), n, args) }
    }
}
