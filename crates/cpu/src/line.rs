//! The unit that packed matrices are made of.

/// One cache line of packed words. Packed matrices are stored in slices of lines, which ensures their alignment.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C, align(64))]
pub struct Line(pub(crate) [u32; LINE]);

/// Words of a [`Line`].
pub(crate) const LINE: usize = 16;

impl Line {
    /// A line of zeros, to initialise memory.
    pub const ZERO: Self = Self([0; LINE]);
}

/// The whole lines in a piece of memory.
pub(crate) fn lines_in(floats: &mut [f32]) -> &mut [Line] {
    // SAFETY: a line is [`LINE`] words of the size of an f32 without padding, and for both all bit patterns are valid.
    unsafe { floats.align_to_mut::<Line>() }.1
}
