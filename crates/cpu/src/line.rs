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
