//! Sizes of the processor's caches, from which products choose their blocks.

use std::sync::OnceLock;

/// Bytes of the data caches that one core reads first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caches {
    /// First level.
    pub first: usize,
    /// Second level.
    pub second: usize,
}

impl Caches {
    /// Assumed for a processor that does not report its caches: most have at least these.
    pub const SMALL: Self = Self {
        first: 32 << 10,
        second: 512 << 10,
    };
}

/// The caches of this processor, or [`Caches::SMALL`] if it does not report them.
pub fn caches() -> Caches {
    static CACHES: OnceLock<Caches> = OnceLock::new();
    *CACHES.get_or_init(|| detect().unwrap_or(Caches::SMALL))
}

/// Reads the sizes from `cpuid`: leaf 4 on Intel's processors, and 8000_001D with the same layout on AMD's.
#[cfg(target_arch = "x86_64")]
fn detect() -> Option<Caches> {
    use crate::simd::cpuid;
    const EXTENDED: u32 = 0x8000_0000;
    const AMD: u32 = 0x8000_001d;
    /// Kinds of caches: none, data, instructions, both.
    const INSTRUCTIONS: u32 = 2;
    /// More caches than any processor has, so that a wrong answer cannot cause an endless loop.
    const MOST: u32 = 16;
    let read = |leaf: u32| {
        let mut sizes = [0; 2];
        for index in 0..MOST {
            let answer = cpuid(leaf, index);
            let (kind, level) = (answer.eax & 31, answer.eax >> 5 & 7);
            if kind == 0 {
                break;
            }
            let field = |shift: u32, bits: u32| {
                ((answer.ebx >> shift & ((1 << bits) - 1)) as usize).saturating_add(1)
            };
            let (line, partitions, ways) = (field(0, 12), field(12, 10), field(22, 10));
            let sets = (answer.ecx as usize).saturating_add(1);
            if kind != INSTRUCTIONS && (1..=2).contains(&level) {
                let size = line.saturating_mul(partitions).saturating_mul(ways);
                sizes[level as usize - 1] = size.saturating_mul(sets);
            }
        }
        let [first, second] = sizes;
        (first > 0 && second > 0).then_some(Caches { first, second })
    };
    let intel = (cpuid(0, 0).eax >= 4).then(|| read(4)).flatten();
    intel.or_else(|| (cpuid(EXTENDED, 0).eax >= AMD).then(|| read(AMD)).flatten())
}

#[cfg(not(target_arch = "x86_64"))]
fn detect() -> Option<Caches> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_those_of_a_processor() {
        let Caches { first, second } = caches();
        assert!((8 << 10..=1 << 20).contains(&first), "{first}");
        assert!(first < second && second <= 1 << 30, "{first} and {second}");
        if let Some(found) = detect() {
            assert_eq!(found, caches());
        }
    }
}
