//! Formats in which activations are stored from the forward to the backward pass.

use super::bf16::{Bf16, round_to_bf16, widen_bf16};

/// Numbers that are computed in f32 and stored exactly or rounded.
pub trait Kept: Copy + Send + Sync + 'static {
    /// How many numbers fit into the memory of one f32.
    const PER_FLOAT: usize;
    /// Floats of scratch memory that [`Kept::edit`] and [`Kept::write`] need for each number.
    const SCRATCH: usize;

    /// A view of a piece of memory as these numbers.
    fn in_floats(floats: &mut [f32]) -> &mut [Self];

    /// The numbers as f32, if they are stored exactly.
    fn exact(kept: &mut [Self]) -> Option<&mut [f32]>;

    /// `to = from`, rounded.
    fn keep(to: &mut [Self], from: &[f32]);

    /// Calls `run` to change the numbers.
    fn edit(kept: &mut [Self], scratch: &mut [f32], run: impl FnOnce(&mut [f32]));

    /// As [`Kept::edit`], but `run` starts with arbitrary numbers.
    fn write(kept: &mut [Self], scratch: &mut [f32], run: impl FnOnce(&mut [f32]));
}

impl Kept for f32 {
    const PER_FLOAT: usize = 1;
    const SCRATCH: usize = 0;

    fn in_floats(floats: &mut [f32]) -> &mut [Self] {
        floats
    }

    fn exact(kept: &mut [Self]) -> Option<&mut [f32]> {
        Some(kept)
    }

    fn keep(to: &mut [Self], from: &[f32]) {
        to.copy_from_slice(from);
    }

    fn edit(kept: &mut [Self], _: &mut [f32], run: impl FnOnce(&mut [f32])) {
        run(kept);
    }

    fn write(kept: &mut [Self], _: &mut [f32], run: impl FnOnce(&mut [f32])) {
        run(kept);
    }
}

impl Kept for Bf16 {
    const PER_FLOAT: usize = 2;
    const SCRATCH: usize = 1;

    fn in_floats(floats: &mut [f32]) -> &mut [Self] {
        // SAFETY: an f32 has the size of two `Bf16` and at least their alignment; for both, all bit patterns are valid.
        unsafe { std::slice::from_raw_parts_mut(floats.as_mut_ptr().cast(), 2 * floats.len()) }
    }

    fn exact(_: &mut [Self]) -> Option<&mut [f32]> {
        None
    }

    fn keep(to: &mut [Self], from: &[f32]) {
        round_to_bf16(to, from);
    }

    fn edit(kept: &mut [Self], scratch: &mut [f32], run: impl FnOnce(&mut [f32])) {
        let numbers = &mut scratch[..kept.len()];
        widen_bf16(numbers, kept);
        run(numbers);
        round_to_bf16(kept, numbers);
    }

    fn write(kept: &mut [Self], scratch: &mut [f32], run: impl FnOnce(&mut [f32])) {
        let numbers = &mut scratch[..kept.len()];
        run(numbers);
        round_to_bf16(kept, numbers);
    }
}
