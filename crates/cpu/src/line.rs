//! The unit that packed matrices are made of.

/// One cache line of packed words. Packed matrices live in slices of lines that the caller owns,
/// which aligns them.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C, align(64))]
pub struct Line(pub(crate) [u32; LINE]);

/// Words of a [`Line`].
pub(crate) const LINE: usize = 16;

impl Line {
    /// A line to fill fresh memory with.
    pub const ZERO: Self = Self([0; LINE]);
}
