//! Weighted sums of bytes, 16 side by side: what resampling spends its time on.

/// Sums at a time.
pub(crate) const LANES: usize = 16;

/// Bits of the fraction of a weight.
pub(crate) const FRACTION_BITS: u32 = 22;
const HALF: i32 = 1 << (FRACTION_BITS - 1);

/// The instructions that sums are computed with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Code {
    /// Those of any processor.
    Portable,
    /// AVX2: products of eight 32-bit integers, which older x86-64 processors lack.
    #[cfg(target_arch = "x86_64")]
    Avx2(Avx2),
}

/// A proof that the processor has AVX2.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Avx2(());

impl Code {
    /// The fastest that this processor has.
    pub(crate) fn best() -> Self {
        #[cfg(target_arch = "x86_64")]
        if is_x86_feature_detected!("avx2") {
            return Self::Avx2(Avx2(()));
        }
        Self::Portable
    }

    /// The sums over `t` of `weights[t]` times the 16 bytes at `values[t * stride]`, rounded and limited to bytes.
    ///
    /// The weights of a pixel add up to 1, and their absolute values, for a cubic filter, to less than 1.5. With 22 bits of
    /// fraction and values of 8 bits, sums stay below 2^31, so they never wrap.
    ///
    /// # Panics
    /// If `values` ends before the last 16 bytes.
    #[inline(always)]
    pub(crate) fn sums(self, values: &[u8], stride: usize, weights: &[i32]) -> [u8; LANES] {
        match self {
            Self::Portable => portable(values, stride, weights),
            // SAFETY: a value of `Avx2` exists, so the processor has it.
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(_) => unsafe { avx2(values, stride, weights) },
        }
    }
}

fn portable(values: &[u8], stride: usize, weights: &[i32]) -> [u8; LANES] {
    let mut sums = [HALF; LANES];
    for (t, &weight) in weights.iter().enumerate() {
        let values = &values[t * stride..][..LANES];
        for (sum, &value) in sums.iter_mut().zip(values) {
            *sum = sum.wrapping_add(weight.wrapping_mul(i32::from(value)));
        }
    }
    sums.map(to_u8)
}

/// One such sum.
pub(crate) fn sum_of(values: impl Iterator<Item = u8>, weights: &[i32]) -> u8 {
    let products = values.zip(weights);
    to_u8(products.fold(HALF, |sum, (value, weight)| {
        sum.wrapping_add(weight.wrapping_mul(i32::from(value)))
    }))
}

fn to_u8(sum: i32) -> u8 {
    (sum >> FRACTION_BITS).clamp(0, 255) as u8
}

/// The same with a vector of sums for each half of the lanes. Compilers make vectors of several weights out of the portable
/// loop, whose bytes they then gather one by one.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
#[inline]
fn avx2(values: &[u8], stride: usize, weights: &[i32]) -> [u8; LANES] {
    use std::arch::x86_64::{
        _mm_loadu_si128, _mm_storeu_si128, _mm_unpackhi_epi64, _mm_unpacklo_epi64,
        _mm256_add_epi32, _mm256_castsi256_si128, _mm256_cvtepu8_epi32, _mm256_extracti128_si256,
        _mm256_mullo_epi32, _mm256_packs_epi32, _mm256_packus_epi16, _mm256_permute4x64_epi64,
        _mm256_set1_epi32, _mm256_srai_epi32,
    };
    let mut sums = [_mm256_set1_epi32(HALF); 2];
    for (t, &weight) in weights.iter().enumerate() {
        let values = &values[t * stride..][..LANES];
        // SAFETY: the slice has 16 bytes.
        let bytes = unsafe { _mm_loadu_si128(values.as_ptr().cast()) };
        let weight = _mm256_set1_epi32(weight);
        for (sum, bytes) in sums
            .iter_mut()
            .zip([bytes, _mm_unpackhi_epi64(bytes, bytes)])
        {
            let product = _mm256_mullo_epi32(_mm256_cvtepu8_epi32(bytes), weight);
            *sum = _mm256_add_epi32(*sum, product);
        }
    }
    let [low, high] = sums.map(|sum| _mm256_srai_epi32::<{ FRACTION_BITS as i32 }>(sum));
    // Both packings limit the numbers, and work on halves of the vectors: the quarters are put in order in between.
    let words = _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_packs_epi32(low, high));
    let bytes = _mm256_packus_epi16(words, words);
    let halves = [
        _mm256_castsi256_si128(bytes),
        _mm256_extracti128_si256::<1>(bytes),
    ];
    let mut out = [0; LANES];
    // SAFETY: the array has 16 bytes.
    unsafe {
        _mm_storeu_si128(
            out.as_mut_ptr().cast(),
            _mm_unpacklo_epi64(halves[0], halves[1]),
        )
    };
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Compares the code for this processor with the portable code, for sums beyond the bytes as well.
        #[test]
        fn all_codes_give_the_same(
            values in proptest::collection::vec(any::<u8>(), 200),
            weights in proptest::collection::vec(-600_000..900_000, 0..8),
            stride in 0_usize..26,
        ) {
            let found = Code::best().sums(&values, stride, &weights);
            prop_assert_eq!(found, Code::Portable.sums(&values, stride, &weights));
            for (lane, sum) in found.into_iter().enumerate() {
                let column = (0..weights.len()).map(|t| values[t * stride + lane]);
                prop_assert_eq!(sum, sum_of(column, &weights));
            }
        }
    }
}
