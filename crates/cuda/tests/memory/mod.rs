//! Memory of an emulated GPU for tests of kernels.
#![allow(dead_code)]

use tokenformer_cuda::{Address, Emulated, Gpu, Number};

/// The emulator, unless it was built without a C++ compiler. With `TOKENFORMER_EMULATED_KERNELS` it runs the kernels of
/// that library, so that the same checks run on mutants and on builds with sanitizers.
pub fn emulated(seed: u32) -> Option<Emulated> {
    if let Some(library) = std::env::var_os("TOKENFORMER_EMULATED_KERNELS") {
        // SAFETY: the variable names a build of the emulated kernels.
        let gpu = unsafe { Emulated::from_library(&library, seed) }.unwrap();
        // A sanitizer finds more if a buffer ends where it should.
        return Some(match std::env::var_os("ASAN_OPTIONS") {
            Some(_) => gpu.without_guards(),
            None => gpu,
        });
    }
    match Emulated::new(seed) {
        Ok(gpu) => Some(gpu),
        Err(error) => {
            println!("skipped: {error}");
            None
        }
    }
}

/// A tensor, NaN at first.
pub struct Memory<'a> {
    gpu: &'a Emulated,
    at: Address,
    len: usize,
    number: Number,
}

impl<'a> Memory<'a> {
    pub fn new(gpu: &'a Emulated, len: usize, number: Number) -> Self {
        let at = gpu.alloc(len * number.bytes()).unwrap();
        Self {
            gpu,
            at,
            len,
            number,
        }
    }

    pub fn from(gpu: &'a Emulated, numbers: &[f32], number: Number) -> Self {
        let memory = Self::new(gpu, numbers.len(), number);
        let bytes: Vec<u8> = match number {
            Number::F32 => numbers.iter().flat_map(|x| x.to_ne_bytes()).collect(),
            Number::Bf16 => numbers
                .iter()
                .flat_map(|x| round(*x).to_ne_bytes())
                .collect(),
        };
        // SAFETY: as many bytes were allocated.
        unsafe { gpu.upload(&bytes, memory.at) }.unwrap();
        memory
    }

    pub fn at(&self) -> Address {
        self.at
    }

    pub fn read(&self) -> Vec<f32> {
        let mut bytes = vec![0; self.len * self.number.bytes()];
        // SAFETY: as many bytes were allocated.
        unsafe { self.gpu.download(self.at, &mut bytes) }.unwrap();
        match self.number {
            Number::F32 => bytes
                .chunks(4)
                .map(|x| f32::from_ne_bytes([x[0], x[1], x[2], x[3]]))
                .collect(),
            Number::Bf16 => bytes
                .chunks(2)
                .map(|x| f32::from_bits(u32::from(u16::from_ne_bytes([x[0], x[1]])) << 16))
                .collect(),
        }
    }
}

impl Drop for Memory<'_> {
    fn drop(&mut self) {
        // SAFETY: it was allocated with these bytes, and nothing runs any more.
        unsafe { self.gpu.free(self.at, self.len * self.number.bytes()) };
    }
}

/// The nearest bfloat16, ties to even.
pub fn round(x: f32) -> u16 {
    if x.is_nan() {
        return 0x7fff;
    }
    let bits = x.to_bits();
    ((bits + 0x7fff + ((bits >> 16) & 1)) >> 16) as u16
}

/// Numbers of a normal distribution, of which the nearest bfloat16 are taken.
pub fn random_bf16(len: usize, size: f32, seed: u64) -> Vec<f32> {
    random(len, size, seed)
        .into_iter()
        .map(|x| f32::from_bits(u32::from(round(x)) << 16))
        .collect()
}

/// Numbers of a normal distribution.
pub fn random(len: usize, size: f32, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(1);
    let mut uniform = move || {
        // SplitMix64.
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    };
    (0..len)
        .map(|_| {
            let (radius, angle) = (
                (-2.0 * (1.0 - uniform()).ln()).sqrt(),
                std::f64::consts::TAU * uniform(),
            );
            size * (radius * angle.cos()) as f32
        })
        .collect()
}
