//! bfloat16, for the reduced-precision products.

use crate::simd::simd;

/// A `bfloat16`: the upper half of an f32.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(transparent)]
pub struct Bf16(u16);

impl Bf16 {
    /// Rounds to the nearest value, ties to even; a NaN stays a NaN.
    ///
    /// ```
    /// # use tokenformer_cpu::gemm::Bf16;
    /// assert_eq!(Bf16::from_f32(1.0 + 1.0 / 256.0).to_f32(), 1.0); // a tie
    /// assert_eq!(Bf16::from_f32(-0.3).to_f32(), -0.30078125);
    /// ```
    #[inline(always)]
    pub fn from_f32(x: f32) -> Self {
        Self((rounded(x) >> 16) as u16)
    }

    /// The same value as f32.
    #[inline(always)]
    pub fn to_f32(self) -> f32 {
        f32::from_bits(u32::from(self.0) << 16)
    }

    /// The number with these bits.
    pub fn from_bits(bits: u16) -> Self {
        Self(bits)
    }

    /// The numbers in a piece of memory.
    pub(crate) fn of_floats(floats: &[f32]) -> &[Self] {
        // SAFETY: an f32 has the size of two `Bf16` and at least their alignment, and every bit pattern is one.
        unsafe { std::slice::from_raw_parts(floats.as_ptr().cast(), 2 * floats.len()) }
    }

    /// The bits of the number.
    #[inline(always)]
    pub fn to_bits(self) -> u16 {
        self.0
    }
}

/// The bits of `x` rounded to bfloat16 in the upper half; the lower half is arbitrary.
#[inline(always)]
pub(super) fn rounded(x: f32) -> u32 {
    let bits = x.to_bits();
    let nearest = bits.wrapping_add(0x7fff + ((bits >> 16) & 1));
    // Rounding could turn a NaN into infinity, so its upper half is kept and made quiet instead.
    if x.is_nan() {
        bits | 0x40_0000
    } else {
        nearest
    }
}

simd! {
    /// `to = from`, rounded.
    pub fn round_to_bf16(to: &mut [Bf16], from: &[f32]) {
        assert_eq!(to.len(), from.len());
        to.iter_mut().zip(from).for_each(|(to, &from)| *to = Bf16::from_f32(from));
    }
}
simd! {
    /// `to = from`, exactly.
    pub fn widen_bf16(to: &mut [f32], from: &[Bf16]) {
        assert_eq!(to.len(), from.len());
        to.iter_mut().zip(from).for_each(|(to, from)| *to = from.to_f32());
    }
}
