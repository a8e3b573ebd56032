//! Vector registers of 32-bit lanes, for the kernels that choose their instructions.

/// A vector register of 32-bit lanes.
///
/// # Safety
/// All functions: the processor must have the register's instruction set; pointers must be valid
/// for `LANES` (any alignment).
pub(super) trait Vector: Copy {
    const LANES: usize;
    unsafe fn splat(x: u32) -> Self;
    unsafe fn load(from: *const u32) -> Self;
    unsafe fn store(self, to: *mut f32);
    /// Prefetches a line that will be read or written soon; this is only a hint.
    fn prefetch(at: *const f32);
    /// `self · b`.
    unsafe fn mul(self, b: Self) -> Self;
    /// `self · b + c`, rounded once.
    unsafe fn fma(self, b: Self, c: Self) -> Self;
    /// The bfloat16 in the lower half of each word, as f32.
    unsafe fn lower(self) -> Self;
    /// The bfloat16 in the upper half of each word, as f32.
    unsafe fn upper(self) -> Self;
    /// `LANES` bfloat16, as f32.
    unsafe fn halves(from: *const u16) -> Self;
    /// `LANES` integers of 8 bits, as f32.
    unsafe fn bytes(from: *const i8) -> Self;
}

/// Sixteen lanes that the compiler maps to the registers of the target.
#[derive(Clone, Copy)]
pub(super) struct Portable([f32; 16]);

impl Portable {
    #[inline(always)]
    fn bits(self, f: impl Fn(u32) -> u32) -> Self {
        Self(self.0.map(|x| f32::from_bits(f(x.to_bits()))))
    }
}

impl Vector for Portable {
    const LANES: usize = 16;
    #[inline(always)]
    unsafe fn splat(x: u32) -> Self {
        Self([f32::from_bits(x); 16])
    }
    #[inline(always)]
    unsafe fn load(from: *const u32) -> Self {
        // SAFETY: the caller guarantees it.
        Self(unsafe { from.cast::<[f32; 16]>().read_unaligned() })
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: the caller guarantees it.
        unsafe { to.cast::<[f32; 16]>().write_unaligned(self.0) }
    }
    #[inline(always)]
    fn prefetch(_: *const f32) {}
    #[inline(always)]
    unsafe fn mul(self, b: Self) -> Self {
        Self(std::array::from_fn(|i| self.0[i] * b.0[i]))
    }
    #[inline(always)]
    unsafe fn fma(self, b: Self, c: Self) -> Self {
        Self(std::array::from_fn(|i| self.0[i].mul_add(b.0[i], c.0[i])))
    }
    #[inline(always)]
    unsafe fn lower(self) -> Self {
        self.bits(|x| x << 16)
    }
    #[inline(always)]
    unsafe fn upper(self) -> Self {
        self.bits(|x| x & 0xffff_0000)
    }
    #[inline(always)]
    unsafe fn halves(from: *const u16) -> Self {
        // SAFETY: the caller guarantees it.
        let halves = unsafe { from.cast::<[u16; 16]>().read_unaligned() };
        Self(halves.map(|half| f32::from_bits(u32::from(half) << 16)))
    }
    #[inline(always)]
    unsafe fn bytes(from: *const i8) -> Self {
        // SAFETY: the caller guarantees it.
        Self(unsafe { from.cast::<[i8; 16]>().read_unaligned() }.map(f32::from))
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::Vector;
    use std::arch::x86_64::*;

    /// Implements [`Vector`] by intrinsics that map one to one.
    macro_rules! vector {
        ($vector:ty, $lanes:literal, $splat:ident, $load:ident, $store:ident, $mul:ident, $fma:ident,
         $from_bits:ident, $to_bits:ident, $shift:ident, $and:ident, $splat_bits:ident,
             $load_halves:ident, $from_halves:ident, $load_bytes:ident, $from_bytes:ident, $from_ints:ident) => {
            impl Vector for $vector {
                const LANES: usize = $lanes;
                #[inline(always)]
                unsafe fn splat(x: u32) -> Self {
                    // SAFETY: the caller guarantees it.
                    unsafe { $splat(f32::from_bits(x)) }
                }
                #[inline(always)]
                unsafe fn load(from: *const u32) -> Self {
                    // SAFETY: the caller guarantees it.
                    unsafe { $load(from.cast()) }
                }
                #[inline(always)]
                unsafe fn store(self, to: *mut f32) {
                    // SAFETY: the caller guarantees it.
                    unsafe { $store(to, self) }
                }
                #[inline(always)]
                fn prefetch(at: *const f32) {
                    // SAFETY: a prefetch of any address is harmless.
                    unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast()) }
                }
                #[inline(always)]
                unsafe fn mul(self, b: Self) -> Self {
                    // SAFETY: the caller guarantees it.
                    unsafe { $mul(self, b) }
                }
                #[inline(always)]
                unsafe fn fma(self, b: Self, c: Self) -> Self {
                    // SAFETY: the caller guarantees it.
                    unsafe { $fma(self, b, c) }
                }
                #[inline(always)]
                unsafe fn lower(self) -> Self {
                    // SAFETY: the caller guarantees it.
                    unsafe { $from_bits($shift::<16>($to_bits(self))) }
                }
                #[inline(always)]
                unsafe fn upper(self) -> Self {
                    // SAFETY: the caller guarantees it.
                    unsafe { $from_bits($and($to_bits(self), $splat_bits(-0x1_0000))) }
                }
                #[inline(always)]
                unsafe fn halves(from: *const u16) -> Self {
                    // SAFETY: the caller guarantees it.
                    unsafe { $from_bits($shift::<16>($from_halves($load_halves(from.cast())))) }
                }
                #[inline(always)]
                unsafe fn bytes(from: *const i8) -> Self {
                    // SAFETY: the caller guarantees it.
                    unsafe { $from_ints($from_bytes($load_bytes(from.cast()))) }
                }
            }
        };
    }
    vector!(
        __m512,
        16,
        _mm512_set1_ps,
        _mm512_loadu_ps,
        _mm512_storeu_ps,
        _mm512_mul_ps,
        _mm512_fmadd_ps,
        _mm512_castsi512_ps,
        _mm512_castps_si512,
        _mm512_slli_epi32,
        _mm512_and_si512,
        _mm512_set1_epi32,
        _mm256_loadu_si256,
        _mm512_cvtepu16_epi32,
        _mm_loadu_si128,
        _mm512_cvtepi8_epi32,
        _mm512_cvtepi32_ps
    );
    vector!(
        __m256,
        8,
        _mm256_set1_ps,
        _mm256_loadu_ps,
        _mm256_storeu_ps,
        _mm256_mul_ps,
        _mm256_fmadd_ps,
        _mm256_castsi256_ps,
        _mm256_castps_si256,
        _mm256_slli_epi32,
        _mm256_and_si256,
        _mm256_set1_epi32,
        _mm_loadu_si128,
        _mm256_cvtepu16_epi32,
        _mm_loadl_epi64,
        _mm256_cvtepi8_epi32,
        _mm256_cvtepi32_ps
    );
}
