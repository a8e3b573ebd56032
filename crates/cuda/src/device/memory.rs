//! Buffers: allocation, copies from and to the host, packing.

use super::Cuda;
use super::storage::{Form, Own, Place, Storage, floats, storage};
use crate::gpu::Number;
use tokenformer_device::{Buffer, DeviceError, PackedMatrix, Result, Role, WeightFormat};

/// Rounds to the nearest bfloat16, ties to even.
fn to_bf16(x: f32) -> u16 {
    let bits = x.to_bits();
    match x.is_nan() {
        true => 0x7fff,
        false => ((bits + 0x7fff + ((bits >> 16) & 1)) >> 16) as u16,
    }
}

fn of_bf16(x: u16) -> f32 {
    f32::from_bits(u32::from(x) << 16)
}

/// The bytes of numbers of which every bit pattern is valid.
fn bytes<T: Plain>(numbers: &[T]) -> &[u8] {
    // SAFETY: the numbers have no padding.
    unsafe { std::slice::from_raw_parts(numbers.as_ptr().cast(), size_of_val(numbers)) }
}

fn bytes_mut<T: Plain>(numbers: &mut [T]) -> &mut [u8] {
    // SAFETY: the numbers have no padding, and every bit pattern is valid.
    unsafe { std::slice::from_raw_parts_mut(numbers.as_mut_ptr().cast(), size_of_val(numbers)) }
}

/// Numbers without padding, of which every bit pattern is valid.
trait Plain {}
impl Plain for f32 {}
impl Plain for f64 {}
impl Plain for u32 {}
impl Plain for u16 {}

impl Cuda {
    fn bytes_of(&self, len: usize, form: Form) -> Result<usize> {
        let bytes = len.checked_mul(form.bytes());
        let fits = bytes.filter(|bytes| *bytes <= isize::MAX as usize);
        fits.ok_or_else(|| self.out_of_memory(len.saturating_mul(form.bytes())))
    }

    /// New memory of some form, with arbitrary content.
    pub(super) fn own(&self, len: usize, form: Form) -> Result<Storage> {
        let bytes = self.bytes_of(len, form)?;
        if bytes == 0 {
            let place = Place::Nowhere;
            return Ok(Storage { place, form });
        }
        let at = match self.gpu.alloc(bytes) {
            Err(crate::GpuError::OutOfMemory { .. }) => {
                self.pool.trim();
                self.gpu.alloc(bytes)
            }
            other => other,
        };
        let at = self.done("an allocation", at)?;
        let place = Place::Own(Own::new(&self.gpu, at, bytes, &self.persistent));
        Ok(Storage { place, form })
    }

    pub(super) fn new_buffer(&self, len: usize, role: Role) -> Result<Buffer> {
        let mut buffer = Buffer::new(self.own(len, Form::of(role, self.precision))?, len);
        self.zeroed(&mut buffer)?;
        Ok(buffer)
    }

    pub(super) fn new_temporary(&self, len: usize, role: Role, buffer: &mut Buffer) -> Result<()> {
        let form = Form::of(role, self.precision);
        let place = match self.bytes_of(len, form)? {
            0 => Place::Nowhere,
            bytes => Place::Temporary(self.scratch(bytes)?),
        };
        buffer.refill(Storage { place, form }, len);
        Ok(())
    }

    pub(super) fn zeroed(&self, buffer: &mut Buffer) -> Result<()> {
        let (storage, len) = (storage(buffer), buffer.len());
        if len == 0 {
            return Ok(());
        }
        let bytes = len * storage.form.bytes();
        // SAFETY: the buffer has this many bytes.
        self.done("clearing", unsafe { self.gpu.zero(storage.at(), bytes) })
    }

    pub(super) fn copied(&self, from: &Buffer, to: &mut Buffer) -> Result<()> {
        assert_eq!(from.len(), to.len());
        let (source, target) = (storage(from), storage(to));
        assert_eq!(source.form, target.form, "numbers are copied as they are");
        if from.is_empty() {
            return Ok(());
        }
        let bytes = from.len() * source.form.bytes();
        // SAFETY: both buffers have this many bytes, and one of them is borrowed mutably.
        let copied = unsafe { self.gpu.copy(source.at(), target.at(), bytes) };
        self.done("a copy", copied)
    }

    fn upload(&self, from: &[u8], to: &Buffer) -> Result<()> {
        if from.is_empty() {
            return Ok(());
        }
        let storage = storage(to);
        assert_eq!(from.len(), to.len() * storage.form.bytes());
        // SAFETY: the buffer has as many bytes.
        let done = unsafe { self.gpu.upload(from, storage.at()) };
        self.done("a copy to the GPU", done)
    }

    fn download(&self, from: &Buffer, start: usize, to: &mut [u8]) -> Result<()> {
        if to.is_empty() {
            return Ok(());
        }
        let storage = storage(from);
        let first = start * storage.form.bytes();
        assert!(first + to.len() <= from.len() * storage.form.bytes());
        // SAFETY: the buffer has as many bytes from this number on.
        let done = unsafe { self.gpu.download(storage.at().plus(first), to) };
        self.done("a copy from the GPU", done)
    }

    pub(super) fn write_numbers(&self, from: &[f32], to: &Buffer) -> Result<()> {
        match storage(to).form {
            Form::Number(Number::F32) => self.upload(bytes(from), to),
            Form::Number(Number::Bf16) => {
                let rounded: Vec<u16> = from.iter().map(|x| to_bf16(*x)).collect();
                self.upload(bytes(&rounded), to)
            }
            other => panic!("a buffer is used as its role says: {other:?} are no numbers"),
        }
    }

    pub(super) fn write_rows(&self, from: &[u32], to: &Buffer) -> Result<()> {
        assert_eq!(
            storage(to).form,
            Form::U32,
            "a buffer is used as its role says"
        );
        self.upload(bytes(from), to)
    }

    pub(super) fn read_numbers(&self, from: &Buffer, start: usize, to: &mut [f32]) -> Result<()> {
        match storage(from).form {
            Form::Number(Number::F32) => self.download(from, start, bytes_mut(to)),
            Form::Number(Number::Bf16) => {
                let mut rounded = vec![0u16; to.len()];
                self.download(from, start, bytes_mut(&mut rounded))?;
                to.iter_mut()
                    .zip(rounded)
                    .for_each(|(to, x)| *to = of_bf16(x));
                Ok(())
            }
            other => panic!("a buffer is used as its role says: {other:?} are no numbers"),
        }
    }

    pub(super) fn read_sums(&self, from: &Buffer, to: &mut [f64]) -> Result<()> {
        assert_eq!(
            storage(from).form,
            Form::F64,
            "a buffer is used as its role says"
        );
        self.download(from, 0, bytes_mut(to))
    }

    /// bfloat16 weights are a rounded copy; other packed formats do not exist here.
    pub(super) fn packed(
        &self,
        weights: Buffer,
        matrix: PackedMatrix,
        format: WeightFormat,
    ) -> Result<Buffer> {
        assert_eq!(weights.len(), matrix.rows * matrix.cols);
        match format {
            WeightFormat::F32 => Ok(weights),
            WeightFormat::Bf16 => {
                let packed = self.own(weights.len(), Form::BF16)?;
                self.round_to(floats(&weights), weights.len(), packed.at())?;
                Ok(Buffer::new(packed, weights.len()))
            }
            WeightFormat::Int8 => Err(self.no_int8()),
        }
    }

    fn no_int8(&self) -> DeviceError {
        use tokenformer_device::Device;
        self.unsupported("packing weights in int8")
    }
}
