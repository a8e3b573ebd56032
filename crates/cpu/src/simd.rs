//! Run-time choice of the vector instruction set.
//!
//! Kernels are written as plain loops with a fixed lane structure and `mul_add`; the macro `simd!` compiles
//! each of them three times (AVX-512, AVX2 + FMA, and the target's baseline) and picks one when it is
//! called. Since the lanes and the order of operations are in the source, the result has the same
//! bits at every level.

use std::sync::atomic::{AtomicU8, Ordering};

/// Vector instruction sets, from narrowest to widest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// The instructions that the compilation target guarantees (SSE2 on x86-64, NEON on aarch64).
    Baseline,
    /// 256-bit vectors with fused multiply-add.
    Avx2,
    /// 512-bit vectors.
    Avx512,
}

impl Level {
    /// The name printed by diagnostics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Baseline => "baseline",
            Self::Avx2 => "avx2",
            Self::Avx512 => "avx512",
        }
    }
}

const UNKNOWN: u8 = u8::MAX;
static LEVEL: AtomicU8 = AtomicU8::new(UNKNOWN);

/// The widest level that this processor has.
pub fn detected() -> Level {
    #[cfg(target_arch = "x86_64")]
    {
        let avx2 = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
        let avx512 = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512bw");
        match (avx2, avx512) {
            (true, true) => Level::Avx512,
            (true, false) => Level::Avx2,
            _ => Level::Baseline,
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    Level::Baseline
}

/// The level in use: the detected one, or a lower one that the environment variable `TOKENFORMER_SIMD` (`avx512`,
/// `avx2` or `baseline`) requests.
pub fn level() -> Level {
    match LEVEL.load(Ordering::Relaxed) {
        0 => Level::Baseline,
        1 => Level::Avx2,
        2 => Level::Avx512,
        _ => {
            let wanted = match std::env::var("TOKENFORMER_SIMD").as_deref() {
                Ok("baseline") => Level::Baseline,
                Ok("avx2") => Level::Avx2,
                _ => Level::Avx512,
            };
            set_level(wanted)
        }
    }
}

/// What `cpuid` says at a leaf.
#[cfg(target_arch = "x86_64")]
pub(crate) fn cpuid(leaf: u32, index: u32) -> std::arch::x86_64::CpuidResult {
    // Not unsafe any more in newer versions of Rust than the oldest that this is built with.
    #[allow(unused_unsafe)]
    // SAFETY: every processor of this architecture has the instruction.
    unsafe {
        std::arch::x86_64::__cpuid_count(leaf, index)
    }
}

/// Whether products of bfloat16 use the processor's instructions for them at the level in use.
///
/// On Intel's processors they do not: a Xeon of 2023 does half as many multiply-adds a second with these instructions
/// as with those for f32, and widening numbers in registers is 1.25 times as fast (`LOG.md`). It is decided by the maker
/// instead of by measuring, because the two ways treat numbers below 2⁻¹²⁶ differently, and a processor always has to
/// give the same bits.
pub fn multiplies_bf16() -> bool {
    #[cfg(target_arch = "x86_64")]
    {
        static FAST: std::sync::OnceLock<bool> = std::sync::OnceLock::new();
        let detect = || {
            // "GenuineIntel" begins with the bytes of EBX.
            const INTEL: u32 = u32::from_le_bytes(*b"Genu");
            let maker = cpuid(0, 0).ebx;
            is_x86_feature_detected!("avx512bf16") && maker != INTEL
        };
        level() == Level::Avx512 && *FAST.get_or_init(detect)
    }
    #[cfg(not(target_arch = "x86_64"))]
    false
}

/// Lowers the level for the whole process (tests compare the levels). Returns the level in use, which is never above
/// [`detected`]. Packed matrices depend on the level: pack them again after a change.
pub fn set_level(wanted: Level) -> Level {
    let level = wanted.min(detected());
    LEVEL.store(level as u8, Ordering::Relaxed);
    level
}

/// Defines a function whose body is compiled for each [`Level`] and chosen at run time.
macro_rules! simd {
    ($(#[$meta:meta])* $vis:vis fn $name:ident $(<const $g:ident: $gt:ty>)? ($($arg:ident: $ty:ty),* $(,)?) $(-> $ret:ty)? $body:block) => {
        $(#[$meta])*
        #[allow(clippy::too_many_arguments)]
        $vis fn $name $(<const $g: $gt>)? ($($arg: $ty),*) $(-> $ret)? {
            #[inline(always)]
            #[allow(clippy::too_many_arguments)]
            fn body $(<const $g: $gt>)? ($($arg: $ty),*) $(-> $ret)? $body

            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f,avx512vl,avx512dq,avx512bw,avx2,fma")]
                #[allow(clippy::too_many_arguments)]
                fn avx512 $(<const $g: $gt>)? ($($arg: $ty),*) $(-> $ret)? { body $(::<$g>)? ($($arg),*) }
                #[target_feature(enable = "avx2,fma")]
                #[allow(clippy::too_many_arguments)]
                fn avx2 $(<const $g: $gt>)? ($($arg: $ty),*) $(-> $ret)? { body $(::<$g>)? ($($arg),*) }
                match $crate::simd::level() {
                    // SAFETY: `level` is never above what the processor was detected to have.
                    $crate::simd::Level::Avx512 => return unsafe { avx512 $(::<$g>)? ($($arg),*) },
                    // SAFETY: as above.
                    $crate::simd::Level::Avx2 => return unsafe { avx2 $(::<$g>)? ($($arg),*) },
                    $crate::simd::Level::Baseline => {}
                }
            }
            body $(::<$g>)? ($($arg),*)
        }
    };
}
pub(crate) use simd;

/// Prefetches the cache line at an address that will be read soon; this is only a hint, and the address may be invalid.
#[inline(always)]
pub(crate) fn prefetch<T>(at: *const T) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a prefetch of any address is harmless.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
}

/// As [`prefetch`], but only into the second-level cache, for what will not be read at once.
#[inline(always)]
pub(crate) fn prefetch_second<T>(at: *const T) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
        // SAFETY: a prefetch of any address is harmless.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(at.cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
}

/// Lanes of every fixed-order sum: element `i` is always added into lane `i % LANES`, and lanes are
/// added pairwise at the end. Trailing zeros therefore never change a sum.
pub const LANES: usize = 16;

/// Adds the lanes of a sum in a fixed pairwise order.
#[inline(always)]
pub fn add_lanes(mut lanes: [f32; LANES]) -> f32 {
    let mut width = LANES / 2;
    while width > 0 {
        for i in 0..width {
            lanes[i] += lanes[i + width];
        }
        width /= 2;
    }
    lanes[0]
}

/// `Σ f(i)` over `0..len` in the fixed lane order.
#[inline(always)]
pub fn lane_sum(len: usize, f: impl Fn(usize) -> f32) -> f32 {
    let mut lanes = [0.0f32; LANES];
    let whole = len / LANES * LANES;
    let mut i = 0;
    while i < whole {
        for (l, lane) in lanes.iter_mut().enumerate() {
            *lane += f(i + l);
        }
        i += LANES;
    }
    for (l, lane) in lanes.iter_mut().enumerate().take(len - whole) {
        *lane += f(whole + l);
    }
    add_lanes(lanes)
}

/// `a_i = f(a_i)`, and the sum of the new elements in the fixed lane order, in one pass.
#[inline(always)]
pub fn lane_map_sum(a: &mut [f32], f: impl Fn(f32) -> f32) -> f32 {
    let mut lanes = [0.0f32; LANES];
    let (chunks, tail) = a.as_chunks_mut::<LANES>();
    for chunk in chunks {
        for (a, lane) in chunk.iter_mut().zip(&mut lanes) {
            *a = f(*a);
            *lane += *a;
        }
    }
    for (a, lane) in tail.iter_mut().zip(&mut lanes) {
        *a = f(*a);
        *lane += *a;
    }
    add_lanes(lanes)
}

/// `Σ a_i b_i` in the fixed lane order, with fused multiply-add.
#[inline(always)]
pub fn lane_dot(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    let mut lanes = [0.0f32; LANES];
    let (a16, a_tail) = a.as_chunks::<LANES>();
    let (b16, b_tail) = b.as_chunks::<LANES>();
    for (x, y) in a16.iter().zip(b16) {
        for l in 0..LANES {
            lanes[l] = x[l].mul_add(y[l], lanes[l]);
        }
    }
    for l in 0..a_tail.len() {
        lanes[l] = a_tail[l].mul_add(b_tail[l], lanes[l]);
    }
    add_lanes(lanes)
}

/// The largest element; −∞ if there is none. NaN is ignored.
#[inline(always)]
pub fn lane_max(a: &[f32]) -> f32 {
    let larger = |m: f32, x: f32| if x > m { x } else { m };
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let (chunks, tail) = a.as_chunks::<LANES>();
    for chunk in chunks {
        for l in 0..LANES {
            lanes[l] = larger(lanes[l], chunk[l]);
        }
    }
    // Halves instead of one lane after the other, which would take as long as a row of ten vectors.
    let mut width = LANES / 2;
    while width > 0 {
        for i in 0..width {
            lanes[i] = larger(lanes[i], lanes[i + width]);
        }
        width /= 2;
    }
    tail.iter().fold(lanes[0], |m, &x| larger(m, x))
}
